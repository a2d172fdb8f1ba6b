"""How replicas share their work.

`gates` when all calls to Codat must rest, `duties` when a periodic duty is due, `starts` for which
company a sync is just being started, `heartbeats` which workers live.
"""

from sqlalchemy import Column, Table, Text

from app.db.types import UtcTime, metadata

gates = Table(
    "gates",
    metadata,
    Column("name", Text, primary_key=True),
    Column("closed_until", UtcTime),
    Column("closed_as_of", UtcTime),
    Column("opened_as_of", UtcTime),
    Column("reason", Text),
)

duties = Table(
    "duties",
    metadata,
    Column("name", Text, primary_key=True),
    Column("due", UtcTime, nullable=False),
)

starts = Table(
    "starts",
    metadata,
    Column("company_id", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("wanted", Text, nullable=False),
    Column("until", UtcTime, nullable=False),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("seen_at", UtcTime, nullable=False),
)
