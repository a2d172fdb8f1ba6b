"""What the runs share: databases, processes on them, and figures read from outside."""

import shutil
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, func, select

from app.db.engine import open_database
from app.db.tables import metadata, webhook_events
from tests import databases
from tests.processes import Process, Stage, stage

KINDS = ("sqlite", "postgresql")
DURABLE = ("max_connections=200",)
"""Settings of a PostgreSQL as it ships, whose commits survive a crash; servers for tests do not."""


@contextmanager
def temporary_database(kind: str, settings: Sequence[str] = databases.FAST) -> Iterator[str]:
    """The address of a new, empty database of this kind."""
    if kind == "postgresql":
        with databases.server(settings) as url:
            yield url
        return
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        yield f"sqlite:///{Path(folder) / 'bench.db'}"


@contextmanager
def migrated_stage(kind: str, settings: Sequence[str] = databases.FAST) -> Iterator[Stage]:
    """A folder and a migrated database of this kind, on which processes can be started."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with temporary_database(kind, settings) as url, stage(folder, url) as found:
            migrate(found)
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def migrate(stage: Stage) -> None:
    """Run `python -m app migrate`. Raises RuntimeError when it fails."""
    done = stage.run("migrate")
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


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


def stored_message_ids(url: str) -> list[str]:
    """The message id of every stored webhook event."""
    with reading(url) as connection:
        return list(connection.execute(select(webhook_events.c.message_id)).scalars())


def resident_mib(process: Process, *, peak: bool = False) -> float:
    """The memory of a process now, or the most it has had so far (Linux)."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def add_database_option(parser: ArgumentParser) -> None:
    """Add `--database`, whose value is read by `chosen_kinds`."""
    parser.add_argument("--database", choices=(*KINDS, "both"), default="both")


def chosen_kinds(option: str) -> tuple[str, ...]:
    """The kinds of database that `--database` selects."""
    return KINDS if option == "both" else (option,)
