"""Initial schema"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables and indexes."""
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
        "ix_alerts_resolved",
        "alerts",
        ["resolved_at"],
        unique=False,
        postgresql_where=sa.text("resolved_at IS NOT NULL"),
        sqlite_where=sa.text("resolved_at IS NOT NULL"),
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
        "change_feed_horizon",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("pruned_through", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change_feed_horizon")),
    )
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("sync_id", sa.Text(), nullable=False),
        sa.Column("transaction_id", sa.Text(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_company", "changes", ["company_id"], unique=False)
    op.create_table(
        "companies",
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column(
            "name_folded",
            sa.Text().with_variant(sa.Text(collation="C"), "postgresql"),
            nullable=True,
        ),
        sa.Column("name_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reconciled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("platform", sa.Text(), nullable=True),
        sa.Column("connection_state", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("company_id", name=op.f("pk_companies")),
    )
    op.create_index("ix_companies_name", "companies", ["name"], unique=False)
    op.create_index(
        "ix_companies_name_folded", "companies", ["name_folded", "company_id"], unique=False
    )
    op.create_table(
        "connections",
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("connection_id", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=True),
        sa.Column("source_type", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("company_id", "connection_id", name=op.f("pk_connections")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.BigInteger(), nullable=False),
        sa.Column("group_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("kind", "key", name=op.f("uq_jobs_kind_key")),
    )
    op.create_index(
        "ix_jobs_dead",
        "jobs",
        ["kind", "group_key"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
        sqlite_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "ix_jobs_leased",
        "jobs",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("lease_token IS NOT NULL"),
        sqlite_where=sa.text("lease_token IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_pending",
        "jobs",
        ["kind", "run_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
        sqlite_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "periodic_tasks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_periodic_tasks")),
    )
    op.create_table(
        "rate_limit_pauses",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resumed_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rate_limit_pauses")),
    )
    op.create_table(
        "start_locks",
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("company_id", name=op.f("pk_start_locks")),
    )
    op.create_table(
        "syncs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("sync_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_stage", sa.Text(), nullable=True),
        sa.Column("reported_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("exception_message", sa.Text(), nullable=True),
        sa.Column("data_pushed", sa.Boolean(), nullable=True),
        sa.Column("sync_utc", sa.DateTime(timezone=True), nullable=True),
        sa.Column("codat_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("events_verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("transactions_source", sa.Text(), nullable=True),
        sa.Column("transactions_key", sa.Text(), nullable=True),
        sa.Column("transactions_complete", sa.Boolean(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("completed", sa.Integer(), nullable=True),
        sa.Column("failed", sa.Integer(), nullable=True),
        sa.Column("pending", sa.Integer(), nullable=True),
        sa.Column("other", sa.Integer(), nullable=True),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("rules_version", sa.Text(), nullable=True),
        sa.Column("announced_digest", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_syncs")),
        sa.UniqueConstraint("company_id", "sync_id", name=op.f("uq_syncs_company_id_sync_id")),
    )
    op.create_index(
        "ix_syncs_cause",
        "syncs",
        ["cause_key", "occurred_at"],
        unique=False,
        postgresql_where=sa.text("cause_key IS NOT NULL"),
        sqlite_where=sa.text("cause_key IS NOT NULL"),
    )
    op.create_index(
        "ix_syncs_company_occurred",
        "syncs",
        ["company_id", "occurred_at", "id", "outcome"],
        unique=False,
    )
    op.create_index("ix_syncs_finished", "syncs", ["finished_at", "id"], unique=False)
    op.create_index("ix_syncs_occurred", "syncs", ["occurred_at", "id"], unique=False)
    op.create_index(
        "ix_syncs_outcome_updated", "syncs", ["outcome", "updated_at", "id"], unique=False
    )
    op.create_index(
        "ix_syncs_status_code_updated", "syncs", ["status_code", "updated_at", "id"], unique=False
    )
    op.create_index("ix_syncs_sync_id", "syncs", ["sync_id"], unique=False)
    op.create_index("ix_syncs_totals", "syncs", ["day", "outcome", "status_code"], unique=False)
    op.create_index("ix_syncs_updated", "syncs", ["updated_at", "id"], unique=False)
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deliveries", sa.Integer(), server_default="1", nullable=False),
        sa.Column("logged_deliveries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.Column("raw_type", sa.Text(), nullable=True),
        sa.Column("parse_status", sa.Text(), nullable=True),
        sa.Column("parse_error", sa.Text(), nullable=True),
        sa.Column("projection_error", sa.Text(), nullable=True),
        sa.Column("body_id", sa.Text(), nullable=True),
        sa.Column("company_id", sa.Text(), nullable=True),
        sa.Column("sync_id", sa.Text(), nullable=True),
        sa.Column("generated_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_events")),
        sa.UniqueConstraint("message_id", name=op.f("uq_webhook_events_message_id")),
    )
    op.create_index(
        "ix_webhook_events_bodies",
        "webhook_events",
        ["received_at"],
        unique=False,
        postgresql_where=sa.text("body IS NOT NULL"),
        sqlite_where=sa.text("body IS NOT NULL"),
    )
    op.create_index(
        "ix_webhook_events_failed",
        "webhook_events",
        ["id"],
        unique=False,
        postgresql_where=sa.text("projection_error IS NOT NULL"),
        sqlite_where=sa.text("projection_error IS NOT NULL"),
    )
    op.create_index(
        "ix_webhook_events_not_ok",
        "webhook_events",
        ["id"],
        unique=False,
        postgresql_where=sa.text("parse_status <> 'ok'"),
        sqlite_where=sa.text("parse_status <> 'ok'"),
    )
    op.create_index(
        "ix_webhook_events_pending",
        "webhook_events",
        ["id"],
        unique=False,
        postgresql_where=sa.text("processed_at IS NULL"),
        sqlite_where=sa.text("processed_at IS NULL"),
    )
    op.create_index(
        "ix_webhook_events_sync", "webhook_events", ["company_id", "sync_id"], unique=False
    )
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_workers")),
    )
    op.create_table(
        "failed_transactions",
        sa.Column("transaction_key", sa.Text(), nullable=False),
        sa.Column("company_id", sa.Text(), nullable=False),
        sa.Column("transaction_id", sa.Text(), nullable=True),
        sa.Column("sync_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("cause_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("first_failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sync_pk"],
            ["syncs.id"],
            name=op.f("fk_failed_transactions_sync_pk"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "transaction_key", "company_id", name=op.f("pk_failed_transactions")
        ),
    )
    op.create_index(
        "ix_failed_transactions_cause",
        "failed_transactions",
        ["cause_key", "company_id", "last_failed_at", "resolved_by", "first_failed_at"],
        unique=False,
    )
    op.create_index(
        "ix_failed_transactions_company",
        "failed_transactions",
        ["company_id", "last_failed_at"],
        unique=False,
    )
    op.create_index(
        "ix_failed_transactions_open",
        "failed_transactions",
        ["company_id", "cause_key"],
        unique=False,
        postgresql_where=sa.text("resolved_by IS NULL"),
        sqlite_where=sa.text("resolved_by IS NULL"),
    )
    op.create_index("ix_failed_transactions_sync", "failed_transactions", ["sync_pk"], unique=False)
    op.create_index(
        "ix_failed_transactions_totals",
        "failed_transactions",
        ["last_failed_at", "cause_key", "company_id", "resolved_by", "first_failed_at"],
        unique=False,
    )
    op.create_table(
        "outgoing_messages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("company_id", sa.Text(), nullable=True),
        sa.Column("sync_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["sync_pk"], ["syncs.id"], name=op.f("fk_outgoing_messages_sync_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outgoing_messages")),
        sa.UniqueConstraint(
            "message_id", "recipient", name=op.f("uq_outgoing_messages_message_id_recipient")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_outgoing_messages_company", "outgoing_messages", ["company_id"], unique=False
    )
    op.create_index(
        "ix_outgoing_messages_ended",
        "outgoing_messages",
        ["ended_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NOT NULL"),
        sqlite_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index(
        "ix_outgoing_messages_sync", "outgoing_messages", ["sync_pk", "kind"], unique=False
    )
    op.create_table(
        "sync_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sync_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sync_pk"], ["syncs.id"], name=op.f("fk_sync_log_sync_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_log")),
    )
    op.create_index("ix_sync_log_sync", "sync_log", ["sync_pk", "at", "id"], unique=False)
    op.create_table(
        "transactions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sync_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("transaction_id", sa.Text(), nullable=True),
        sa.Column("integration_type", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("cause_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("rules_version", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sync_pk"], ["syncs.id"], name=op.f("fk_transactions_sync_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transactions")),
        sa.UniqueConstraint("sync_pk", "position", name=op.f("uq_transactions_sync_pk_position")),
    )
    op.create_index(
        "ix_transactions_cause",
        "transactions",
        ["cause_key", "sync_pk"],
        unique=False,
        postgresql_where=sa.text("cause_key IS NOT NULL"),
        sqlite_where=sa.text("cause_key IS NOT NULL"),
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
        "ix_transactions_rules_version",
        "transactions",
        ["rules_version", "id"],
        unique=False,
        postgresql_where=sa.text("rules_version IS NOT NULL"),
        sqlite_where=sa.text("rules_version IS NOT NULL"),
    )
    op.create_index(
        "ix_transactions_transaction_id", "transactions", ["transaction_id"], unique=False
    )
