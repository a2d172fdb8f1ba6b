"""A company is erased from every table, and no other company loses a row."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, make_url, select

from app.db import (
    alerts,
    companies,
    erasure,
    jobs,
    outgoing,
    reclassification,
    reconciliation,
    start_lock,
    sync_writer,
)
from app.db.engine import Database
from app.db.reconciliation import Difference
from app.db.sync_writer import CodatAnswer, LogEntry
from app.db.tables import metadata
from app.domain.models import SyncStatus, Transaction
from app.domain.webhook_loss import Finding
from app.worker import rebuild
from tests.factories import T0, add_event, after, deliver

C1, C2 = "0498e921-9b53-4396-a412-4f2f5983b0a2", "8a210b68-6988-11ed-a1eb-0242ac120002"
NOT_ABOUT_COMPANIES = {
    "rate_limit_pauses",
    "periodic_tasks",
    "workers",
    "change_feed_horizon",
}
LEASE = timedelta(seconds=60)


def fill(database: Database, company_id: str, syncs: int = 3) -> None:
    """Store something about a company in every table that can have it."""
    listed = [{"id": "t1", "status": "Failed", "errorMessage": "canary-message"}]
    for n in range(syncs):
        deliver(
            database,
            f"{company_id}-{n}",
            sync_id=f"s{n}",
            company_id=company_id,
            company_name="canary-name",
            transactions=listed,
        )
    unreadable = b'[{"CompanyId":"%s"}]' % company_id.encode()
    deliver(database, f"{company_id}-unreadable", unreadable)
    deliver(database, f"{company_id}-link", _connection_body(company_id))
    answer(database, company_id)
    with database.writing() as connection:
        finding = Finding("webhooks_lost", company_id, f"no webhook of {company_id}")
        alerts.sync_alerts(connection, [f"x-{company_id}"], [finding], T0)
        outgoing.address(connection, ["webhook:a"], T0)
        start_lock.acquire(connection, company_id, "digest", now=T0, until=T0)


def _connection_body(company_id: str) -> bytes:
    body = (
        '{"eventType": "connection.connected", "payload": {"connection": {"id": "x1", '
        '"status": "Linked"}, "referenceCompany": {"id": "%s"}}, "companyId": "%s"}'
    )
    return (body % (company_id, company_id)).encode()


def answer(database: Database, company_id: str) -> None:
    """Record Codat's answer about s0, which is announced."""
    with database.writing() as connection:
        claims = jobs.claim(connection, "fetch", now=T0, lease=LEASE, limit=99, worker_id="w")
        for claim in claims:
            is_s0 = sync_writer.sync_id_of(connection, claim.key) == "s0"
            if claim.group_key == company_id and is_s0:
                failed = Transaction("t1", "Failed", "canary-message")
                status = SyncStatus(company_id, "s0", 5130)
                answered = CodatAnswer(status, T0, (failed,), expected=1)
                sync_writer.record_answer(connection, claim, answered, now=T0, settle=_log)
            jobs.release(connection, claim)


def _log(_: object) -> list[LogEntry]:
    return [LogEntry(T0, "fetch", "canary-reason")]


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.reading() as connection:
        return {
            name: [
                dict(row)
                for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for name, table in metadata.tables.items()
        }


def erase(database: Database, company_id: str = C1) -> Counter[str]:
    erased: Counter[str] = Counter()
    for step in erasure.STEPS:
        while True:
            with database.writing() as connection:
                found = erasure.erase(connection, step, company_id)
            if not found:
                break
            erased += found
    erasure.truncate_wal(database)
    return erased


def is_known(database: Database, company_id: str = C1) -> bool:
    with database.reading() as connection:
        return erasure.is_known(connection, company_id)


def test_nothing_of_the_company_is_left_and_others_lose_nothing(database: Database) -> None:
    """Also not pending and unreadable events, changes, messages and jobs."""
    fill(database, C2)
    others = rows(database)
    fill(database, C1)
    add_event(database, f"{C1}-pending", sync_id="s9", company_id=C1)
    with database.writing() as connection:
        outgoing.alerts(connection, "alert.opened", [{"company_id": C1}], T0)  # not yet addressed
    both = rows(database)
    assert all(both[name] != others[name] for name in erasure.TABLES)
    erased = erase(database)
    left = rows(database)
    assert C1 not in str(left)
    assert left == others
    assert erased == +Counter({name: len(both[name]) - len(left[name]) for name in both})
    assert not is_known(database)
    assert is_known(database, C2)


def test_every_table_is_covered_or_not_about_companies() -> None:
    """Name a new table here if it is about no company."""
    assert {*metadata.tables} == {*erasure.TABLES} | NOT_ABOUT_COMPANIES


def test_an_interrupted_erasure_can_be_run_again(database: Database) -> None:
    """The company is known until its last trace is gone."""
    fill(database, C1)
    for step in erasure.STEPS:
        assert is_known(database)
        with database.writing() as connection:
            while erasure.erase(connection, step, C1):
                pass
    assert not is_known(database)


def test_a_part_of_an_id_is_not_the_id(database: Database) -> None:
    """Neither in a column nor in a body."""
    fill(database, C1)
    before = rows(database)
    assert not is_known(database, C1[:8])
    assert not erase(database, C1[:8])
    assert rows(database) == before


def test_it_works_in_small_steps(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a company has, other writers do not wait for a lock for long."""
    monkeypatch.setattr(erasure, "SYNCS_PER_STEP", 2)
    monkeypatch.setattr(erasure, "ROWS_PER_STEP", 2)
    fill(database, C1, syncs=5)
    with database.writing() as connection:
        assert erasure.erase(connection, "webhook_events", C1) == {"webhook_events": 2}
        erased = erasure.erase(connection, "syncs", C1)
        # two fetches, and the message about s0: a job must not outlive what it is for
        assert (erased["syncs"], erased["jobs"]) == (2, 3)
    erase(database)
    assert C1 not in str(rows(database))


def test_work_that_began_before_writes_nothing_afterwards(database: Database) -> None:
    """A fetch in hand, a step of a task or of a command: not even the company's row is left."""
    fill(database, C1)
    with database.writing() as connection:
        claimed, *_ = jobs.claim(connection, "fetch", now=T0, lease=LEASE, limit=9, worker_id="w")
        pks = connection.execute(select(metadata.tables["syncs"].c.id)).scalars().all()
    erase(database)
    status = SyncStatus(C1, "s1", 2000)
    answered = CodatAnswer(status, T0, ())
    differs = Difference("s1", "disagrees", "another code", status)
    late: dict[str, Callable[[Connection], object]] = {
        "answer": lambda c: sync_writer.record_answer(c, claimed, answered, now=T0, settle=_log),
        "give up": lambda c: sync_writer.give_up(c, claimed, "404", now=T0),
        "reclassify": lambda c: reclassification.reclassify(c, C1, pks, now=T0),
        "rebuild a sync": lambda c: rebuild._write_syncs(c, [(C1, "s1")], now=T0),
        "rebuild a failure": lambda c: rebuild._write_failures(c, {(C1, "t1")}),
        "correct": lambda c: reconciliation.correct(c, C1, [differs], now=T0),
        "reconciled": lambda c: companies.mark_reconciled(c, C1, companies.Reconciled(T0)),
    }
    for name, work in late.items():
        with database.writing() as connection:
            work(connection)
        assert not is_known(database), name


def test_a_sync_that_is_written_meanwhile_keeps_its_companys_row(database: Database) -> None:
    """The row is the lock of all its writers. Nothing is left to recognize the company by."""
    fill(database, C1)
    erase(database)
    deliver(database, f"{C1}-0", company_id=C1, at=after(days=1))
    with database.writing() as connection:
        assert not erasure.erase(connection, "companies", C1)
    assert [row["company_id"] for row in rows(database)["companies"]] == [C1]


def test_it_may_run_beside_writers_of_the_same_company(database: Database) -> None:
    """No deadlock; what is delivered later is known again, because nothing recognizes it."""
    fill(database, C1, syncs=20)

    def write(n: int) -> None:
        deliver(database, f"again-{n}", sync_id=f"s{n}", company_id=C1, at=after(days=1))

    with ThreadPoolExecutor(3) as pool:
        erasing = pool.submit(erase, database)
        list(pool.map(write, range(20)))
        erasing.result()
    erase(database)
    assert C1 not in str(rows(database))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_file_of_sqlite_has_nothing_of_it_either(database: Database) -> None:
    """Deleted pages are overwritten, and the log is emptied."""
    fill(database, C1)
    file = Path(str(make_url(str(database.engine.url)).database))
    parts = [file, file.with_name(file.name + "-wal")]
    assert any(b"canary-message" in part.read_bytes() for part in parts)
    erase(database)
    assert not any(b"canary" in part.read_bytes() for part in parts if part.exists())
