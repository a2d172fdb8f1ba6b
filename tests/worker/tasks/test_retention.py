"""Raw bodies are forgotten in time; what they told, and that they came, is not."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app.bootstrap import make_duties
from app.clients import make_codat
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.retention import count_bodies
from app.db.tables import events, syncs, transactions
from app.settings import load_settings
from app.worker.tasks import retention
from app.worker.tasks.retention import Pruned, Retention
from tests.db.test_queries_plans import plans
from tests.reports import FAILED, T0, after, delivery, fetch_row, item_rows, sync_row
from tests.worker.test_fetcher import Clock, FakeCodat, fetch

MONTH = timedelta(days=30)


def keep(database: Database, *message_ids: str, days: float = 0) -> None:
    told = [delivery(each, sync_id=f"of-{each}", at=after(days=days)) for each in message_ids]
    with database.writing() as connection:
        keep_all(connection, told)


def prune(database: Database, days: float, tell: list[str] | None = None) -> Pruned:
    clock = Clock()
    clock.now = after(days=days)
    said = [] if tell is None else tell
    return asyncio.run(Retention(database, clock, MONTH, tell=said.append).run())


def with_body(database: Database) -> set[str]:
    with database.reading() as connection:
        found = select(events.c.message_id).where(events.c.body.is_not(None))
        return set(connection.execute(found).scalars())


def test_only_bodies_older_than_the_limit_are_removed(database: Database) -> None:
    """To the day; and a second run finds nothing to do."""
    keep(database, "old")
    keep(database, "young", days=2)
    assert prune(database, 31).bodies == 1
    assert with_body(database) == {"young"}
    assert prune(database, 31) == Pruned(0, after(days=1))


def test_syncs_errors_and_message_ids_stay(database: Database) -> None:
    """What the service is for is not what is thrown away."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    fetch(database, FakeCodat())
    before = (dict(sync_row(database)), [dict(row) for row in item_rows(database)])
    assert prune(database, 31).bodies == 1
    assert (dict(sync_row(database)), [dict(row) for row in item_rows(database)]) == before
    with database.reading() as connection:
        row = connection.execute(select(events)).mappings().one()
    assert (row["message_id"], row["event"], row["sync_id"]) == ("m1", FAILED, "s1")
    assert row["body"] is None


def test_a_redelivery_of_a_pruned_event_is_known_and_changes_nothing(database: Database) -> None:
    """A replay in the Portal reaches back further than a short retention."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    fetch(database, FakeCodat())
    prune(database, 31)
    before = (dict(sync_row(database)), dict(fetch_row(database) or {}))
    with database.writing() as connection:
        assert keep_all(connection, [delivery("m1", at=after(days=32))]).new == set()
    assert (dict(sync_row(database)), dict(fetch_row(database) or {})) == before
    assert with_body(database) == set()


def test_it_works_in_small_commits_and_says_how_far_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery never waits for more than one of them."""
    monkeypatch.setattr(retention, "PER_COMMIT", 2)
    monkeypatch.setattr(retention, "TELL_EVERY", 4)
    keep(database, *(f"m{n}" for n in range(9)))
    said: list[str] = []
    assert prune(database, 31, said).bodies == 9
    assert said == ["4 of 9 bodies removed", "8 of 9 bodies removed"]


def test_stopped_half_way_it_goes_on_where_it_was(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed stays done."""
    monkeypatch.setattr(retention, "PER_COMMIT", 1)
    keep(database, "m1", "m2", "m3")

    async def stopped() -> None:
        clock = Clock()
        clock.now = after(days=31)
        task = asyncio.create_task(Retention(database, clock, MONTH).run())
        while len(await asyncio.to_thread(with_body, database)) == 3:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(stopped())
    left = len(with_body(database))
    assert left < 3
    assert prune(database, 31).bodies == left


def test_two_that_prune_at_once_do_it_once(database: Database) -> None:
    """The command while the worker's duty runs."""
    keep(database, *(f"m{n}" for n in range(40)))

    async def both() -> list[Pruned]:
        clock = Clock()
        clock.now = after(days=31)
        ours = [Retention(database, clock, MONTH) for _ in range(2)]
        return await asyncio.gather(*(each.run() for each in ours))

    assert sum(each.bodies for each in asyncio.run(both())) == 40
    assert with_body(database) == set()


@pytest.mark.parametrize(("days", "there"), [(30, True), (0, False)])
def test_the_worker_does_it_daily_unless_everything_is_kept(
    database: Database, days: int, there: bool
) -> None:
    """0 keeps for ever."""
    settings = load_settings(keep_events_days=days, codat_api_key="codat-key")
    codat = make_codat(settings, database, Clock())
    found = {duty.name: duty for duty in make_duties(settings, database, codat, Clock())}
    assert ("prune" in found) == there
    if there:
        assert found["prune"].every == timedelta(days=1)
    asyncio.run(codat.close())


def test_no_row_is_deleted_whatever_its_age(database: Database) -> None:
    """Only the bodies go."""
    keep(database, "m1", "m2")
    with database.writing() as connection:
        connection.execute(update(events).values(received_at=T0 - timedelta(days=4000)))
    assert prune(database, 0).bodies == 2
    with database.reading() as connection:
        counts = [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (events, syncs, transactions)
        ]
    assert counts == [2, 2, 0]


def test_old_bodies_are_found_by_their_index(database: Database) -> None:
    """What was pruned in earlier years is not walked through every day."""
    keep(database, "m1")
    plan = plans(database, lambda c: count_bodies(c, T0))
    assert "ix_events_bodies" in plan, plan
