"""Failure alerts: one per cause and company, resolved when its reason is gone."""

import asyncio

import pytest
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import alerts
from app.domain.models import Transaction
from app.errors import DatabaseDown
from app.worker.tasks.failure_alerts import check_failures
from tests.factories import after, deliver
from tests.worker.fakes import WRITTEN, Clock, FakeCodat, fetch


def test_open_failures_are_one_alert_per_cause_and_company(database: Database) -> None:
    """However many there are; resolved once a later sync has written them."""
    failed = tuple(Transaction(f"t{n}", "PushError", "Oops") for n in range(3))
    deliver(database, "m1")
    fetch(database, FakeCodat(transactions=failed))
    clock = Clock(after(hours=1))
    assert asyncio.run(check_failures(database, clock)) == "1 alerts opened, 0 resolved"
    assert asyncio.run(check_failures(database, clock)) == "0 alerts opened, 0 resolved"
    with database.reading() as connection:
        (row,) = connection.execute(select(alerts)).mappings().all()
    assert (row["cause"], row["company_id"]) == ("push_error:unclassified", "c1")
    title = database.classifier.causes["unclassified"].title
    assert row["text"] == f"{title}: items not recorded"
    deliver(database, "m2", sync_id="s2", at=after(hours=1), generated_at=after(hours=1))
    written = tuple(row._replace(status="Completed", message=None) for row in failed)
    fetch(database, FakeCodat(code=2000, transactions=written), clock=clock)
    assert asyncio.run(check_failures(database, clock)) == "0 alerts opened, 1 resolved"


def test_a_company_that_cannot_sync_is_an_alert_until_a_sync_succeeds(database: Database) -> None:
    deliver(database, "m1")
    fetch(database, FakeCodat(code=4260, transactions=()))
    clock = Clock(after(hours=1))
    assert asyncio.run(check_failures(database, clock)) == "1 alerts opened, 0 resolved"
    with database.reading() as connection:
        (row,) = connection.execute(select(alerts)).mappings().all()
    assert (row["cause"], row["company_id"]) == ("cannot_sync:subscription_ended", "c1")
    assert row["text"] == "Cannot sync: Accounting software subscription ended"
    deliver(database, "m2", sync_id="s2", at=after(hours=1), generated_at=after(hours=1))
    fetch(database, FakeCodat(code=2000, transactions=WRITTEN), clock=clock)
    assert asyncio.run(check_failures(database, clock)) == "0 alerts opened, 1 resolved"


def test_a_pass_without_differences_only_reads(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many alerts are open."""
    deliver(database, "m1")
    fetch(database, FakeCodat())
    asyncio.run(check_failures(database, Clock()))

    def refuse() -> None:
        raise AssertionError("a pass without differences must not write")

    monkeypatch.setattr(database, "writing", refuse)
    assert asyncio.run(check_failures(database, Clock())) == "0 alerts opened, 0 resolved"


def test_a_pass_that_cannot_finish_says_so_until_one_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an alert, and to the scheduler, which logs it."""

    def take_too_long(*_: object) -> None:
        raise DatabaseDown("The database failed: canceling statement due to statement timeout")

    with monkeypatch.context() as patched:
        patched.setattr("app.db.alerts.open_failures", take_too_long)
        for _ in range(2):
            with pytest.raises(DatabaseDown):
                asyncio.run(check_failures(database, Clock()))
    with database.reading() as connection:
        (row,) = connection.execute(select(alerts)).mappings().all()
    assert (row["cause"], row["resolved_at"]) == ("alerts_outdated", None)
    assert asyncio.run(check_failures(database, Clock())) == "0 alerts opened, 1 resolved"
