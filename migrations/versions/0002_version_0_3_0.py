"""Schema of version 0.3.0: additions only, so that 0.2.0 keeps running beside it."""

import sqlalchemy as sa
from alembic import op

from app.domain.names import fold_name

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what version 0.3.0 needs."""
    op.add_column("workers", sa.Column("rules_version", sa.Text()))
    unaddressed = sa.text("recipient = '*'")
    op.create_index(
        "ix_outgoing_messages_unaddressed",
        "outgoing_messages",
        ["id"],
        postgresql_where=unaddressed,
        sqlite_where=unaddressed,
    )
    for table, name in (
        ("jobs", "message_id"),
        ("jobs", "request_id"),
        ("outgoing_messages", "event_message_id"),
        ("outgoing_messages", "request_id"),
        ("webhook_events", "replay_request_id"),
        ("webhook_events", "replay_actor"),
    ):
        op.add_column(table, sa.Column(name, sa.Text()))
    op.add_column("workers", sa.Column("rules_since", sa.DateTime(timezone=True)))
    op.add_column("syncs", sa.Column("fetch_attempts", sa.Integer()))
    for name in ("reconciled_fully_at", "reconciled_through"):
        op.add_column("companies", sa.Column(name, sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("reconciled_line", sa.Text()))
    op.add_column("jobs", sa.Column("reconciled_times", sa.Integer()))
    op.add_column("jobs", sa.Column("reconciled_at", sa.DateTime(timezone=True)))
    _fold_names_again()


def _fold_names_again() -> None:
    """Names are found without accents and punctuation; 0.2.0 folded their case only."""
    companies = sa.table(
        "companies", sa.column("company_id"), sa.column("name"), sa.column("name_folded")
    )
    connection = op.get_bind()
    names = connection.execute(
        sa.select(companies.c.company_id, companies.c.name).where(companies.c.name.is_not(None))
    )
    rows = [{"company": row.company_id, "folded": fold_name(row.name)} for row in names]
    if rows:
        of_company = companies.c.company_id == sa.bindparam("company")
        connection.execute(
            sa.update(companies).where(of_company).values(name_folded=sa.bindparam("folded")), rows
        )
