"""The tables of failures by cause, so that no question about causes has to read failures.

`filed_failures` has each failed transaction once per cause, message and day, and names the next day
on which it failed so again. In a range of days it counts on the one whose next is not in it: so
sums by both days (`filed_days` of each company, `filed_totals` of all) count each transaction once
in any range. In them an empty fingerprint is the cause as a whole, in which one of several messages
counts. `filed_spans` says when something of a company first and last failed so.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from app.db.types import Key, UtcTime, metadata

AMOUNTS = ("transactions", "open", "syncs")
"""What is counted: transactions, those of them that are open, and whole syncs."""


def _amounts() -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False) for name in AMOUNTS]


# A unit is "t" and a transaction's id, or "s" and a sync's id: of the rows there that name no
# transaction, and of a sync that failed as a whole. `sync` is the number of the day's newest sync.
filed_failures = Table(
    "filed_failures",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("cause", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("next_day", Text, nullable=False),
    Column("cause_next_day", Text),
    Column("first_at", UtcTime, nullable=False),
    Column("last_at", UtcTime, nullable=False),
    Column("sync", Key, nullable=False),
    Column("transactions", Integer, nullable=False),
    Column("open", Integer, nullable=False),
    Column("syncs", Integer, nullable=False),
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
    Column("next_day", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    *_amounts(),
    Index("ix_filed_days_day", "cause", "fingerprint", "day", "company_id"),
)

filed_totals = Table(
    "filed_totals",
    metadata,
    Column("cause", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("next_day", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    *_amounts(),
    Index("ix_filed_totals_day", "day"),
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
