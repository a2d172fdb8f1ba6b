"""The tables. `docs/architecture.md` describes a row of each.

Ids from Codat are text: its schema types them as plain strings. `sync_pk` refers to `syncs.id`,
which is ours and keeps the rows narrow; `sync_id` is always Codat's.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.db.types import Folded, Key, UtcTime
from app.db.types import metadata as metadata


def _partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of some rows, on both databases."""
    condition = text(where)
    return Index(name, *columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


def _columns(kind: Any, *names: str, nullable: bool = True) -> Iterator[Column[Any]]:
    return (Column(name, kind, nullable=nullable) for name in names)


def _sync_reference(*, nullable: bool = False) -> Column[int]:
    return Column("sync_pk", Key, ForeignKey("syncs.id", ondelete="CASCADE"), nullable=nullable)


webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", Key, primary_key=True),
    Column("message_id", Text, nullable=False, unique=True),
    Column("received_at", UtcTime, nullable=False),
    Column("last_received_at", UtcTime),  # of the latest redelivery
    Column("deliveries", Integer, nullable=False, server_default="1"),
    *_columns(Text, "replay_request_id", "replay_actor"),  # of the latest replay
    Column("logged_deliveries", Integer, nullable=False, server_default="0"),  # at the projection
    Column("body", LargeBinary),  # null once retention has removed it
    Column("processed_at", UtcTime),
    *_columns(Text, "event_type", "raw_type", "parse_status", "parse_error", "projection_error"),
    *_columns(Text, "body_id", "company_id", "sync_id"),
    Column("generated_at", UtcTime),
    _partial_index("ix_webhook_events_pending", "id", where="processed_at IS NULL"),
    _partial_index("ix_webhook_events_not_ok", "id", where="parse_status <> 'ok'"),
    _partial_index("ix_webhook_events_failed", "id", where="projection_error IS NOT NULL"),
    _partial_index("ix_webhook_events_bodies", "received_at", where="body IS NOT NULL"),
    Index("ix_webhook_events_sync", "company_id", "sync_id"),
)

syncs = Table(
    "syncs",
    metadata,
    Column("id", Key, primary_key=True),
    *_columns(Text, "company_id", "sync_id", nullable=False),
    # derived, for filters and sorting
    Column("state", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("occurred_at", UtcTime, nullable=False),
    Column("day", Text, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    # what webhooks reported
    *_columns(UtcTime, "started_received_at", "failed_received_at", "completed_received_at"),
    Column("failure_stage", Text),
    *_columns(UtcTime, "reported_started_at", "reported_ended_at"),
    Column("first_seen_at", UtcTime, nullable=False),
    # what Codat's status endpoint answered
    Column("status_code", Integer),
    *_columns(Text, "status", "error_message", "exception_message"),
    Column("data_pushed", Boolean),
    *_columns(UtcTime, "sync_utc", "codat_started_at", "verified_at", "events_verified_at"),
    # the transaction list
    *_columns(Text, "transactions_source", "transactions_key"),
    Column("transactions_complete", Boolean, nullable=False),
    *_columns(Integer, "total", "completed", "failed", "pending", "other", "expected"),
    Column("fetched_at", UtcTime),
    Column("fetch_attempts", Integer),  # that the fetch took which last changed anything
    # why it failed as a whole; null where its failed transactions say so
    *_columns(Text, "cause_key", "fingerprint", "rules_version"),
    Column("announced_digest", Text),  # of the last outgoing message about it
    UniqueConstraint("company_id", "sync_id"),
    Index("ix_syncs_sync_id", "sync_id"),
    Index("ix_syncs_updated", "updated_at", "id"),
    Index("ix_syncs_occurred", "occurred_at", "id"),
    Index("ix_syncs_finished", "finished_at", "id"),
    Index("ix_syncs_company_occurred", "company_id", "occurred_at", "id", "outcome"),
    Index("ix_syncs_outcome_updated", "outcome", "updated_at", "id"),
    Index("ix_syncs_status_code_updated", "status_code", "updated_at", "id"),
    Index("ix_syncs_totals", "day", "outcome", "status_code"),
    _partial_index("ix_syncs_cause", "cause_key", "occurred_at", where="cause_key IS NOT NULL"),
)

transactions = Table(
    "transactions",
    metadata,
    Column("id", Key, primary_key=True),
    _sync_reference(),
    Column("position", Integer, nullable=False),
    *_columns(Text, "transaction_id", "integration_type", "status", "message"),
    Column("failed", Boolean, nullable=False),
    Column("correlation_id", Text),
    *_columns(Text, "cause_key", "fingerprint", "rules_version"),
    UniqueConstraint("sync_pk", "position"),
    Index("ix_transactions_transaction_id", "transaction_id"),
    _partial_index(
        "ix_transactions_correlation_id", "correlation_id", where="correlation_id IS NOT NULL"
    ),
    _partial_index("ix_transactions_cause", "cause_key", "sync_pk", where="cause_key IS NOT NULL"),
    _partial_index(
        "ix_transactions_rules_version", "rules_version", "id", where="rules_version IS NOT NULL"
    ),
)

failed_transactions = Table(
    "failed_transactions",
    metadata,
    # the transaction's id; of a row that names none, its sync and position
    Column("transaction_key", Text, primary_key=True),
    Column("company_id", Text, primary_key=True),
    Column("transaction_id", Text),
    _sync_reference(),  # of the latest failure, like all that follows
    Column("position", Integer, nullable=False),
    *_columns(Text, "cause_key", "fingerprint", nullable=False),
    *_columns(UtcTime, "first_failed_at", "last_failed_at", nullable=False),
    Column("resolved_by", Text),  # the sync_id of the first later sync that completed it
    Index(
        "ix_failed_transactions_totals",
        "last_failed_at",
        "cause_key",
        "company_id",
        "resolved_by",
        "first_failed_at",
    ),
    Index(
        "ix_failed_transactions_cause",
        "cause_key",
        "company_id",
        "last_failed_at",
        "resolved_by",
        "first_failed_at",
    ),
    _partial_index(
        "ix_failed_transactions_open", "company_id", "cause_key", where="resolved_by IS NULL"
    ),
    Index("ix_failed_transactions_company", "company_id", "last_failed_at"),
    Index("ix_failed_transactions_sync", "sync_pk"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Key, primary_key=True),
    Column("kind", Text, nullable=False),  # fetch | message
    Column("key", BigInteger, nullable=False),  # syncs.id | outgoing_messages.id
    Column("group_key", Text, nullable=False),  # company | recipient: shares the places in hand
    Column("state", Text, nullable=False),  # pending | done | dead
    Column("run_at", UtcTime, nullable=False),
    Column("lease_until", UtcTime),
    Column("lease_token", Text),
    Column("worker_id", Text),  # who holds the lease
    Column("claimed_at", UtcTime),  # when its holder got it
    Column("generation", Integer, nullable=False),  # how often it was enqueued
    *_columns(Text, "message_id", "request_id"),  # the webhook event and the request that caused it
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    Column("refused_at", UtcTime),  # when the other side's refusal was final
    # the line of Codat's list for which reconciliation enqueued it last, how often, and when
    Column("reconciled_line", Text),
    Column("reconciled_times", Integer),
    Column("reconciled_at", UtcTime),
    UniqueConstraint("kind", "key"),
    _partial_index("ix_jobs_pending", "kind", "run_at", "id", where="state = 'pending'"),
    _partial_index("ix_jobs_leased", "worker_id", where="lease_token IS NOT NULL"),
    _partial_index("ix_jobs_dead", "kind", "group_key", where="state = 'dead'"),
)

outgoing_messages = Table(
    "outgoing_messages",
    metadata,
    Column("id", Key, primary_key=True),
    # recipient: a name, or "*" until the dispatcher has addressed the message
    *_columns(Text, "message_id", "recipient", "kind", nullable=False),
    Column("company_id", Text),
    _sync_reference(nullable=True),
    Column("digest", Text),  # of what it says, to recognize a repetition
    Column("body", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),  # delivered or abandoned
    Column("attempt_log", Text),  # JSON: the latest attempts as [time, result]
    *_columns(Text, "event_message_id", "request_id"),  # what caused it, as for its job
    Column("bulk_id", Text),  # of the request to retry many syncs that it is part of
    UniqueConstraint("message_id", "recipient"),
    Index("ix_outgoing_messages_sync", "sync_pk", "kind"),
    Index("ix_outgoing_messages_company", "company_id"),
    _partial_index("ix_outgoing_messages_bulk", "bulk_id", where="bulk_id IS NOT NULL"),
    _partial_index("ix_outgoing_messages_ended", "ended_at", where="ended_at IS NOT NULL"),
    _partial_index("ix_outgoing_messages_unaddressed", "id", where="recipient = '*'"),
    sqlite_autoincrement=True,  # an id is the key of a job and must not be used again
)

sync_log = Table(
    "sync_log",
    metadata,
    Column("id", Key, primary_key=True),
    _sync_reference(),
    Column("at", UtcTime, nullable=False),
    *_columns(Text, "kind", "reason", nullable=False),
    Column("message_id", Text),  # of the webhook event, if it was one
    Index("ix_sync_log_sync", "sync_pk", "at", "id"),
)

changes = Table(
    "changes",
    metadata,
    Column("id", Key, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("kind", Text, nullable=False),  # sync | transaction
    *_columns(Text, "company_id", "sync_id", nullable=False),
    Column("transaction_id", Text),
    Column("payload", Text, nullable=False),  # JSON
    Index("ix_changes_company", "company_id"),
    sqlite_autoincrement=True,  # a reader's cursor is an id: none may be used again
)

change_feed_horizon = Table(
    "change_feed_horizon",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row, 1
    Column("pruned_through", BigInteger, nullable=False),
)

companies = Table(
    "companies",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("name", Text),
    Column("name_folded", Folded),
    Column("name_as_of", UtcTime),
    *_columns(UtcTime, "reconciled_at", "reconciled_fully_at"),
    Column("reconciled_through", UtcTime),  # the latest time, by Codat, of a sync in its list
    *_columns(Text, "platform", "connection_state"),
    # since when its syncs fail as a whole, and the latest of these syncs; null if they do not
    Column("cannot_sync_since", UtcTime),
    Column("cannot_sync_pk", BigInteger),
    Index("ix_companies_name", "name"),
    _partial_index(
        "ix_companies_cannot_sync",
        "cannot_sync_since",
        "company_id",
        where="cannot_sync_since IS NOT NULL",
    ),
    Index("ix_companies_name_folded", "name_folded", "company_id"),
)

connections = Table(
    "connections",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("connection_id", Text, primary_key=True),
    *_columns(Text, "platform", "source_type", "state"),
    Column("as_of", UtcTime, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Key, primary_key=True),
    *_columns(Text, "cause", "company_id", "text", nullable=False),
    Column("opened_at", UtcTime, nullable=False),
    Column("resolved_at", UtcTime),
    # what somebody wrote about it, and the latest failure that they knew of
    Column("note", Text),
    Column("is_handled", Boolean, nullable=False, server_default=text("false")),
    Column("noted_by", Text),
    *_columns(UtcTime, "noted_at", "noted_failure_at"),
    _partial_index(
        "uq_alerts_open", "cause", "company_id", where="resolved_at IS NULL", unique=True
    ),
    _partial_index("ix_alerts_resolved", "resolved_at", where="resolved_at IS NOT NULL"),
)

rate_limit_pauses = Table(
    "rate_limit_pauses",
    metadata,
    Column("name", Text, primary_key=True),
    *_columns(UtcTime, "paused_until", "paused_as_of", "resumed_as_of"),
    Column("reason", Text),
)

periodic_tasks = Table(
    "periodic_tasks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("due_at", UtcTime, nullable=False),
)

start_locks = Table(
    "start_locks",
    metadata,
    Column("company_id", Text, primary_key=True),
    *_columns(Text, "idempotency_key", "request_digest", nullable=False),
    Column("locked_until", UtcTime, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", Text, primary_key=True),
    Column("seen_at", UtcTime, nullable=False),
    Column("rules_version", Text),  # of the rules for causes that it applies
    Column("rules_since", UtcTime),  # when the first of the workers with these rules started
)
