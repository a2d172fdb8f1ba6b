"""Open alerts."""

from fastapi.testclient import TestClient

from app.db import alerts
from app.domain.webhook_loss import Finding
from tests.web.store import T0, Store, after


def test_open_alerts_are_listed_newest_first(store: Store, client: TestClient) -> None:
    """Resolved ones are not."""
    lost = Finding("webhooks_lost", "c1", "no webhook since …")
    disabled = Finding("endpoint_disabled", "", "enable it")
    with store.database.writing() as connection:
        alerts.sync_alerts(connection, {"webhooks_lost"}, [lost], T0)
        alerts.sync_alerts(connection, {"endpoint_disabled"}, [disabled], after(hours=1))
    items = client.get("/api/v1/alerts").json()["items"]
    assert items == [
        {
            "cause": "endpoint_disabled", "company_id": "", "text": "enable it",
            "opened_at": "2026-01-01T10:00:00Z",
        },
        {
            "cause": "webhooks_lost", "company_id": "c1", "text": "no webhook since …",
            "opened_at": "2026-01-01T09:00:00Z",
        },
    ]  # fmt: skip
    with store.database.writing() as connection:
        alerts.sync_alerts(connection, {"webhooks_lost"}, [], after(hours=2))
    assert len(client.get("/api/v1/alerts").json()["items"]) == 1


def test_alerts_page(store: Store, client: TestClient) -> None:
    """A cause may have an alert for each of many companies."""
    findings = [Finding("webhooks_lost", f"c{n}", "no webhook since …") for n in range(3)]
    with store.database.writing() as connection:
        alerts.sync_alerts(connection, {"webhooks_lost"}, findings, T0)
    first = client.get("/api/v1/alerts?limit=2").json()
    rest = client.get("/api/v1/alerts", params={"cursor": first["next"]}).json()
    assert [each["company_id"] for each in first["items"] + rest["items"]] == ["c2", "c1", "c0"]
    assert rest["next"] is None
    assert client.get("/api/v1/alerts?cursor=x").status_code == 422
