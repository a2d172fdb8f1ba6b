"""Transactions in a sync, their history over all syncs, and failed transactions."""

from fastapi.testclient import TestClient

from app.domain.models import Transaction
from tests.web.store import Store, after, completed_row, failed_row

V1 = "/api/v1"
FIELDS = {
    "transaction_id", "integration_type", "status", "message", "failed", "correlation_id", "cause",
    "fingerprint", "sync_id", "company_id", "company_name", "position", "current_status",
    "resolved_by",
}  # fmt: skip


def test_rows_are_listed_as_codat_sent_them(store: Store, client: TestClient) -> None:
    """Identical rows and unknown statuses included."""
    store.failed(rows=(failed_row(), failed_row(), Transaction(None, "Brewing", "?", "teapots")))
    rows = client.get(f"{V1}/syncs/s1/transactions").json()["items"]
    assert [row["position"] for row in rows] == [0, 1, 2]
    assert all(set(row) == FIELDS for row in rows)
    assert (rows[2]["status"], rows[2]["current_status"]) == ("Brewing", "other")
    assert rows[2]["transaction_id"] is None
    assert len(client.get(f"{V1}/syncs/s1/transactions/t1").json()["items"]) == 2
    assert len(client.get(f"{V1}/syncs/s1/transactions?failed=true").json()["items"]) == 2


def test_a_history_says_whether_the_transaction_is_in_the_books(
    store: Store, client: TestClient
) -> None:
    """Its current status, the sync that completed it, and the rows of all syncs."""
    store.failed("s1")
    store.completed("s2", at=after(hours=1))
    history = client.get(f"{V1}/companies/c1/transactions/t1").json()
    assert (history["current_status"], history["resolved_by"]) == ("completed", "s2")
    assert [(row["sync_id"], row["resolved_by"]) for row in history["history"]] == [
        ("s2", None),
        ("s1", "s2"),
    ]
    assert history["history"][0]["at"] == "2026-01-01T10:00:00Z"
    rows = [client.get(f"{V1}/push-errors?open={value}").json()["items"] for value in ("true", "0")]
    assert [len(found) for found in rows] == [0, 1]
    store.failed("s3", at=after(hours=2))
    history = client.get(f"{V1}/companies/c1/transactions/t1").json()
    assert (history["current_status"], history["resolved_by"]) == ("failed", None)


def test_a_failed_transaction_has_its_cause(store: Store, client: TestClient) -> None:
    """As one object in every response with transactions; null for one that did not fail."""
    locked = "The document date cannot be before the end of year lock date, currently 31-Jul-2015"
    store.failed("s1", rows=(failed_row("t1", locked), completed_row("t2")))
    rows = client.get(f"{V1}/syncs/s1/transactions").json()["items"]
    cause = rows[0]["cause"]
    assert (cause["key"], cause["owner"]) == ("period_closed", "customer")
    assert cause["customer_message"].endswith(".")
    assert (cause["retry_advice"], rows[1]["cause"]) == ("after_next_step", None)
    assert len(rows[0]["fingerprint"]) == 16
    history = client.get(f"{V1}/companies/c1/transactions/t1").json()["history"]
    assert history[0]["cause"] == cause
    assert client.get(f"{V1}/push-errors").json()["items"][0]["cause"] == cause
