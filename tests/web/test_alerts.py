"""Open alerts can be asked for."""

from fastapi.testclient import TestClient

from app.rules.silence import Finding
from app.storage import alerts
from app.storage.database import Database
from tests.told import T0, after


def test_open_alerts_are_listed_newest_first_and_resolved_ones_are_not(
    client: TestClient, database: Database
) -> None:
    """What somebody must look at now."""
    lost = Finding("webhooks_lost", "c1", "no webhook since …")
    off = Finding("endpoint_disabled", "", "enable it")
    with database.writing() as connection:
        alerts.turn(connection, {"webhooks_lost"}, [lost], T0)
        alerts.turn(connection, {"endpoint_disabled"}, [off], after(hours=1))
    told = client.get("/api/v1/alerts").json()
    assert [(each["cause"], each["opened_at"]) for each in told["items"]] == [
        ("endpoint_disabled", "2026-01-01T10:00:00Z"),
        ("webhooks_lost", "2026-01-01T09:00:00Z"),
    ]
    with database.writing() as connection:
        alerts.turn(connection, {"webhooks_lost"}, [], after(hours=2))
    assert len(client.get("/api/v1/alerts").json()["items"]) == 1
