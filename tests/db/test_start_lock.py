"""Starting a sync: one caller at a time per company, and the started sync is stored."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from app.db import start_lock
from app.db.engine import Database
from app.db.start_lock import KEY_LIFETIME
from tests.factories import STARTED, T0, after, deliver, sync_row, timeline

DURATION = timedelta(seconds=120)


def acquire(
    database: Database, digest: str = "d1", *, at: datetime = T0, company_id: str = "c1"
) -> str | None:
    with database.writing() as connection:
        return start_lock.acquire(connection, company_id, digest, now=at, until=at + DURATION)


def release(database: Database, key: str | None, *, at: datetime = T0, known: bool = True) -> None:
    assert key
    with database.writing() as connection:
        start_lock.release(connection, "c1", key, now=at, is_outcome_known=known)


def test_one_caller_at_a_time_per_company(database: Database) -> None:
    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(lambda _: acquire(database), range(6)))
    (first,) = filter(None, found)
    assert acquire(database, company_id="c2")
    release(database, first)
    assert acquire(database) not in (None, first)


def test_a_request_gets_its_key_again_when_nobody_knows_its_outcome(database: Database) -> None:
    """So Codat does not start it twice. Another request or a late one gets a key of its own."""
    first = acquire(database)
    release(database, first, known=False)
    again = acquire(database)
    assert again == first
    release(database, again, known=False)
    other = acquire(database, "d2")
    assert other not in (None, first)
    release(database, other, known=False)
    assert acquire(database, "d2", at=T0 + KEY_LIFETIME) not in (None, other)


def test_a_caller_that_died_blocks_only_for_a_while(database: Database) -> None:
    """The next one of the same request gets its key; the late one changes nothing."""
    dead = acquire(database)
    assert acquire(database, at=T0 + DURATION - timedelta(seconds=1)) is None
    heir = acquire(database, "d2", at=T0 + DURATION)
    assert heir
    release(database, dead)
    assert acquire(database, at=T0 + DURATION) is None


def record_started(database: Database, *, at: datetime = T0) -> None:
    with database.writing() as connection:
        start_lock.record_started(connection, "c1", "s1", "with 2 datasets", now=at)


def in_progress(database: Database, since: datetime = T0) -> list[str]:
    with database.reading() as connection:
        return start_lock.syncs_in_progress(connection, "c1", since)


def test_a_started_sync_is_stored_and_logged(database: Database) -> None:
    record_started(database)
    row = sync_row(database)
    assert (row["state"], row["started_at"], row["first_seen_at"]) == ("started", T0, T0)
    assert timeline(database) == [("initiated", "with 2 datasets")]
    assert in_progress(database) == ["s1"]
    assert in_progress(database, after(seconds=1)) == []
    deliver(database, "m1")
    assert in_progress(database) == []


def test_a_webhook_that_was_faster_loses_nothing(database: Database) -> None:
    """In either order the sync looks the same."""
    deliver(database, "m1", event_type=STARTED)
    record_started(database, at=after(seconds=1))
    row = sync_row(database)
    assert (row["state"], row["started_at"], row["first_seen_at"]) == ("started", T0, T0)
    assert row["started_received_at"] == T0
    assert [kind for kind, _ in timeline(database)] == ["delivery", "initiated"]
