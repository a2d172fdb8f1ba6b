"""What is counted ahead, so that no question has to count rows.

`tally_changes` is what each transaction adds or takes away: only ever inserted, so writers never
wait for each other's counters. `company_tallies` and `day_tallies` are what the changes folded so
far add up to; a total is always both together. `open_failures` names the failed transactions that
nothing has cured since.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from app.db.types import Key, metadata

OPEN_FAILURES = "open_failures"  # counted beside the outcomes
NO_CODE = -1  # the status code of a sync that has none

tally_changes = Table(
    "tally_changes",
    metadata,
    Column("id", Key, primary_key=True),
    Column("company_id", Text),
    Column("day", Text),
    Column("what", Text, nullable=False),
    Column("status_code", Integer, nullable=False),
    Column("change", Integer, nullable=False),
    Index("ix_tally_changes_company_id", "company_id"),
    Index("ix_tally_changes_day", "day"),
)

company_tallies = Table(
    "company_tallies",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("what", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
)

day_tallies = Table(
    "day_tallies",
    metadata,
    Column("day", Text, primary_key=True),
    Column("what", Text, primary_key=True),
    Column("status_code", Integer, primary_key=True, autoincrement=False),
    Column("total", BigInteger, nullable=False),
)

open_failures = Table(
    "open_failures",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("transaction_id", Text, primary_key=True),
)
