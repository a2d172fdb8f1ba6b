"""The tables of what leaves us.

`journal` has what was changed and is not told or counted yet, `changes` every change in order,
`feeds` how that order goes on in another database, `outgoing` what we owe others to tell.
`app.db.migrations` imports these, so that migrations know them.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.db.types import Key, UtcTime, metadata

journal = Table(
    "journal",
    metadata,
    Column("id", Key, primary_key=True),
    Column("told", Text, nullable=False),
    Column("counts", Text, nullable=False),
)

# Ids must never be used again, or a reader's cursor would point past rows that are new.
changes = Table(
    "changes",
    metadata,
    Column("id", Key, primary_key=True),
    Column("txid", BigInteger, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("kind", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("sync_id", Text, nullable=False),
    Column("transaction_id", Text),
    Column("told", Text, nullable=False),
    Index("ix_changes_order", "txid", "id"),
    sqlite_autoincrement=True,
)

feeds = Table(
    "feeds",
    metadata,
    Column("name", Text, primary_key=True),
    Column("lift", BigInteger, nullable=False),
)

outgoing = Table(
    "outgoing",
    metadata,
    Column("id", Key, primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("company_id", Text),
    Column("sync", Key, ForeignKey("syncs.id", ondelete="CASCADE")),
    Column("content", Text),
    Column("body", Text, nullable=False),
    Column("owed_at", UtcTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("due", UtcTime),
    Column("token", Text),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    Column("ended_at", UtcTime),
    UniqueConstraint("message_id", "recipient"),
    Index(
        "ix_outgoing_due",
        "recipient",
        "due",
        postgresql_where=text("due IS NOT NULL"),
        sqlite_where=text("due IS NOT NULL"),
    ),
    Index("ix_outgoing_sync", "sync", "kind"),
    Index("ix_outgoing_company", "company_id"),
    Index("ix_outgoing_ended", "state", "ended_at"),
)
