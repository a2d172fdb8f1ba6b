"""What a database cannot do becomes one of three errors by name, and never a long wait."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.db import engine as database_module
from app.db.engine import Database, open_database
from app.db.event_store import Inbox
from app.errors import StorageAway, StorageRefused, StorageUnavailable
from tests.reports import delivery


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """SQLite that waits for a lock for a tenth of a second only."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    return open_database(f"sqlite:///{tmp_path / 'one.db'}")


def test_a_database_that_is_not_there_is_away() -> None:
    """Nothing listens at the address."""
    nowhere = open_database("postgresql://someone@127.0.0.1:1/none")
    with pytest.raises(StorageAway), nowhere.writing():
        pass


def test_a_lock_held_elsewhere_is_away(impatient: Database) -> None:
    """Another process writes for too long."""
    with impatient.writing():
        other = open_database(str(impatient.engine.url))
        with pytest.raises(StorageAway), other.writing():
            pass


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("rested_s", "first"), [(0.0, True), (60.0, False)])
def test_a_connection_that_was_cut_is_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch, rested_s: float, first: bool
) -> None:
    """One that rested is asked first; one in use a moment ago costs one commit, and no more."""
    monkeypatch.setattr(database_module, "RESTED_S", rested_s)

    async def keep_three() -> list[bool]:
        inbox = Inbox(database)
        kept = [await _is_kept(inbox, "m1")]
        with database.writing() as connection:
            connection.execute(_CUT)
        kept += [await _is_kept(inbox, "m2"), await _is_kept(inbox, "m3")]
        await inbox.close()
        return kept

    assert asyncio.run(keep_three()) == [True, first, True]


_CUT = text(
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def _is_kept(inbox: Inbox, message_id: str) -> bool:
    try:
        return await inbox.keep(delivery(message_id))
    except StorageUnavailable:
        return False


def test_a_writer_of_this_process_that_does_not_end_is_not_waited_for(
    impatient: Database,
) -> None:
    """The queue of this process's own threads has an end too."""
    found: list[Exception] = []

    def second() -> None:
        try:
            with impatient.writing():
                pass
        except StorageAway as error:
            found.append(error)

    with impatient.writing():
        thread = threading.Thread(target=second)
        began = time.monotonic()
        thread.start()
        thread.join(5)
        assert time.monotonic() - began < 4
    assert [str(error) for error in found] == [
        "the database cannot do this now: another writer does not end"
    ]
    with impatient.writing() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("40P01", StorageUnavailable),  # deadlock: the same work may succeed
        ("40001", StorageUnavailable),
        ("54000", StorageRefused),  # an index row too large: these values never succeed
        ("57P01", StorageAway),  # admin shutdown
        ("53100", StorageAway),  # disk full
        ("57014", StorageAway),  # statement timeout
        (None, StorageAway),  # no connection
    ],
)
def test_sqlstate_says_what_kind_of_failure_it_is(state: str | None, kind: type[Exception]) -> None:
    """PostgreSQL documentation, appendix A: error codes."""

    class FromDriver(Exception):
        sqlstate = state

    with pytest.raises(StorageUnavailable) as caught, database_module._as_unavailable():
        raise OperationalError("INSERT", {}, FromDriver("no"))
    assert type(caught.value) is kind
