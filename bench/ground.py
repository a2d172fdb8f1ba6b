"""Where the hostile runs play: a folder, a migrated database, and figures read from outside."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import func, select

from app.db.engine import open_database
from app.db.tables import events, metadata
from tests import databases
from tests.processes import Process, Stage, run, stage


@contextmanager
def playing(kind: str) -> Iterator[Stage]:
    """A stage in a folder of its own with a migrated `sqlite` or `postgresql` database."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        with _database(kind, folder) as url, stage(folder, url) as found:
            done = run(folder, "migrate", DATABASE_URL=url)
            if done.returncode:
                raise RuntimeError(done.stderr)
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'hostile.db'}"
        return
    with databases.server() as address:
        yield address


def counts(url: str) -> dict[str, int]:
    """The rows of every table."""
    database = open_database(url, pool_size=1)
    with database.reading() as connection:
        found = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }
    database.close()
    return found


def kept_ids(url: str) -> list[str]:
    """The message id of every kept event."""
    database = open_database(url, pool_size=1)
    with database.reading() as connection:
        found = list(connection.execute(select(events.c.message_id)).scalars())
    database.close()
    return found


def resident_mib(process: Process) -> float:
    """The memory that a process holds."""
    told = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(process.popen.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(told.stdout) / 1024
