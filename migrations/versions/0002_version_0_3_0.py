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
    op.add_column("outgoing_messages", sa.Column("attempt_log", sa.Text()))
    _fold_names_again()
    op.add_column("companies", sa.Column("cannot_sync_since", sa.DateTime(timezone=True)))
    op.add_column("companies", sa.Column("cannot_sync_pk", sa.BigInteger()))
    _partial_index("companies", "cannot_sync", "cannot_sync_since", "company_id")
    _find_companies_that_cannot_sync()
    op.add_column("outgoing_messages", sa.Column("bulk_id", sa.Text()))
    _partial_index("outgoing_messages", "bulk", "bulk_id")
    for name in ("note", "noted_by"):
        op.add_column("alerts", sa.Column(name, sa.Text()))
    for name in ("noted_at", "noted_failure_at"):
        op.add_column("alerts", sa.Column(name, sa.DateTime(timezone=True)))
    false = sa.text("false")
    op.add_column(
        "alerts", sa.Column("is_handled", sa.Boolean(), nullable=False, server_default=false)
    )


def _partial_index(table: str, name: str, *columns: str) -> None:
    """An index of the rows that have a value in the first column."""
    where = sa.text(f"{columns[0]} IS NOT NULL")
    op.create_index(
        f"ix_{table}_{name}", table, columns, postgresql_where=where, sqlite_where=where
    )


def _find_companies_that_cannot_sync() -> None:
    """Those whose syncs have failed as a whole since the last one that did not."""
    op.execute(
        """
        WITH failed AS (
            SELECT company_id, occurred_at, id FROM syncs
            WHERE outcome = 'failed' AND verified_at IS NOT NULL
            AND (total IS NULL OR (total = 0 AND transactions_complete))
            AND NOT EXISTS (
                SELECT 1 FROM syncs AS later
                WHERE later.company_id = syncs.company_id
                AND (later.occurred_at, later.id) > (syncs.occurred_at, syncs.id)
                AND (later.outcome IN ('all_written', 'nothing_to_write', 'partly_failed')
                     OR (later.outcome = 'failed' AND later.total > 0))
            )
        )
        UPDATE companies SET
            cannot_sync_since = (
                SELECT min(occurred_at) FROM failed WHERE failed.company_id = companies.company_id
            ),
            cannot_sync_pk = (
                SELECT id FROM failed WHERE failed.company_id = companies.company_id
                ORDER BY occurred_at DESC, id DESC LIMIT 1
            )
        WHERE company_id IN (SELECT company_id FROM failed)
        """
    )


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
