"""The watch opens an alert for a loss and resolves it by itself; the clock is passed in."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta

from sqlalchemy import select

from app.codat.responses import Consumer
from app.db.alerts import open_alerts
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.tables import alerts
from app.worker.tasks.webhook_monitor import Watch
from tests.reports import COMPLETED, T0, delivery
from tests.worker.tasks.test_reconcile import Lister, reconcile, status
from tests.worker.test_fetcher import Clock

GOOD = Consumer("w1", "https://us.example/webhooks/codat", False, ("SyncFailed", "SyncCompleted"))


@dataclass
class Consumers:
    told: list[Consumer] = field(default_factory=lambda: [GOOD])

    async def list_consumers(self) -> list[Consumer]:
        return self.told


def look(database: Database, codat: Consumers, hours: float) -> list[str]:
    clock = Clock()
    clock.now = T0 + timedelta(hours=hours)
    asyncio.run(Watch(database, codat, clock).run())
    with database.reading() as connection:
        return [f"{row['cause']}:{row['company_id']}" for row in open_alerts(connection).rows]


def test_a_loss_opens_one_alert_and_a_told_sync_resolves_it(database: Database) -> None:
    """However often it is looked at; and once webhooks come again it is over."""
    reconcile(database, Lister({"c1": [status("s1")], "c2": []}))
    codat = Consumers()
    assert look(database, codat, 0.2) == []
    assert look(database, codat, 2) == ["webhooks_lost:c1"]
    assert look(database, codat, 3) == ["webhooks_lost:c1"]
    at = T0 + timedelta(hours=3)
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", COMPLETED, sync_id="s2", at=at, generated_at=at)])
    assert look(database, codat, 3.5) == []
    with database.reading() as connection:
        rows = connection.execute(select(alerts)).mappings().all()
    assert [row["resolved_at"] is not None for row in rows] == [True]


def test_a_disabled_endpoint_is_an_alert_until_it_is_enabled(database: Database) -> None:
    """Nothing arrives meanwhile, so nobody else would notice."""
    assert look(database, Consumers([replace(GOOD, disabled=True)]), 1) == ["endpoint_disabled:"]
    assert look(database, Consumers(), 2) == []
    assert look(database, Consumers([replace(GOOD, disabled=True)]), 3) == ["endpoint_disabled:"]


def test_alerts_of_other_companies_stay_as_they_are(database: Database) -> None:
    """One per cause and company."""
    reconcile(database, Lister({"c1": [status("s1")]}))
    reconcile(database, Lister({"c2": [replace(status("s2"), company_id="c2")]}))
    assert sorted(look(database, Consumers(), 2)) == ["webhooks_lost:c1", "webhooks_lost:c2"]
