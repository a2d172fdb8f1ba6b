"""Failure alerts: one per cause and company, resolved when the transactions are."""

import asyncio

from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import alerts
from app.domain.models import Transaction
from app.worker.tasks.failure_alerts import check_failures
from tests.factories import after, deliver
from tests.worker.fakes import Clock, FakeCodat, fetch


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
