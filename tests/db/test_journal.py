"""What is written down is told and counted exactly once, whoever works it off and however often."""

import threading

import pytest
from sqlalchemy import func, select

from app.db import change_feed as changes
from app.db import counted, journal
from app.db import start_lock as starting
from app.db.engine import Database, open_database
from app.db.event_store import write
from app.db.filed_rows import LONGEST_KEY
from app.db.keep import keep_all
from app.db.recount import recount
from app.db.tables import events
from app.db.tables_counted import OPEN_FAILURES
from app.db.tables_told import journal as entries
from app.domain.models import Item
from app.errors import StorageUnavailable
from tests.reports import COMPLETED, FAILED, STARTED, T0, after, delivery

BAD, DONE = (Item("t1", "PushError", "closed"),), (Item("t1", "Completed"),)


def tell(database: Database, number: int, event: str = FAILED, **more: object) -> None:
    with database.writing() as connection:
        keep_all(connection, [delivery(f"m{number}", event, sync_id=f"s{number}", **more)])  # type: ignore[arg-type]


def waiting(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(entries)).scalar_one()


def told(database: Database) -> list[str]:
    with database.reading() as connection:
        return [each.sync_id for each in changes.read_changes(connection, None, 500).items]


def open_failures(database: Database) -> int:
    with database.reading() as connection:
        return counted.of_companies(connection, ["c1"])["c1"][OPEN_FAILURES]


def test_who_reads_after_catching_up_sees_what_was_committed_before(database: Database) -> None:
    """And the journal is empty then."""
    tell(database, 1, items=BAD)
    assert (waiting(database), told(database)) == (1, [])
    with journal.caught_up(database) as connection:
        assert len(changes.read_changes(connection, None, 9).items) == 2
    assert (waiting(database), open_failures(database)) == (0, 1)
    assert journal.work_off(database) == 0


def test_how_many_syncs_there_are_is_known_before_the_journal_is_worked_off(
    database: Database,
) -> None:
    """A total has what is folded, what was counted since, and what waits."""
    for number in range(3):
        tell(database, number)
        if number == 1:
            assert journal.work_off(database) == 2
    with database.reading() as connection:
        assert counted.of_companies(connection, ["c1"])["c1"]["failed"] == 3
        assert counted.syncs_by_day(connection, None, None) == {"2026-01-01": 3}
    assert recount(database) == 0


def test_more_than_are_worked_off_at_once_are_told_in_their_order(database: Database) -> None:
    """In several transactions, one after the other."""
    many = journal.AT_ONCE * 2 + 3
    for number in range(many):
        tell(database, number)
    assert journal.work_off(database) == many
    assert told(database) == [f"s{number}" for number in range(many)]


def test_long_entries_are_worked_off_one_by_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite the door waits for each transaction, so it must not have all of a replay."""
    monkeypatch.setattr(journal, "LONG", 1)
    for number in range(3):
        tell(database, number, items=BAD)
    with database.writing() as connection:
        assert journal.work_off_some(connection) == 1
    assert journal.work_off(database) == 2
    assert told(database) == ["s0", "s0", "s1", "s1", "s2", "s2"]


def test_an_entry_that_takes_long_does_not_stop_the_journal(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by the database after its time it would be tried again for ever, and all after it."""
    patient = open_database(database_url)
    many = tuple(Item(f"t{n}", "PushError", f"account {n} is closed") for n in range(3000))
    tell(patient, 1, items=many)
    monkeypatch.setattr("app.db.engine._SESSION", ("timezone=UTC", "statement_timeout=20"))
    impatient = open_database(database_url)
    assert journal.work_off(impatient) == 1
    assert open_failures(patient) == 3000
    patient.close()
    impatient.close()


def test_what_becomes_of_a_sync_is_told_in_its_order(database: Database) -> None:
    """Also when all of it waited together."""
    for number, event in enumerate((STARTED, FAILED)):
        with database.writing() as connection:
            keep_all(connection, [delivery(f"m{number}", event, at=after(minutes=number))])
    with journal.caught_up(database) as connection:
        page = changes.read_changes(connection, None, 9)
    assert ['"state":"started"' in each.told for each in page.items] == [True, False]


def test_a_cure_that_waits_with_its_failure_leaves_nothing_open(database: Database) -> None:
    """What is open is looked up when it is counted, by the rows that are there then."""
    tell(database, 1, FAILED, items=BAD, generated_at=T0)
    tell(database, 2, COMPLETED, items=DONE, generated_at=after(hours=1))
    assert journal.work_off(database) == 2
    assert open_failures(database) == 0
    assert recount(database) == 0


def test_many_at_once_work_off_each_entry_once(database: Database) -> None:
    """As several replicas would, while more comes in."""
    failures: list[Exception] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 12):
                tell(database, number, items=(Item(f"t{number}", "Failed"),))
                journal.work_off(database)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n * 100,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.work_off(database)
    everything = told(database)
    assert failures == []
    assert sorted(everything) == sorted(
        2 * [f"s{n * 100 + k}" for n in range(4) for k in range(12)]
    )
    assert open_failures(database) == 48
    assert recount(database) == 0


def test_stopped_half_way_an_entry_is_still_there(database: Database) -> None:
    """It goes in the transaction that tells and counts it."""
    tell(database, 1)
    with database.writing() as connection:
        assert journal.work_off_some(connection) == 1
        connection.get_transaction().rollback()  # type: ignore[union-attr]  # one is open
    assert (waiting(database), told(database)) == (1, [])
    assert journal.work_off(database) == 1


def test_a_database_that_cannot_be_written_is_read_as_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feed that is a little behind is better than none."""
    tell(database, 1)

    def refuse(_database: Database, **_: float) -> int:
        raise StorageUnavailable("read only")

    monkeypatch.setattr(journal, "work_off", refuse)
    with journal.caught_up(database) as connection:
        assert changes.read_changes(connection, None, 9).items == []


def test_who_reads_does_not_wait_for_a_long_journal(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was away for hours leaves much; whoever asks next must not do all of it."""
    tell(database, 1)
    monkeypatch.setattr(journal, "PATIENCE_S", 0)
    with journal.caught_up(database) as connection:
        assert changes.read_changes(connection, None, 9).items == []
    assert waiting(database) == 1


@pytest.mark.parametrize(("own", "company"), [("x", ""), ("", "x"), ("x", "x")])
def test_what_could_never_be_counted_does_not_stop_the_journal(
    database: Database, own: str, company: str
) -> None:
    """An index row of PostgreSQL holds 2704 bytes: the event is kept as bytes, the others go on."""
    rather_long = "".join(map(chr, range(0x10000, 0x10000 + LONGEST_KEY // 2)))
    item = Item(rather_long + own * 999, "Failed")
    long = delivery("long", company_id=rather_long + company * 999, items=(item,))
    assert write(database, [long, delivery("m2", sync_id="s2")])[0] == [True, True]
    fits = delivery("fits", company_id=rather_long, items=(Item(rather_long, "Failed"),))
    assert write(database, [fits])[0] == [True]
    assert journal.work_off(database) == 2
    with database.reading() as connection:
        kept = connection.execute(select(events.c.message_id, events.c.reading)).all()
    assert {row.message_id: row.reading for row in kept} == {
        "long": "unreadable", "m2": "ok", "fits": "ok",
    }  # fmt: skip
    assert recount(database) == 0


def test_what_changes_nothing_is_not_written_down(database: Database) -> None:
    """A second message of the same news, and one that speaks of no sync."""
    tell(database, 1, STARTED)
    journal.work_off(database)
    with database.writing() as connection:
        keep_all(connection, [delivery("again", STARTED, sync_id="s1", at=after(minutes=1))])
    assert waiting(database) == 0


def test_a_sync_that_is_started_here_is_told_and_counted(database: Database) -> None:
    """Like one that a webhook announced."""
    with database.writing() as connection:
        starting.keep_started(connection, "c1", "s1", "somebody asked", T0)
    with journal.caught_up(database) as connection:
        assert len(changes.read_changes(connection, None, 9).items) == 1
        assert counted.of_companies(connection, ["c1"])["c1"]["in_progress"] == 1
    assert recount(database) == 0


def test_what_comes_in_while_all_is_counted_anew_was_not_counted_wrong(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted here before the journal tells of it, and only once."""
    monkeypatch.setattr(journal, "work_off", lambda _database: 0)  # all comes in just after it
    tell(database, 1, items=(*BAD, Item(None, "PushError", "nameless")))
    tell(database, 2, items=(Item("t2", "PushError", "closed"),), company_id="c2")
    assert recount(database) == 0
    monkeypatch.undo()
    assert journal.work_off(database) == 2
    assert (open_failures(database), recount(database)) == (2, 0)
