"""Backup and restore as `docs/operations.md` describes them, with running processes."""

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from tests import databases
from tests.conftest import NewDatabase
from tests.processes import Process, SimulatedCodat, Stage, get, stage, wait_for
from tests.test_docs import read, section

Restore = Callable[[], str]
"""Restores the backup, while the service is stopped; returns the address of the database."""


def is_fetched(process: Process, sync_id: str) -> bool:
    found = get(process, f"/syncs/{sync_id}")
    return bool(found) and found["errors"]["state"] == "fetched"


def feed(process: Process, cursor: str) -> list[tuple[str, str]]:
    """The changes after a cursor: the cursor and the sync of each."""
    items = get(process, "/changes", after=cursor, limit=200)["items"]
    return [(item["cursor"], item["sync_id"]) for item in items]


def survive(found: Stage, back_up: Callable[[], Restore]) -> None:
    """Back up between two syncs, restore, and start again."""
    codat = SimulatedCodat(found.simulate())
    process = found.serve()
    codat.subscribe(process)

    def fail_a_sync() -> str:
        _, sync_id = codat.create_sync(outcome="partly_failed", size=3)
        wait_for(lambda: is_fetched(process, sync_id))
        return sync_id

    stored = fail_a_sync()
    before = feed(process, "0")[-1][0]
    restore = back_up()
    lost = fail_a_sync()
    after = feed(process, "0")[-1][0]
    assert {sync_id for _, sync_id in feed(process, before)} == {lost}
    fetches = codat.calls("transactions")
    process.stop()

    url = restore()
    assert found.run("migrate", "--after-restore", DATABASE_URL=url).returncode == 0
    process = found.serve(DATABASE_URL=url, PORT=process.address.rpartition(":")[2])
    assert is_fetched(process, stored)
    assert get(process, f"/syncs/{lost}") is None
    assert feed(process, after) == []
    doctor = found.run("doctor", "--json", DATABASE_URL=url, RECONCILE_EVERY_MINUTES="15")
    names = {finding["name"] for finding in json.loads(doctor.stdout)["findings"]}
    assert names <= {"sqlite_ephemeral"}, doctor.stdout  # the test's own folder

    assert found.run("reconcile", DATABASE_URL=url).returncode == 0
    wait_for(lambda: is_fetched(process, lost))
    assert codat.calls("transactions") - fetches == 1  # the lost one's
    for cursor in (before, after):  # of consumers that stopped before and after the backup
        assert {sync_id for _, sync_id in feed(process, cursor)} == {lost}
    ids = [int(cursor) for cursor, _ in feed(process, "0")]
    assert ids == sorted(set(ids))
    assert ids[-1] > int(after)


def test_sqlite_is_backed_up_while_it_serves(
    tmp_path: Path, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command of the document."""
    (code,) = re.findall(
        r'^python -c "(.+)"$', section(read("docs/operations.md"), "Back up SQLite"), re.M
    )
    with new_database("sqlite") as url, stage(tmp_path, url) as found:
        database = Path(url.removeprefix("sqlite:///"))
        backup = tmp_path / "backup.db"

        def restore() -> str:
            for rest in ("-wal", "-shm"):
                database.with_name(database.name + rest).unlink(missing_ok=True)
            shutil.move(backup, database)
            return url

        def back_up() -> Restore:
            command = code.replace("data/syncs.db", str(database)).replace("backup.db", str(backup))
            subprocess.run([sys.executable, "-W", "ignore", "-c", command], check=True, timeout=60)
            return restore

        survive(found, back_up)


def execute(url: str, statement: str) -> list[object]:
    """Run one statement by itself; returns the first column, if it gives rows."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        result = connection.execute(text(statement))
        rows = list(result.scalars()) if result.returns_rows else []
    engine.dispose()
    return rows


def test_postgresql_is_restored_from_a_dump(
    tmp_path: Path, new_database: NewDatabase, postgresql_server: str
) -> None:
    def run(tool: str, *arguments: str) -> None:
        subprocess.run([databases.binaries() / tool, *arguments], check=True, timeout=60)

    server, dump = postgresql_server.rpartition("/")[0], str(tmp_path / "backup.dump")
    with new_database("postgresql") as url, stage(tmp_path, url) as found:

        def restore() -> str:
            run("createdb", f"--maintenance-db={server}/postgres", "restored")
            restored = f"{server}/restored"
            run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={restored}", dump)
            return restored

        def back_up() -> Restore:
            run("pg_dump", "--format=custom", f"--file={dump}", url)
            return restore

        survive(found, back_up)


class Server:
    """A PostgreSQL server that archives its log, and can be set back to a moment."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._data = Path(str(execute(url, "SHOW data_directory")[0]))
        self._folder = self._data.parent
        self._archive, self._base = self._folder / "wal", self._folder / "base"
        self._owner = pwd.getpwuid(self._data.stat().st_uid) if os.geteuid() == 0 else None
        self._archive.mkdir()
        self._own(self._archive)
        archive = f"test ! -f {self._archive}/%f && cp %p {self._archive}/%f"
        execute(url, f"ALTER SYSTEM SET archive_command = '{archive}'")
        execute(url, "SELECT pg_reload_conf()")

    def _own(self, *paths: Path) -> None:
        if self._owner:
            for path in paths:
                shutil.chown(path, self._owner.pw_uid, self._owner.pw_gid)

    def _run(self, tool: str, *arguments: object) -> None:
        options = (self._data / "postmaster.opts").read_text().split()
        databases.run(self._owner, Path(options[0]).with_name(tool), *arguments)

    def take_base_backup(self) -> None:
        where = (f"--dbname={self.url}", f"--pgdata={self._base}")
        self._run("pg_basebackup", *where, "--checkpoint=fast")

    def restore(self, moment: datetime) -> None:
        """Stop the server and start it as it was at this moment."""
        execute(self.url, "SELECT pg_switch_wal()")
        pg_ctl = ("-D", self._data, "-w")
        self._run("pg_ctl", *pg_ctl, "-m", "fast", "stop")
        started_with = (self._data / "postmaster.opts").read_text()
        options = re.findall(r'"([^"]*)"', started_with)
        shutil.rmtree(self._data)
        self._base.rename(self._data)
        signal, opts = self._data / "recovery.signal", self._data / "postmaster.opts"
        signal.touch()
        opts.write_text(started_with)
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"restore_command = 'cp {self._archive}/%f %p'\n")
            settings.write(f"recovery_target_time = '{moment.isoformat()}'\n")
            settings.write("recovery_target_action = promote\n")
        self._own(signal, opts)
        line = " ".join(f"'{option}'" for option in options if option != str(self._data))
        self._run(
            "pg_ctl", *pg_ctl, "-l", self._folder / "log", "-o", line.replace("'-D'", ""), "start"
        )
        wait_for(lambda: execute(self.url, "SELECT pg_is_in_recovery()") == [False])


@contextmanager
def archiving_server() -> Iterator[Server]:
    with databases.server(("wal_level=replica", "archive_mode=on")) as url:
        yield Server(url)


def test_postgresql_is_restored_to_a_point_in_time(tmp_path: Path) -> None:
    """From a base backup that is older than all data, and the archived log."""
    with archiving_server() as server, stage(tmp_path, server.url) as found:
        assert found.run("migrate").returncode == 0
        server.take_base_backup()

        def back_up() -> Restore:
            moment = datetime.now(UTC)

            def restore() -> str:
                server.restore(moment)
                return server.url

            return restore

        survive(found, back_up)
