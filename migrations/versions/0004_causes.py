"""Causes: why a transaction or a whole sync failed, and which rules said so

What failed before has an empty `cause_rules`: the worker asks the rules about it, in small steps.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("syncs", sa.Column("cause", sa.Text(), nullable=True))
    for table in ("syncs", "transactions"):
        op.add_column(table, sa.Column("fingerprint", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("cause_rules", sa.Text(), nullable=True))
    op.execute("UPDATE transactions SET cause_rules = '' WHERE failed")
    op.execute("UPDATE syncs SET cause_rules = '' WHERE status_code >= 4000")
    _index("syncs", "cause", "id")
    _index("syncs", "cause_rules", "id")
    _index("transactions", "cause_rules", "id")


def _index(table: str, column: str, then: str) -> None:
    known = sa.text(f"{column} IS NOT NULL")
    op.create_index(
        f"ix_{table}_{column}",
        table,
        [column, then],
        unique=False,
        postgresql_where=known,
        sqlite_where=known,
    )


def downgrade() -> None:
    """Take this revision back."""
    op.drop_index("ix_transactions_cause_rules", table_name="transactions")
    op.drop_index("ix_syncs_cause_rules", table_name="syncs")
    op.drop_index("ix_syncs_cause", table_name="syncs")
    for table in ("transactions", "syncs"):
        op.drop_column(table, "cause_rules")
        op.drop_column(table, "fingerprint")
    op.drop_column("syncs", "cause")
