"""The webhook monitor opens an alert for a loss, and resolves it when webhooks arrive again."""

import asyncio
from dataclasses import dataclass, field, replace

from sqlalchemy import select
from structlog.testing import capture_logs

from app.codat.client import CodatClient
from app.db.engine import Database
from app.db.queries.alerts import open_alerts
from app.db.tables import alerts
from app.domain.webhook_loss import Endpoint
from app.worker.tasks.webhook_monitor import check_webhooks
from tests.factories import COMPLETED, after, deliver
from tests.worker.fakes import Clock, FakeLists, reconcile, status
from tests.worker.test_doctor import GOOD


@dataclass
class Consumers(CodatClient):
    consumers: list[Endpoint] = field(default_factory=lambda: [GOOD])

    async def list_consumers(self) -> list[Endpoint]:
        return self.consumers


def check(database: Database, hours: float, *consumers: Endpoint) -> list[str]:
    """Run the monitor; cause and company of the alerts that are open then."""
    codat = Consumers(list(consumers) or [GOOD])
    asyncio.run(check_webhooks(database, codat, Clock(after(hours=hours))))
    with database.reading() as connection:
        return sorted(
            f"{alert.cause}:{alert.company_id}" for alert in open_alerts(connection).items
        )


def test_a_loss_opens_one_alert_and_a_reported_sync_resolves_it(database: Database) -> None:
    """However often it is checked; other companies' alerts stay as they are."""
    reconcile(database, FakeLists({"c1": [status("s1")], "c9": []}))
    reconcile(database, FakeLists({"c2": [replace(status("s2"), company_id="c2")]}))
    assert check(database, 0.2) == []
    assert check(database, 2) == ["webhooks_lost:c1", "webhooks_lost:c2"]
    assert check(database, 3) == ["webhooks_lost:c1", "webhooks_lost:c2"]
    at = after(hours=3)
    deliver(database, "m1", sync_id="s2", event_type=COMPLETED, at=at, generated_at=at)
    assert check(database, 3.5) == ["webhooks_lost:c2"]
    with database.reading() as connection:
        resolved = connection.execute(select(alerts.c.resolved_at.is_not(None))).scalars()
        assert sorted(resolved) == [False, True]


def test_forty_companies_are_one_line_of_the_log(database: Database) -> None:
    """Whatever the texts of their alerts; other causes have lines of their own."""
    for n in range(40):
        lists = {f"c{n}": [replace(status("s1"), company_id=f"c{n}")]}
        reconcile(database, FakeLists(lists))
    with capture_logs() as lines:
        check(database, 2, replace(GOOD, disabled=True))
    opened = [(line["cause"], line["count"]) for line in lines if line["event"] == "alerts opened"]
    assert opened == [("webhooks_lost", 40), ("endpoint_disabled", 1)]


def test_a_disabled_endpoint_is_an_alert_until_it_is_enabled(database: Database) -> None:
    """Nothing arrives meanwhile, so nothing else would show it."""
    disabled = replace(GOOD, disabled=True)
    assert check(database, 1, disabled) == ["endpoint_disabled:"]
    assert check(database, 2) == []
    assert check(database, 3, disabled) == ["endpoint_disabled:"]
