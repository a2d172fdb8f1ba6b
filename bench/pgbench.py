"""What the database alone can do: single-row inserts by PostgreSQL's own pgbench."""

import re
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from tests.databases import binaries

TABLE = "CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, at timestamptz, body bytea)"
INSERT = "INSERT INTO bare (at, body) VALUES (now(), decode(repeat('ab', 600), 'hex'));\n"


def is_here() -> bool:
    """False where only the wheel's PostgreSQL is, which comes without pgbench."""
    return (binaries() / "pgbench").exists()


def prepare(server: str) -> None:
    """The table it inserts into."""
    _do(server, TABLE)


def checkpoint(server: str) -> None:
    """Let the server use its log files anew, as one that has run for a while does all the time.

    A new one makes and empties each 16 MB of them first, and all wait for that.
    """
    _do(server, "CHECKPOINT")


def _do(server: str, statement: str) -> None:
    address = make_url(server).set(drivername="postgresql+psycopg")
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def per_second(server: str, connections: int, seconds: float) -> float:
    """Committed inserts per second over this many connections."""
    with tempfile.TemporaryDirectory(prefix="pgbench-") as folder:
        script = Path(folder) / "insert.sql"
        script.write_text(INSERT)
        threads = min(connections, 2)
        command = [binaries() / "pgbench", "-n", "-M", "prepared", "-f", script, "-c", connections,
                   "-j", threads, "-T", round(seconds), server]  # fmt: skip
        said = subprocess.run(
            [str(word) for word in command],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = re.search(r"^tps = ([0-9.]+)", said.stdout, re.MULTILINE)
    if not found:
        raise RuntimeError(said.stdout + said.stderr)
    return float(found[1])
