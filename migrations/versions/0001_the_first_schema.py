"""The first schema

Policy: this runs while the old code still serves. Add, never rename or drop in the same release;
an index on a grown table is built in a release of its own. Every statement waits at most five
seconds for a lock (set in app/db/migrations.py). It must run on SQLite and on PostgreSQL, up and
down.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["cause", "company_id"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
        sqlite_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "companies",
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("name_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reconciled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("company_id", name=op.f("pk_companies")),
    )
    op.create_index("ix_companies_name", "companies", ["name"], unique=False)
    op.create_table(
        "duties",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_duties")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.Column("reading", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("company_id", sa.Text(), nullable=True),
        sa.Column("sync_id", sa.Text(), nullable=True),
        sa.Column("generated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("message_id", name=op.f("uq_events_message_id")),
    )
    op.create_index(
        "ix_events_odd",
        "events",
        ["id"],
        unique=False,
        postgresql_where=sa.text("reading <> 'ok'"),
        sqlite_where=sa.text("reading <> 'ok'"),
    )
    op.create_index("ix_events_sync", "events", ["company_id", "sync_id"], unique=False)
    op.create_table(
        "gates",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("closed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opened_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_gates")),
    )
    op.create_table(
        "heartbeats",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "syncs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("sync_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("heard", sa.Integer(), nullable=False),
        sa.Column("unsettled", sa.Integer(), nullable=False),
        sa.Column("failure_stage", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("exception_message", sa.Text(), nullable=True),
        sa.Column("data_pushed", sa.Boolean(), nullable=True),
        sa.Column("codat_utc", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("items_from", sa.Text(), nullable=True),
        sa.Column("items_key", sa.Text(), nullable=True),
        sa.Column("items_complete", sa.Boolean(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("completed", sa.Integer(), nullable=True),
        sa.Column("failed", sa.Integer(), nullable=True),
        sa.Column("pending", sa.Integer(), nullable=True),
        sa.Column("other", sa.Integer(), nullable=True),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_syncs")),
        sa.UniqueConstraint("company_id", "sync_id", name=op.f("uq_syncs_company_id_sync_id")),
    )
    op.create_index(
        "ix_syncs_company_occurred", "syncs", ["company_id", "occurred_at", "id"], unique=False
    )
    op.create_index(
        "ix_syncs_company_updated", "syncs", ["company_id", "updated_at", "id"], unique=False
    )
    op.create_index(
        "ix_syncs_failed",
        "syncs",
        ["occurred_at", "id"],
        unique=False,
        postgresql_where=sa.text("failed > 0"),
        sqlite_where=sa.text("failed > 0"),
    )
    op.create_index("ix_syncs_finished_at", "syncs", ["finished_at", "id"], unique=False)
    op.create_index("ix_syncs_occurred_at", "syncs", ["occurred_at", "id"], unique=False)
    op.create_index("ix_syncs_outcome", "syncs", ["outcome", "updated_at", "id"], unique=False)
    op.create_index("ix_syncs_started_at", "syncs", ["started_at", "id"], unique=False)
    op.create_index("ix_syncs_state", "syncs", ["state", "updated_at", "id"], unique=False)
    op.create_index("ix_syncs_status_code", "syncs", ["status_code", "id"], unique=False)
    op.create_index(
        "ix_syncs_status_updated", "syncs", ["status_code", "updated_at", "id"], unique=False
    )
    op.create_index("ix_syncs_sync_id", "syncs", ["sync_id"], unique=False)
    op.create_index(
        "ix_syncs_untold",
        "syncs",
        ["occurred_at", "company_id"],
        unique=False,
        postgresql_where=sa.text("heard = 0"),
        sqlite_where=sa.text("heard = 0"),
    )
    op.create_index("ix_syncs_updated_at", "syncs", ["updated_at", "id"], unique=False)
    op.create_table(
        "fetches",
        sa.Column(
            "sync",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sync"], ["syncs.id"], name=op.f("fk_fetches_sync"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sync", name=op.f("pk_fetches")),
    )
    op.create_index(
        "ix_fetches_dead",
        "fetches",
        ["sync"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
        sqlite_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "ix_fetches_due",
        "fetches",
        ["due"],
        unique=False,
        postgresql_where=sa.text("due IS NOT NULL"),
        sqlite_where=sa.text("due IS NOT NULL"),
    )
    op.create_table(
        "notes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sync", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sync"], ["syncs.id"], name=op.f("fk_notes_sync"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notes")),
    )
    op.create_index("ix_notes_sync", "notes", ["sync", "id"], unique=False)
    op.create_table(
        "transactions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sync", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("transaction_id", sa.Text(), nullable=True),
        sa.Column("integration_type", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sync"], ["syncs.id"], name=op.f("fk_transactions_sync"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transactions")),
        sa.UniqueConstraint("sync", "position", name=op.f("uq_transactions_sync_position")),
    )
    op.create_index(
        "ix_transactions_cause",
        "transactions",
        ["cause", "sync"],
        unique=False,
        postgresql_where=sa.text("cause IS NOT NULL"),
        sqlite_where=sa.text("cause IS NOT NULL"),
    )
    op.create_index(
        "ix_transactions_correlation_id",
        "transactions",
        ["correlation_id"],
        unique=False,
        postgresql_where=sa.text("correlation_id IS NOT NULL"),
        sqlite_where=sa.text("correlation_id IS NOT NULL"),
    )
    op.create_index(
        "ix_transactions_transaction_id", "transactions", ["transaction_id"], unique=False
    )


def downgrade() -> None:
    """Take this revision back."""
    op.drop_index("ix_transactions_transaction_id", table_name="transactions")
    op.drop_index(
        "ix_transactions_correlation_id",
        table_name="transactions",
        postgresql_where=sa.text("correlation_id IS NOT NULL"),
        sqlite_where=sa.text("correlation_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_transactions_cause",
        table_name="transactions",
        postgresql_where=sa.text("cause IS NOT NULL"),
        sqlite_where=sa.text("cause IS NOT NULL"),
    )
    op.drop_table("transactions")
    op.drop_index("ix_notes_sync", table_name="notes")
    op.drop_table("notes")
    op.drop_index(
        "ix_fetches_due",
        table_name="fetches",
        postgresql_where=sa.text("due IS NOT NULL"),
        sqlite_where=sa.text("due IS NOT NULL"),
    )
    op.drop_index(
        "ix_fetches_dead",
        table_name="fetches",
        postgresql_where=sa.text("state = 'dead'"),
        sqlite_where=sa.text("state = 'dead'"),
    )
    op.drop_table("fetches")
    op.drop_index("ix_syncs_updated_at", table_name="syncs")
    op.drop_index(
        "ix_syncs_untold",
        table_name="syncs",
        postgresql_where=sa.text("heard = 0"),
        sqlite_where=sa.text("heard = 0"),
    )
    op.drop_index("ix_syncs_sync_id", table_name="syncs")
    op.drop_index("ix_syncs_status_updated", table_name="syncs")
    op.drop_index("ix_syncs_status_code", table_name="syncs")
    op.drop_index("ix_syncs_state", table_name="syncs")
    op.drop_index("ix_syncs_started_at", table_name="syncs")
    op.drop_index("ix_syncs_outcome", table_name="syncs")
    op.drop_index("ix_syncs_occurred_at", table_name="syncs")
    op.drop_index("ix_syncs_finished_at", table_name="syncs")
    op.drop_index(
        "ix_syncs_failed",
        table_name="syncs",
        postgresql_where=sa.text("failed > 0"),
        sqlite_where=sa.text("failed > 0"),
    )
    op.drop_index("ix_syncs_company_updated", table_name="syncs")
    op.drop_index("ix_syncs_company_occurred", table_name="syncs")
    op.drop_table("syncs")
    op.drop_table("heartbeats")
    op.drop_table("gates")
    op.drop_index("ix_events_sync", table_name="events")
    op.drop_index(
        "ix_events_odd",
        table_name="events",
        postgresql_where=sa.text("reading <> 'ok'"),
        sqlite_where=sa.text("reading <> 'ok'"),
    )
    op.drop_table("events")
    op.drop_table("duties")
    op.drop_index("ix_companies_name", table_name="companies")
    op.drop_table("companies")
    op.drop_index(
        "uq_alerts_open",
        table_name="alerts",
        postgresql_where=sa.text("resolved_at IS NULL"),
        sqlite_where=sa.text("resolved_at IS NULL"),
    )
    op.drop_table("alerts")
