"""What happens later meets what is delivered: each waits for the other, and never for ever."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import make_url

from app.db import rate_limit as gate
from app.db.engine import Database, open_database
from app.db.keep import keep_all
from app.domain.sync_state import Heard
from app.errors import CodatRateLimited
from app.worker.fetcher import Fetcher
from tests.reports import COMPLETED, T0, after, delivery, fetch_row, sync_row
from tests.worker.tasks.test_reconcile import Lister, reconcile, status
from tests.worker.test_fetcher import Clock, FakeCodat, claim, tell

UNTIL_IT_WAITS_S = 0.3


def beside(work: Callable[[], object], errors: list[Exception]) -> threading.Thread:
    """Do this in a thread, until it waits for what the caller holds."""

    def noted() -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=noted)
    thread.start()
    time.sleep(UNTIL_IT_WAITS_S)
    return thread


def test_a_rate_limit_that_is_told_and_met_at_once_never_deadlocks(database: Database) -> None:
    """The event comes in one batch with news of the very sync for which Codat just said 429."""
    tell(database)
    claimed = claim(database)
    limited = CodatRateLimited("429", status=429, retry_after=timedelta(hours=1))
    fetcher = Fetcher(database, FakeCodat(status_error=limited), 12, Clock())
    errors: list[Exception] = []

    with database.writing() as connection:
        keep_all(connection, [delivery("m2")])
        meeting = beside(lambda: asyncio.run(fetcher.fetch(claimed)), errors)
        gate.close(connection, after(minutes=1), "told", T0)
    meeting.join()

    assert errors == []
    with database.reading() as connection:
        assert gate.closed_until(connection, after(minutes=59)) == after(hours=1)


def test_a_sync_that_is_told_while_reconciliation_finds_it_never_deadlocks(
    database: Database,
) -> None:
    """A delivery holds its company's row before it makes the sync; so must reconciliation."""
    tell(database)
    errors: list[Exception] = []

    with database.writing() as connection:
        keep_all(connection, [delivery("m3", sync_id="s3")])
        found = Lister({"c1": [status("s2")]})
        meeting = beside(lambda: reconcile(database, found), errors)
        keep_all(connection, [delivery("m2", sync_id="s2")])
    meeting.join()

    assert errors == []
    assert sync_row(database, "s2")["heard"] != 0
    owing = fetch_row(database, "s2")
    assert owing is not None
    assert (owing["state"], owing["wanted"]) == ("owed", 2)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_who_waited_sees_what_the_other_did_whatever_the_server_prefers(database_url: str) -> None:
    """Every lock here is taken to look at what is there then, not at what was there before."""
    server = open_database(database_url)
    with server.writing() as connection:
        name = make_url(database_url).database
        connection.exec_driver_sql(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"
        )
    server.close()
    database = open_database(database_url)
    tell(database)
    errors: list[Exception] = []

    with database.writing() as connection:
        keep_all(connection, [delivery("m2")])
        meeting = beside(lambda: tell(database, "m3", COMPLETED), errors)
    meeting.join()

    assert errors == []
    assert sync_row(database)["heard"] == Heard.FAILED | Heard.COMPLETED
    database.close()
