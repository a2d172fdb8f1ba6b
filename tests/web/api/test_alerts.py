"""Open alerts can be asked for."""

from fastapi.testclient import TestClient

from app.db import alerts
from app.db.engine import Database
from app.domain.webhook_loss import Finding
from tests.reports import T0, after


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


def test_alerts_page_so_that_many_new_ones_hide_no_old_one(
    client: TestClient, database: Database
) -> None:
    """One cause may be open for each of many companies."""
    found = [Finding("webhooks_lost", f"c{n}", "no webhook since …") for n in range(5)]
    with database.writing() as connection:
        alerts.turn(connection, {"webhooks_lost"}, found, T0)
    seen: list[str] = []
    asked: dict[str, str] = {"limit": "2"}
    while True:
        page = client.get("/api/v1/alerts", params=asked).json()
        seen += [each["company_id"] for each in page["items"]]
        if page["next"] is None:
            break
        asked["cursor"] = page["next"]
    assert seen == ["c4", "c3", "c2", "c1", "c0"]
    assert client.get("/api/v1/alerts?cursor=x").status_code == 422
