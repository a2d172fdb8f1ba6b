"""Open alerts."""

from fastapi.testclient import TestClient

from app.db import alerts
from app.domain.webhook_loss import Finding
from tests.web.store import T0, Store, after


def test_open_alerts_page_newest_first(store: Store, client: TestClient) -> None:
    """Resolved ones are not listed."""
    lost = Finding("webhooks_lost", "c1", "no webhook since …")
    disabled = Finding("endpoint_disabled", "", "enable it")
    with store.database.writing() as connection:
        alerts.sync_alerts(connection, {"webhooks_lost"}, [lost], T0)
        alerts.sync_alerts(connection, {"endpoint_disabled"}, [disabled], after(hours=1))
    first = client.get("/api/v1/alerts?limit=1").json()
    (alert,) = first["items"]
    assert alert.pop("id") > 0
    assert alert == {
        "cause": "endpoint_disabled", "company_id": "", "company_name": None, "text": "enable it",
        "opened_at": "2026-01-01T10:00:00Z", "companies": 1, "items": None,
        "first_failed_at": None, "note": None,
    }  # fmt: skip
    rest = client.get("/api/v1/alerts", params={"cursor": first["next"]}).json()
    assert ([alert["company_id"] for alert in rest["items"]], rest["next"]) == (["c1"], None)
    with store.database.writing() as connection:
        alerts.sync_alerts(connection, {"webhooks_lost"}, [], after(hours=2))
    (left,) = client.get("/api/v1/alerts").json()["items"]
    assert left.items() >= alert.items()
    assert client.get("/api/v1/alerts?cursor=x").status_code == 422
