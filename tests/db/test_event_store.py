"""Events are kept exactly once, many per commit, and add up to the same syncs in any order."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from random import Random

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select
from sqlalchemy.util import await_only
from structlog.testing import LogCapture

from app.db import event_store as inbox_module
from app.db.bulk import insertion
from app.db.bulk import write as write_rows
from app.db.engine import Database
from app.db.event_store import Inbox, write
from app.db.keep import keep_all
from app.db.tables import companies, events, fetches, metadata, notes, syncs
from app.domain.models import Delivery, Event, Item
from app.domain.sync_state import Sync, tell
from app.errors import StorageAway, StorageUnavailable
from tests.reports import (
    COMPLETED,
    FAILED,
    STARTED,
    T0,
    after,
    delivery,
    fetch_row,
    item_rows,
    sync_row,
)


def keep(database: Database, *deliveries: Delivery) -> set[str]:
    with database.writing() as connection:
        return keep_all(connection, deliveries).new


def count(database: Database, table: str) -> int:
    with database.reading() as connection:
        found = connection.execute(select(func.count()).select_from(metadata.tables[table]))
        return found.scalar_one()


def empty(database: Database) -> None:
    with database.writing() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


def test_an_event_is_kept_with_its_bytes(database: Database) -> None:
    """The raw body survives as it came, whatever is in it."""
    raw = Delivery("m1", T0, b'\x00\xff{"not": json', Event(reading="unreadable", reason="no"))
    assert keep(database, raw) == {"m1"}
    with database.reading() as connection:
        row = connection.execute(select(events)).mappings().one()
    assert (row["body"], row["reading"], row["received_at"]) == (raw.body, "unreadable", T0)


def test_a_redelivery_changes_nothing_but_is_noted(database: Database) -> None:
    """Same message id, same sync, one event; the timeline says that it came again."""
    keep(database, delivery("m1"))
    before = dict(sync_row(database))
    assert keep(database, delivery("m1", at=after(minutes=5))) == set()
    assert dict(sync_row(database)) == before
    assert (count(database, "events"), count(database, "notes")) == (1, 1)


def test_a_duplicate_inside_one_commit_counts_once(database: Database) -> None:
    """Codat's burst may bring a message twice at the same moment."""
    fates, _ = write(database, [delivery("m1"), delivery("m1")])
    assert fates == [True, False]
    assert count(database, "events") == 1


def test_the_log_tells_a_redelivery_from_news(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads it must not count one message twice; also in a burst, which has one line."""
    log = LogCapture()
    monkeypatch.setattr(inbox_module, "_log", structlog.wrap_logger(None, processors=[log]))
    write(database, [delivery("m1"), delivery("m1")])
    write(database, [delivery("m1")] + [delivery(f"m{n}") for n in range(2, 6)])
    first, second, burst = log.entries
    assert (first["event"], second["event"]) == ("an event was kept", "an event came again")
    assert (burst["count"], burst["came_again"]) == (4, 1)


def test_two_subscriptions_telling_one_outcome_make_one_sync_and_one_fetch(
    database: Database,
) -> None:
    """Two message ids, two generations of bodies, one business event."""
    keep(database, delivery("m1", company_name=None))
    keep(database, delivery("m2", generated_at=T0, company_name="Toft stores"))
    assert (count(database, "syncs"), count(database, "fetches")) == (1, 1)


def test_one_sync_id_in_two_companies_is_two_syncs(database: Database) -> None:
    """A sync is known by company and sync id."""
    keep(database, delivery("m1", FAILED), delivery("m2", COMPLETED, company_id="c2"))
    assert sync_row(database, company_id="c1")["state"] == "failed"
    assert sync_row(database, company_id="c2")["state"] == "completed"


def test_a_start_owes_no_fetch_and_an_end_does(database: Database) -> None:
    """The obligation is written in the event's own transaction."""
    keep(database, delivery("m1", STARTED))
    assert fetch_row(database) is None
    keep(database, delivery("m2", COMPLETED, at=after(minutes=1)))
    row = fetch_row(database)
    assert row is not None
    assert (row["state"], row["due"]) == ("owed", after(minutes=1))


def test_a_resend_starts_a_given_up_fetch_again(database: Database) -> None:
    """A resend keeps its message id and is how operators repair what failed on our side."""
    keep(database, delivery("m1"))
    with database.writing() as connection:
        connection.execute(fetches.update().values(state="dead", due=None, attempts=12))
    keep(database, delivery("m1", at=after(hours=1)))
    row = fetch_row(database)
    assert row is not None
    assert (row["state"], row["due"], row["attempts"]) == ("owed", after(hours=1), 0)


def test_a_resend_leaves_finished_work_alone(database: Database) -> None:
    """A burst of replays must not ask Codat everything again."""
    keep(database, delivery("m1"))
    with database.writing() as connection:
        connection.execute(fetches.update().values(state="settled", due=None))
    keep(database, delivery("m1"))
    row = fetch_row(database)
    assert row is not None
    assert row["state"] == "settled"


def test_inline_items_stand_in_until_codat_is_asked(database: Database) -> None:
    """A new-style body lists its transactions; they are shown at once."""
    items = (Item("t1", "Completed"), Item("t2", "Failed", "Insufficient funds"))
    keep(database, delivery("m1", items=items, generated_at=T0))
    assert [(r["transaction_id"], r["failed"]) for r in item_rows(database)] == [
        ("t1", False),
        ("t2", True),
    ]
    assert sync_row(database)["outcome"] == "partly_failed"


def test_the_latest_inline_list_wins_in_any_order(database: Database) -> None:
    """By Codat's own clock, not by arrival."""
    old = delivery("m1", items=(Item("t", "Pending"),), generated_at=T0)
    new = delivery("m2", items=(Item("t", "Failed", "x"),), generated_at=after(hours=1))
    for order in permutations([old, new]):
        empty(database)
        for each in order:
            keep(database, each)
        assert [row["status"] for row in item_rows(database)] == ["Failed"]


def test_companies_with_and_without_a_name_are_known_from_one_batch(database: Database) -> None:
    """The older generation of events names no company; a name that is known stays."""
    keep(database, delivery("m1", company_id="c1", company_name="First", generated_at=T0))
    keep(
        database,
        delivery("m2", company_id="c1", sync_id="s2"),
        delivery("m3", company_id="c2", sync_id="s3"),
        delivery("m4", company_id="c3", sync_id="s4", company_name="Third"),
    )
    with database.reading() as connection:
        names = {row.company_id: row.name for row in connection.execute(select(companies))}
    assert names == {"c1": "First", "c2": None, "c3": "Third"}


def test_two_writes_to_one_table_are_not_one_statement(database: Database) -> None:
    """Each would take the other's rows."""
    one = insertion(companies, [{"company_id": "c1"}])
    with database.writing() as connection, pytest.raises(ValueError, match="one table"):
        write_rows(connection, one, one)
    assert count(database, "companies") == 0


def test_the_company_name_told_last_by_codats_clock_is_kept(database: Database) -> None:
    """An older event that arrives later does not bring the old name back."""
    keep(database, delivery("m1", company_name="New name", generated_at=after(days=1)))
    keep(database, delivery("m2", company_name="Old name", generated_at=T0))
    with database.reading() as connection:
        assert connection.execute(select(companies.c.name)).scalars().all() == ["New name"]


told = st.lists(
    st.builds(
        delivery,
        st.integers(0, 7).map("m{}".format),
        st.sampled_from([STARTED, FAILED, COMPLETED]),
        sync_id=st.sampled_from(["s1", "s2"]),
        at=st.just(T0),
        generated_at=st.none() | st.integers(0, 3).map(lambda n: after(hours=n)),
        items=st.none() | st.just((Item("t", "Failed", "no"),)),
        failure_stage=st.none() | st.sampled_from(["Pushing", "Mapping"]),
    ),
    max_size=8,
    unique_by=lambda d: d.message_id,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(told, st.randoms(use_true_random=False))
def test_any_order_repetition_and_batching_ends_in_the_same_rows(
    database: Database, told: list[Delivery], random: object
) -> None:
    """The rows equal the plain fold of the events, however they came."""
    empty(database)
    shuffled = told + told[::2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    while shuffled:
        size = random.randint(1, 4)  # type: ignore[attr-defined]
        keep(database, *shuffled[:size])
        del shuffled[:size]
    expected: dict[str, Sync] = {}
    for each in told:
        sync_id = each.event.sync_id or ""
        blank = Sync(company_id="c1", sync_id=sync_id)
        expected[sync_id] = tell(expected.get(sync_id, blank), each.event, T0)
    assert count(database, "syncs") == len(expected)
    assert count(database, "events") == len(told)
    for sync_id, sync in expected.items():
        row = sync_row(database, sync_id)
        assert row["heard"] == sync.heard
        assert (row["state"], row["started_at"]) == (sync.state, sync.started_at)
        assert (row["finished_at"], row["failure_stage"]) == (sync.finished_at, sync.failure_stage)
        fetch = fetch_row(database, sync_id)
        assert (fetch is not None) == (sync.state != "started")


def test_concurrent_writers_lose_and_double_nothing(database: Database) -> None:
    """Four threads tell the same syncs in different orders, as replicas would."""
    kinds = [STARTED, FAILED, COMPLETED]
    all_of_them = [
        delivery(f"m{n}-{kind}", kind, sync_id=f"s{n}") for n in range(12) for kind in kinds
    ]
    failures: list[object] = []

    def tell_them(start: int) -> None:
        mine = all_of_them[start:] + all_of_them[:start]
        for first in range(0, len(mine), 5):
            fates, _ = write(database, mine[first : first + 5])
            failures.extend(fate for fate in fates if isinstance(fate, StorageUnavailable))

    threads = [threading.Thread(target=tell_them, args=(n * 9,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(database, "events") == 36
    with database.reading() as connection:
        states = connection.execute(select(syncs.c.state, syncs.c.heard)).all()
    assert [tuple(row) for row in states] == [("failed", 7)] * 12
    assert count(database, "fetches") == 12


def test_news_and_redeliveries_from_two_replicas_never_deadlock(database: Database) -> None:
    """Both lock fetches; a deadlock would cost a whole batch its commit."""
    known = [delivery(f"known{n}", sync_id=f"s{n}") for n in range(12)]
    keep(database, *known)
    errors: list[StorageUnavailable] = []

    def replica(name: int) -> None:
        order = Random(name)
        for turn in range(40):
            chosen = order.sample(range(12), 6)
            news = [delivery(f"{name}-{turn}-{n}", sync_id=f"s{n}") for n in chosen[:3]]
            try:
                keep(database, *news, *(known[n] for n in chosen[3:]))
            except StorageUnavailable as error:
                errors.append(error)

    threads = [threading.Thread(target=replica, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert count(database, "events") == 12 + 4 * 40 * 3


def test_one_bad_event_hurts_only_itself(database: Database) -> None:
    """A meaning that cannot be written: its bytes are kept, the others are as if alone."""
    bad = delivery("bad", failure_stage="half a character: \ud800")
    fates, owes = write(database, [delivery("m1"), bad, delivery("m2", sync_id="s2")])
    assert (fates, owes) == ([True, True, True], True)
    with database.reading() as connection:
        row = connection.execute(select(events).where(events.c.message_id == "bad")).mappings()
        kept = row.one()
    assert (kept["reading"], kept["body"]) == ("unreadable", b"{}")
    assert count(database, "syncs") == 2


def test_a_meaning_that_the_database_refuses_is_kept_as_bytes(database: Database) -> None:
    """PostgreSQL has no zero in a text; SQLite keeps it."""
    assert write(database, [delivery("bad", failure_stage="\x00")])[0] == [True]
    with database.reading() as connection:
        reading = connection.execute(select(events.c.reading)).scalar_one()
    assert reading == ("ok" if database.is_sqlite else "unreadable")


class Away:
    """A database that gives one error, and counts how often it was asked."""

    def __init__(self, error: StorageUnavailable) -> None:
        self.error = error
        self.asked = 0

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        self.asked += 1
        raise self.error
        yield


def test_a_database_that_is_away_is_not_asked_for_every_event() -> None:
    """A long batch must not wait for hundreds of connection attempts."""
    away = Away(StorageUnavailable("a conflict"))
    fates, owes = write(away, [delivery(f"m{n}") for n in range(200)])  # type: ignore[arg-type]
    assert all(isinstance(fate, StorageUnavailable) for fate in fates)
    assert (len(fates), owes) == (200, False)
    assert away.asked < 5


def test_a_database_that_is_away_is_asked_once_for_a_batch() -> None:
    """A locked database makes everybody wait for its lock once, not once for each event."""
    away = Away(StorageAway("locked"))
    fates, _ = write(away, [delivery(f"m{n}") for n in range(20)])  # type: ignore[arg-type]
    assert fates == [away.error] * 20
    assert away.asked == 1


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many deliveries each commit was given."""
    sizes: list[int] = []
    plain = inbox_module.write

    def counted(database: Database, deliveries: list[Delivery]) -> object:
        sizes.append(len(deliveries))
        return plain(database, deliveries)

    monkeypatch.setattr(inbox_module, "write", counted)
    return sizes


async def burst(database: Database, size: int) -> list[bool]:
    """So many deliveries at once, each of a sync of its own."""
    inbox = Inbox(database)
    kept = await asyncio.gather(
        *(inbox.keep(delivery(f"m{n}", sync_id=f"s{n}")) for n in range(size))
    )
    await inbox.close()
    return kept


def test_concurrent_requests_share_commits(database: Database, commits: list[int]) -> None:
    """Sixty-four at once need one commit, the first of them included, and each is answered."""
    assert asyncio.run(burst(database, 64)) == [True] * 64
    assert commits == [64]
    assert count(database, "events") == 64


def test_long_bodies_are_committed_few_at_a_time(
    database: Database, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All together they would take longer than anybody waits, and come again together."""
    monkeypatch.setattr(inbox_module, "LARGE", 5)
    assert asyncio.run(burst(database, 5)) == [True] * 5
    assert commits == [2, 2, 1]


def test_two_commits_at_once_never_share_a_company(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each locks its companies' rows: sharing one, the second would only wait for the first."""
    commits: list[set[str | None]] = []
    plain = inbox_module.write

    def seen(database: Database, deliveries: list[Delivery]) -> object:
        commits.append({each.event.company_id for each in deliveries})
        return plain(database, deliveries)

    monkeypatch.setattr(inbox_module, "write", seen)
    some = [delivery(f"m{n}", sync_id=f"s{n}", company_id=f"c{n % 20}") for n in range(60)]

    async def burst() -> list[bool]:
        inbox = Inbox(database)
        kept = await asyncio.gather(*(inbox.keep(each) for each in some))
        await inbox.close()
        return kept

    assert asyncio.run(burst()) == [True] * 60
    assert len(commits) == (1 if database.is_sqlite else inbox_module.LANES)
    assert sum(map(len, commits)) == len(set().union(*commits)) == 20
    assert count(database, "events") == 60


def test_a_request_is_answered_only_after_its_commit(database: Database) -> None:
    """What `keep` returned for is there for any other connection."""

    async def one() -> int:
        inbox = Inbox(database)
        await inbox.keep(delivery("m1"))
        seen = count(database, "events")
        await inbox.close()
        return seen

    assert asyncio.run(one()) == 1


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The database hangs until the event is set, and everybody's time is short."""
    release = threading.Event()

    def hang(database: Database, deliveries: list[Delivery]) -> object:
        if database.is_sqlite:
            release.wait(10)
        else:
            await_only(asyncio.to_thread(release.wait, 10))
        return [True] * len(deliveries), False

    monkeypatch.setattr(inbox_module, "write", hang)
    monkeypatch.setattr(inbox_module, "KEEP_WITHIN_S", 0.05)
    monkeypatch.setattr(inbox_module, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(inbox_module, "CLOSE_WITHIN_S", 0.1)
    yield release
    release.set()


def test_every_wave_is_freed_while_the_database_hangs(
    database: Database, hanging: threading.Event
) -> None:
    """Codat waits fifteen seconds; a hanging database must become an error before that."""

    async def waves() -> list[object]:
        inbox = Inbox(database)
        answers: list[object] = []
        for wave in range(3):
            asked = [inbox.keep(delivery(f"m{wave}{n}")) for n in range(2)]
            answers += await asyncio.gather(*asked, return_exceptions=True)
        hanging.set()
        await inbox.close()
        return answers

    answers = asyncio.run(waves())
    assert len(answers) == 6
    assert all(isinstance(answer, StorageUnavailable) for answer in answers)


def test_closing_does_not_wait_for_a_database_that_hangs(
    database: Database, hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that is told to stop stops; who still waits is told to come again."""
    monkeypatch.setattr(inbox_module, "KEEP_WITHIN_S", 60)

    async def close() -> list[object]:
        inbox = Inbox(database)
        asked = asyncio.gather(
            inbox.keep(delivery("m1")), inbox.keep(delivery("m2")), return_exceptions=True
        )
        await asyncio.sleep(0)
        await inbox.close()
        assert not hanging.is_set()
        hanging.set()
        answers: list[object] = list(await asked)
        await asyncio.sleep(0.05)  # the write that hung ends, and finds nobody
        return answers

    assert all(isinstance(answer, StorageUnavailable) for answer in asyncio.run(close()))


def test_other_work_does_not_make_a_delivery_wait_for_many_turns(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who answers large pages has long turns; a delivery beside them is written after two."""
    turns: list[int] = []
    waited: list[int] = []

    def count_turns(_database: Database, deliveries: list[Delivery]) -> object:
        waited.append(len(turns))
        return [True] * len(deliveries), False

    monkeypatch.setattr(inbox_module, "write", count_turns)

    async def busy() -> None:
        while not waited:
            time.sleep(inbox_module.GATHER_WITHIN_S)
            turns.append(1)
            await asyncio.sleep(0)

    async def beside() -> None:
        inbox = Inbox(database)
        await asyncio.gather(busy(), inbox.keep(delivery("m1")))
        await inbox.close()

    asyncio.run(beside())
    assert waited[0] < inbox_module.QUIET_TURNS


def test_the_inbox_does_not_gather_without_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: past a limit Codat is asked to come again."""
    monkeypatch.setattr(inbox_module, "MOST_WAITING", 0)

    async def one() -> bool:
        return await Inbox(database).keep(delivery("m1"))

    with pytest.raises(StorageUnavailable):
        asyncio.run(one())


def test_a_redelivery_note_names_its_message(database: Database) -> None:
    """Support must see which message came twice."""
    keep(database, delivery("m1"))
    keep(database, delivery("m1"))
    with database.reading() as connection:
        assert "m1" in connection.execute(select(notes.c.reason)).scalar_one()
