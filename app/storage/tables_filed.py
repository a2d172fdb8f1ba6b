"""The tables of failures by cause, so that no question about causes has to read failures.

`filed_failures` has each failed transaction once per cause and message, at its newest failure of
that kind: so whoever asks what failed since a day finds each once, and days can be added up.
`filed_days` and `filed_totals` are those sums, of each company and of all; `filed_spans` says when
something of a company first and last failed so, with an empty fingerprint for a cause as a whole.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from app.storage.columns import Key, UtcTime, metadata

AMOUNTS = ("transactions", "open", "syncs", "by_cause", "open_by_cause")
"""What is counted: transactions, those still open, whole syncs; and, of the first two, those whose
message is the newest of their cause, which are the ones that a cause as a whole counts."""


def _amounts() -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False) for name in AMOUNTS]


# A unit is "t" and a transaction's id, or "s" and a sync's id: of the rows there that name no
# transaction, and of a sync that failed as a whole. `sync` is the number of its newest sync.
filed_failures = Table(
    "filed_failures",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("cause", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("day", Text, nullable=False),
    Column("first_at", UtcTime, nullable=False),
    Column("last_at", UtcTime, nullable=False),
    Column("sync", Key, nullable=False),
    Column("transactions", Integer, nullable=False),
    Column("open", Integer, nullable=False),
    Column("syncs", Integer, nullable=False),
    Column("leads", Boolean, nullable=False),
    Index("ix_filed_failures_first", "company_id", "cause", "fingerprint", "first_at"),
    Index("ix_filed_failures_last", "company_id", "cause", "fingerprint", "last_at"),
    Index("ix_filed_failures_newest", "cause", "fingerprint", "last_at"),
)

filed_days = Table(
    "filed_days",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("cause", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    *_amounts(),
)

filed_totals = Table(
    "filed_totals",
    metadata,
    Column("cause", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    *_amounts(),
)

filed_spans = Table(
    "filed_spans",
    metadata,
    Column("cause", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("company_id", Text, primary_key=True),
    Column("first_at", UtcTime, nullable=False),
    Column("last_at", UtcTime, nullable=False),
    Index("ix_filed_spans_company", "company_id", "cause"),
    Index("ix_filed_spans_first", "cause", "fingerprint", "first_at"),
    Index("ix_filed_spans_last", "cause", "fingerprint", "last_at"),
)
