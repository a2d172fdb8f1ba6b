"""What is counted ahead: totals by company and day, open failures; names folded for search

The old code goes on serving while this runs and does not count; the daily recount, which is also
the first thing a new worker does, makes that good.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FOLDED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SUCCESSFUL = sa.text("outcome IN ('all_written', 'nothing_to_write')")

BY_COMPANY = """
    INSERT INTO company_tallies (company_id, what, total)
    SELECT company_id, outcome, count(*) FROM syncs GROUP BY company_id, outcome
"""
BY_DAY = """
    INSERT INTO day_tallies (day, what, status_code, total)
    SELECT substr(CAST(occurred_at AS text), 1, 10), outcome, coalesce(status_code, -1), count(*)
    FROM syncs GROUP BY 1, 2, 3
"""
OPEN = """
    INSERT INTO open_failures (company_id, transaction_id)
    SELECT DISTINCT s.company_id, t.transaction_id
    FROM transactions t JOIN syncs s ON s.id = t.sync
    WHERE t.failed AND t.transaction_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM transactions o JOIN syncs later ON later.id = o.sync
        WHERE o.transaction_id = t.transaction_id AND later.company_id = s.company_id
        AND (later.occurred_at, later.id) > (s.occurred_at, s.id)
        AND lower(trim(o.status)) = 'completed'
        AND NOT EXISTS (
            SELECT 1 FROM transactions beside
            WHERE beside.sync = o.sync AND beside.transaction_id = o.transaction_id
            AND coalesce(lower(trim(beside.status)), '') <> 'completed'
        )
    )
"""
OPEN_BY_COMPANY = """
    INSERT INTO company_tallies (company_id, what, total)
    SELECT company_id, 'open_failures', count(*) FROM (
        SELECT company_id FROM open_failures
        UNION ALL
        SELECT s.company_id FROM transactions t JOIN syncs s ON s.id = t.sync
        WHERE t.failed AND t.transaction_id IS NULL
    ) AS every GROUP BY company_id
"""


def upgrade() -> None:
    """Bring the schema to this revision."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL statement_timeout = 0")
    _make_tables()
    _index()
    _fold_names()
    for statement in (BY_COMPANY, BY_DAY, OPEN, OPEN_BY_COMPANY):
        op.execute(statement)


def _make_tables() -> None:
    op.create_table(
        "tally_changes",
        sa.Column("id", KEY, nullable=False),
        sa.Column("company_id", sa.Text(), nullable=True),
        sa.Column("day", sa.Text(), nullable=True),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("change", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tally_changes")),
    )
    op.create_index("ix_tally_changes_company_id", "tally_changes", ["company_id"])
    op.create_index("ix_tally_changes_day", "tally_changes", ["day"])
    op.create_table(
        "company_tallies",
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("company_id", "what", name=op.f("pk_company_tallies")),
    )
    op.create_table(
        "day_tallies",
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("status_code", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "what", "status_code", name=op.f("pk_day_tallies")),
    )
    op.create_table(
        "open_failures",
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("transaction_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("company_id", "transaction_id", name=op.f("pk_open_failures")),
    )


def _index() -> None:
    op.add_column("syncs", sa.Column("day", sa.Text(), nullable=False, server_default=""))
    op.execute("UPDATE syncs SET day = substr(CAST(occurred_at AS text), 1, 10)")
    op.create_index("ix_syncs_day_updated", "syncs", ["day", "updated_at", "id"])
    op.add_column("companies", sa.Column("name_folded", FOLDED, nullable=True))
    op.create_index("ix_companies_name_folded", "companies", ["name_folded", "company_id"])
    op.create_index(
        "ix_syncs_successful",
        "syncs",
        ["company_id", "occurred_at", "id"],
        postgresql_where=SUCCESSFUL,
        sqlite_where=SUCCESSFUL,
    )
    op.create_index(
        "ix_syncs_company_failed",
        "syncs",
        ["company_id", "occurred_at", "id"],
        postgresql_where=sa.text("failed > 0"),
        sqlite_where=sa.text("failed > 0"),
    )
    op.create_index(
        "ix_transactions_failed",
        "transactions",
        ["transaction_id"],
        postgresql_where=sa.text("failed IS true"),
        sqlite_where=sa.text("failed IS 1"),
    )


def _fold_names() -> None:
    """In Python: the databases do not agree on what a small letter is."""
    bind = op.get_bind()
    companies = sa.table(
        "companies", sa.column("company_id"), sa.column("name"), sa.column("name_folded")
    )
    named = bind.execute(sa.select(companies.c.company_id, companies.c.name)).all()
    folded = [{"id": key, "folded": name.casefold()} for key, name in named if name is not None]
    if folded:
        bind.execute(
            sa.update(companies)
            .where(companies.c.company_id == sa.bindparam("id"))
            .values(name_folded=sa.bindparam("folded")),
            folded,
        )


def downgrade() -> None:
    """Take this revision back."""
    op.drop_index("ix_transactions_failed", table_name="transactions")
    op.drop_index("ix_syncs_day_updated", table_name="syncs")
    op.drop_column("syncs", "day")
    op.drop_index("ix_syncs_company_failed", table_name="syncs")
    op.drop_index("ix_syncs_successful", table_name="syncs")
    op.drop_index("ix_companies_name_folded", table_name="companies")
    op.drop_column("companies", "name_folded")
    for table in ("open_failures", "day_tallies", "company_tallies", "tally_changes"):
        op.drop_table(table)
