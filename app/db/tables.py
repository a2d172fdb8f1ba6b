"""The tables, and nothing else.

`events` keeps what Codat delivered, `syncs` what it adds up to, `transactions` each sync's whole
item set, `fetches` what we owe ourselves to ask, `notes` why things were done, `companies` their
names, `connections` their links to platforms, `alerts` what somebody must look at. What leaves us
is in `tables_told`, what is counted in `tables_counted` and, by cause, in `tables_filed`; how work
is shared in `tables_duties`.

`cause` and `fingerprint` say why something failed; `cause_rules` is the version of the rules that
said so, and empty where they must be asked anew. A sync has a cause of its own only where no failed
transaction tells one.

Ids from Codat are text: its schema types them as plain strings. A sync is known by company and
sync id; `syncs.id` is ours and keeps the item rows narrow.
"""

from sqlalchemy import (
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

from app.db.tables_counted import company_tallies as company_tallies
from app.db.tables_counted import day_tallies as day_tallies
from app.db.tables_counted import open_failures as open_failures
from app.db.tables_counted import tally_changes as tally_changes
from app.db.tables_duties import duties as duties
from app.db.tables_duties import gates as gates
from app.db.tables_duties import heartbeats as heartbeats
from app.db.tables_duties import starts as starts
from app.db.tables_filed import filed_days as filed_days
from app.db.tables_filed import filed_failures as filed_failures
from app.db.tables_filed import filed_spans as filed_spans
from app.db.tables_filed import filed_totals as filed_totals
from app.db.types import Folded, Key
from app.db.types import UtcTime as UtcTime
from app.db.types import metadata as metadata


def _index_of_known(name: str, *columns: str) -> Index:
    """An index of the rows whose first column is known, on both databases."""
    known = text(f"{columns[0]} IS NOT NULL")
    return Index(name, *columns, postgresql_where=known, sqlite_where=known)


events = Table(
    "events",
    metadata,
    Column("id", Key, primary_key=True),
    Column("message_id", Text, nullable=False, unique=True),
    Column("received_at", UtcTime, nullable=False),
    Column("event", Text, nullable=False),
    Column("event_type", Text),
    Column("reading", Text, nullable=False),
    Column("reason", Text),
    Column("event_id", Text),
    Column("company_id", Text),
    Column("sync_id", Text),
    Column("generated_at", UtcTime),
    Column("body", LargeBinary),
    Index("ix_events_sync", "company_id", "sync_id"),
    Index(
        "ix_events_odd",
        "id",
        postgresql_where=text("reading <> 'ok'"),
        sqlite_where=text("reading <> 'ok'"),
    ),
    Index(
        "ix_events_bodies",
        "received_at",
        postgresql_where=text("body IS NOT NULL"),
        sqlite_where=text("body IS NOT NULL"),
    ),
)

syncs = Table(
    "syncs",
    metadata,
    Column("id", Key, primary_key=True),
    Column("company_id", Text, nullable=False),
    Column("sync_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("heard", Integer, nullable=False),
    Column("unsettled", Integer, nullable=False),
    Column("failure_stage", Text),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("occurred_at", UtcTime, nullable=False),
    Column("day", Text, nullable=False, server_default=""),
    Column("first_seen_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("status_code", Integer),
    Column("status", Text),
    Column("error_message", Text),
    Column("exception_message", Text),
    Column("data_pushed", Boolean),
    Column("codat_utc", UtcTime),
    Column("asked_at", UtcTime),
    Column("items_from", Text),
    Column("items_key", Text),
    Column("items_complete", Boolean, nullable=False),
    Column("total", Integer),
    Column("completed", Integer),
    Column("failed", Integer),
    Column("pending", Integer),
    Column("other", Integer),
    Column("expected", Integer),
    Column("fetched_at", UtcTime),
    Column("announced", Text),
    Column("cause", Text),
    Column("fingerprint", Text),
    Column("cause_rules", Text),
    UniqueConstraint("company_id", "sync_id"),
    Index("ix_syncs_sync_id", "sync_id"),
    Index("ix_syncs_updated_at", "updated_at", "id"),
    Index("ix_syncs_day_updated", "day", "updated_at", "id"),
    Index("ix_syncs_started_at", "started_at", "id"),
    Index("ix_syncs_finished_at", "finished_at", "id"),
    Index("ix_syncs_occurred_at", "occurred_at", "id"),
    Index("ix_syncs_company_occurred", "company_id", "occurred_at", "id"),
    Index(
        "ix_syncs_failed",
        "occurred_at",
        "id",
        postgresql_where=text("failed > 0"),
        sqlite_where=text("failed > 0"),
    ),
    Index(
        "ix_syncs_company_failed",
        "company_id",
        "occurred_at",
        "id",
        postgresql_where=text("failed > 0"),
        sqlite_where=text("failed > 0"),
    ),
    Index(
        "ix_syncs_untold",
        "occurred_at",
        "company_id",
        postgresql_where=text("heard = 0"),
        sqlite_where=text("heard = 0"),
    ),
    Index(
        "ix_syncs_successful",
        "company_id",
        "occurred_at",
        "id",
        postgresql_where=text("outcome IN ('all_written', 'nothing_to_write')"),
        sqlite_where=text("outcome IN ('all_written', 'nothing_to_write')"),
    ),
    Index("ix_syncs_company_updated", "company_id", "updated_at", "id"),
    Index("ix_syncs_status_code", "status_code", "id"),
    Index("ix_syncs_status_updated", "status_code", "updated_at", "id"),
    Index("ix_syncs_outcome", "outcome", "updated_at", "id"),
    Index("ix_syncs_state", "state", "updated_at", "id"),
    _index_of_known("ix_syncs_cause", "cause", "id"),
    _index_of_known("ix_syncs_cause_rules", "cause_rules", "id"),
)

transactions = Table(
    "transactions",
    metadata,
    Column("id", Key, primary_key=True),
    Column("sync", Key, ForeignKey("syncs.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("transaction_id", Text),
    Column("integration_type", Text),
    Column("status", Text),
    Column("message", Text),
    Column("failed", Boolean, nullable=False),
    Column("correlation_id", Text),
    Column("cause", Text),
    Column("fingerprint", Text),
    Column("cause_rules", Text),
    UniqueConstraint("sync", "position"),
    Index("ix_transactions_transaction_id", "transaction_id"),
    Index(
        "ix_transactions_failed",
        "transaction_id",
        postgresql_where=text("failed IS true"),
        sqlite_where=text("failed IS 1"),
    ),
    _index_of_known("ix_transactions_correlation_id", "correlation_id"),
    _index_of_known("ix_transactions_cause", "cause", "sync"),
    _index_of_known("ix_transactions_cause_rules", "cause_rules", "id"),
)

fetches = Table(
    "fetches",
    metadata,
    Column(
        "sync",
        Key,
        ForeignKey("syncs.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("state", Text, nullable=False),
    Column("due", UtcTime),
    Column("token", Text),
    Column("wanted", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    Column("refused_at", UtcTime),
    Index(
        "ix_fetches_due",
        "due",
        postgresql_where=text("due IS NOT NULL"),
        sqlite_where=text("due IS NOT NULL"),
    ),
    Index(
        "ix_fetches_dead",
        "sync",
        postgresql_where=text("state = 'dead'"),
        sqlite_where=text("state = 'dead'"),
    ),
)

notes = Table(
    "notes",
    metadata,
    Column("id", Key, primary_key=True),
    Column("sync", Key, ForeignKey("syncs.id", ondelete="CASCADE"), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_notes_sync", "sync", "id"),
)

companies = Table(
    "companies",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("name", Text),
    Column("name_folded", Folded),
    Column("name_as_of", UtcTime),
    Column("reconciled_at", UtcTime),
    Column("platform", Text),
    Column("connection_state", Text),
    Index("ix_companies_name", "name"),
    Index("ix_companies_name_folded", "name_folded", "company_id"),
)

connections = Table(
    "connections",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("connection_id", Text, primary_key=True),
    Column("platform", Text),
    Column("source_type", Text),
    Column("state", Text),
    Column("as_of", UtcTime, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Key, primary_key=True),
    Column("cause", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("opened_at", UtcTime, nullable=False),
    Column("resolved_at", UtcTime),
    Index(
        "uq_alerts_open",
        "cause",
        "company_id",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
        sqlite_where=text("resolved_at IS NULL"),
    ),
)
