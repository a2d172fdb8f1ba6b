"""What the runs share: databases, processes on them, and figures read from outside."""

import shutil
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, func, select

from app import logging
from app.db import migrations
from app.db.engine import open_database
from app.db.tables import metadata, webhook_events
from tests import databases
from tests.processes import Process, Stage, stage

KINDS = ("sqlite", "postgresql")
DURABLE = ("max_connections=200",)
"""Settings of a PostgreSQL as it ships, whose commits survive a crash; servers for tests do not."""
IS_PENDING = webhook_events.c.processed_at.is_(None)


@contextmanager
def migrated_stage(kind: str, settings: Sequence[str] = databases.FAST) -> Iterator[Stage]:
    """A folder and a migrated database of this kind, on which processes can be started."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = f"sqlite:///{folder / 'bench.db'}"
        if kind == "postgresql":
            url = stack.enter_context(databases.server(settings))
        migrate(url)
        yield stack.enter_context(stage(folder, url))


def migrate(url: str) -> None:
    """Create the tables."""
    database = open_database(url)
    migrations.migrate(database)
    database.close()


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """A new connection for reads."""
    database = open_database(url, pool_size=1)
    try:
        with database.reading() as connection:
            yield connection
    finally:
        database.close()


def row_counts(url: str) -> dict[str, int]:
    """The number of rows of every table."""
    counts = {
        table.name: select(func.count()).select_from(table) for table in metadata.tables.values()
    }
    with reading(url) as connection:
        return {name: connection.execute(query).scalar_one() for name, query in counts.items()}


def count_where(url: str, condition: ColumnElement[bool]) -> int:
    """The number of rows that meet a condition on one table."""
    with reading(url) as connection:
        return connection.execute(select(func.count()).where(condition)).scalar_one()


def stored_message_ids(url: str) -> set[str]:
    """The message id of every stored webhook event."""
    with reading(url) as connection:
        return set(connection.execute(select(webhook_events.c.message_id)).scalars())


def resident_mib(process: Process, *, peak: bool = False) -> float:
    """The memory of a process now, or the most it has had so far (Linux)."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def make_parser(name: str, description: str | None) -> ArgumentParser:
    """The parser of `python -m bench.NAME`; logs of this process stay out of its figures."""
    logging.configure("warning", "console")
    return ArgumentParser(prog=f"python -m bench.{name}", description=description)


def add_database_option(parser: ArgumentParser) -> None:
    """Add `--database`, whose value is a sequence of kinds."""
    parser.add_argument("--database", choices=KINDS, nargs="+", default=KINDS)
