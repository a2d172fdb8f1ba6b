"""Causes of failures."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db.tables import failed_transactions, syncs, transactions
from app.settings import load_settings
from tests.web.store import KEY, Store, after, completed_row, failed_row

V1 = "/api/v1"
LOCKED = "The document date cannot be before the end of year lock date, currently set at {}"
CAUSE = {"key", "title", "owner", "next_step", "customer_message", "retry_advice"}
TOTALS = {
    "companies", "transactions", "open", "syncs", "first_failed_at", "last_failed_at",
    "last_7_days", "previous_7_days", "open_since", "open_companies",
}  # fmt: skip


@pytest.fixture
def failures(store: Store) -> Store:
    """Two companies, two causes, one resolved transaction, one sync that failed as a whole."""
    locked = [failed_row(f"t{n}", LOCKED.format(f"31-Jul-201{n}")) for n in range(3)]
    store.failed("s1", "c1", rows=(locked[0], locked[0], failed_row("t9", "Oops")))
    store.failed("s2", "c2", at=after(days=-3), rows=(locked[1], locked[2]))
    store.failed("s3", "c2", at=after(days=-2), rows=(locked[1],))
    store.completed("s4", "c2", at=after(days=-1), rows=(completed_row("t1"),))
    store.sync("s5", "c3", code=4040, at=after(days=-4), error_message="Company c3 is gone")
    return store


def causes(client: TestClient, **params: Any) -> dict[str, Any]:
    items = client.get(f"{V1}/causes", params=params).json()["items"]
    return {cause["key"]: cause for cause in items}


def test_causes_have_texts_and_totals(failures: Store, client: TestClient) -> None:
    """Those with the most open transactions first; a transaction counts once per company."""
    answer = client.get(f"{V1}/causes").json()
    keys = [cause["key"] for cause in answer["items"]]
    assert (keys, answer["next"]) == (["period_closed", "unclassified", "disconnected"], None)
    cause = answer["items"][0]
    assert set(cause) == CAUSE | TOTALS | {"text", "cannot_sync"}
    assert (cause["title"], cause["owner"]) == ("Accounting period closed", "customer")
    assert (cause["companies"], cause["transactions"], cause["open"]) == (2, 3, 2)
    assert cause["first_failed_at"] == "2025-12-29T09:00:00Z"
    assert cause["last_failed_at"] == "2026-01-01T09:00:00Z"
    assert [cause["cannot_sync"] for cause in answer["items"]] == [0, 0, 1]


def test_the_trend_and_the_oldest_open_failure_are_known(store: Store, client: TestClient) -> None:
    """By UTC days: the last seven with today, and the seven before."""
    for n, days in enumerate((0, -6, -7, -13, -14)):
        row = failed_row(f"t{n}", LOCKED.format("x"))
        store.failed(f"s{n}", at=after(days=days), rows=(row,))
    store.completed("s9", at=after(days=-1), rows=(completed_row("t4"),))
    cause = causes(client)["period_closed"]
    assert (cause["last_7_days"], cause["previous_7_days"], cause["transactions"]) == (2, 2, 5)
    assert cause["first_failed_at"] == "2025-12-18T09:00:00Z"
    store.failed("t", "c2", rows=(failed_row("t", LOCKED.format("x")),), at=after(days=-2))
    store.completed("u", "c2", rows=(completed_row("t"),), at=after(days=-1))
    totals = causes(client)["period_closed"]
    assert (totals["companies"], totals["open_companies"]) == (2, 1)
    assert cause["open_since"] == "2025-12-19T09:00:00Z"


def test_the_companies_of_a_cause_are_paged(failures: Store, client: TestClient) -> None:
    """Those with the most open transactions first, with names, and whether they cannot sync."""
    failures.company("c1", "Toft stores")
    failures.failed("s6", "c1", at=after(hours=1), rows=(failed_row("t5", LOCKED.format("x")),))
    path = f"{V1}/causes/period_closed/companies"
    first = client.get(path, params={"limit": 1}).json()
    (company,) = first["items"]
    assert set(company) == TOTALS | {"company_id", "company_name", "cannot_sync", "note"}
    assert (company["company_name"], company["open"], company["cannot_sync"]) == (
        "Toft stores",
        2,
        False,
    )
    rest = client.get(path, params={"limit": 1, "cursor": first["next"]}).json()
    assert [(row["company_id"], row["transactions"]) for row in rest["items"]] == [("c2", 2)]
    assert rest["next"] is None
    (blocked,) = client.get(f"{V1}/causes/disconnected/companies").json()["items"]
    assert (blocked["company_id"], blocked["syncs"], blocked["cannot_sync"]) == ("c3", 1, True)
    assert client.get(path, params={"company_id": "c9"}).json()["items"] == []
    assert client.get(path, params={"cursor": "x"}).status_code == 422


def test_a_note_is_shown_until_something_new_fails(
    store: Store, app: FastAPI, client: TestClient
) -> None:
    """With the name of the key, at the cause and in the alert that it opens."""
    app.state.settings = load_settings(api_keys=f"support:{KEY}")
    store.failed(rows=(failed_row("t1", LOCKED.format("x")),))
    path = f"{V1}/causes/period_closed/companies/c1/note"
    note = {"text": "Called them", "is_handled": True}
    assert client.put(path, json=note).status_code == 204
    expected = note | {"by": "support", "at": "2026-01-01T12:00:00Z"}
    (company,) = client.get(f"{V1}/causes/period_closed/companies").json()["items"]
    assert company["note"] == expected
    (alert,) = client.get(f"{V1}/alerts").json()["items"]
    assert (alert["cause"], alert["note"]) == ("push_error:period_closed", expected)
    assert (alert["items"], alert["first_failed_at"]) == (1, "2026-01-01T09:00:00Z")
    other = {"text": "By id", "is_handled": False}
    assert client.put(f"{V1}/alerts/{alert['id']}/note", json=other).status_code == 204
    (alert,) = client.get(f"{V1}/alerts").json()["items"]
    assert alert["note"].items() >= other.items()
    store.failed("s2", rows=(failed_row("t2", LOCKED.format("x")),), at=after(hours=1))
    (company,) = client.get(f"{V1}/causes/period_closed/companies").json()["items"]
    (alert,) = client.get(f"{V1}/alerts").json()["items"]
    assert (company["note"], alert["note"], alert["items"]) == (None, None, 2)
    assert client.put(path, json=note).status_code == 204
    assert client.put(path, json={}).status_code == 204
    (company,) = client.get(f"{V1}/causes/period_closed/companies").json()["items"]
    assert company["note"] is None


def test_a_note_needs_something_open(failures: Store, client: TestClient) -> None:
    note = {"text": "x"}
    assert client.put(f"{V1}/causes/unclassified/companies/c9/note", json=note).status_code == 409
    assert client.put(f"{V1}/causes/nothing/companies/c1/note", json=note).status_code == 409
    assert client.put(f"{V1}/alerts/99/note", json=note).status_code == 404
    assert client.put(f"{V1}/alerts/x/note", json=note).status_code == 422
    path = f"{V1}/causes/disconnected/companies/c3/note"
    assert client.put(path, json={"text": "x" * 1001}).status_code == 422
    assert client.put(path, json={"handled": True}).status_code == 422
    assert client.put(path, json={"is_handled": True}).status_code == 204
    (alert,) = client.get(f"{V1}/alerts").json()["items"]
    assert (alert["cause"], alert["items"]) == ("cannot_sync:disconnected", None)
    assert alert["note"]["is_handled"]


def test_a_transaction_counts_under_its_latest_failure(store: Store, client: TestClient) -> None:
    """A row without a transaction id counts too, and stays open."""
    store.failed("s1", rows=(failed_row("t1", "Oops"), failed_row("t2", "Oops")))
    store.completed("s2", at=after(hours=1), rows=(completed_row("t1"),))
    locked = failed_row("t1", LOCKED.format("31-Jul-2015"))
    store.failed("s3", at=after(hours=2), rows=(locked, failed_row(None)))
    totals = {key: (cause["transactions"], cause["open"]) for key, cause in causes(client).items()}
    assert totals == {"unclassified": (2, 2), "period_closed": (1, 1)}


def test_equal_messages_form_a_group(failures: Store, client: TestClient) -> None:
    """With their common pattern, and the newest of them as an example."""
    details = client.get(f"{V1}/causes/period_closed").json()
    assert details["group_count"] == 1
    (group,) = details["groups"]
    assert group["pattern"].lower().endswith("end of year lock date, currently set at #")
    assert group["example"] == LOCKED.format("31-Jul-2010")
    assert {name: group[name] for name in TOTALS} == {name: details[name] for name in TOTALS}


def test_groups_are_formed_by_the_innermost_message(store: Store, client: TestClient) -> None:
    """Faults in JSON are told apart by their details, in any markup. The example is the detail."""
    template = (
        '{{"Fault": {{"Error": [{{"Message": "Invalid", "Detail": "{}", "code": "2500"}}]}}}}'
    )
    details = [f"Invalid Reference Id : {name} element id" for name in ("Accounts", "Classes")]
    faults = [template.format(f"{detail} {n} not found") for n, detail in enumerate(details)]
    xml = f"<Error><Detail>{details[0]} 77 not found</Detail></Error>"
    rows = [failed_row(f"t{n}", message) for n, message in enumerate((*faults, xml))]
    store.failed("s1", rows=rows)
    groups = {
        group["pattern"]: (group["transactions"], group["example"])
        for cause in causes(client)
        for group in client.get(f"{V1}/causes/{cause}").json()["groups"]
    }
    first, second = (f"{detail.lower()} # not found" for detail in details)
    assert set(groups) == {first, second}
    assert groups[first] == (2, f"{details[0]} 77 not found")


def test_a_sync_that_failed_as_a_whole_is_counted(failures: Store, client: TestClient) -> None:
    """It has no transaction to count."""
    cause = causes(client)["disconnected"]
    assert (cause["companies"], cause["transactions"], cause["syncs"]) == (1, 0, 1)
    assert (cause["first_failed_at"], cause["last_failed_at"]) == ("2025-12-28T09:00:00Z",) * 2
    details = client.get(f"{V1}/causes/disconnected").json()
    assert details["groups"][0]["example"] == "Company c3 is gone"


@pytest.mark.parametrize(
    ("params", "transactions_by_cause"),
    [
        ({"company_id": "c1"}, {"period_closed": 1, "unclassified": 1}),
        ({"company_id": "nobody"}, {}),
        ({"from": "2025-12-31"}, {"period_closed": 1, "unclassified": 1}),
        ({"to": "2025-12-29"}, {"period_closed": 1, "disconnected": 0}),
        ({"from": "2025-12-28", "to": "2025-12-28"}, {"disconnected": 0}),
    ],
)
def test_causes_are_filtered_by_company_and_time(
    failures: Store,
    client: TestClient,
    params: dict[str, str],
    transactions_by_cause: dict[str, int],
) -> None:
    totals = causes(client, **params)
    assert {key: cause["transactions"] for key, cause in totals.items()} == transactions_by_cause


def test_the_default_range_is_the_last_30_days(store: Store, client: TestClient) -> None:
    """UTC days, today included; any bound replaces it."""
    store.failed("new", at=after(days=-29), rows=(failed_row("t1"),))
    store.failed("old", at=after(days=-30), rows=(failed_row("t2"),))
    assert causes(client)["unclassified"]["transactions"] == 1
    assert causes(client, to="2026-01-01")["unclassified"]["transactions"] == 2
    assert client.get(f"{V1}/causes/unclassified").json()["transactions"] == 1


def test_a_cause_without_failures_has_zeros(failures: Store, client: TestClient) -> None:
    """Only a key that neither the rules nor the failures have is not found."""
    details = client.get(f"{V1}/causes/rate_limited").json()
    assert (details["transactions"], details["groups"]) == (0, [])
    assert details["first_failed_at"] is None
    assert client.get(f"{V1}/causes/nothing").status_code == 404
    assert client.get(f"{V1}/causes", params={"owner": "us"}).status_code == 422


def test_syncs_and_failed_transactions_are_filtered_by_cause(
    failures: Store, client: TestClient
) -> None:
    """A sync by the causes of its transactions, or by its own."""

    def ids(path: str, cause: str) -> list[str]:
        items = client.get(f"{V1}/{path}", params={"cause": cause}).json()["items"]
        return [item["sync_id"] for item in items]

    assert sorted(ids("syncs", "period_closed")) == ["s1", "s2", "s3"]
    assert ids("syncs", "disconnected") == ["s5"]
    assert ids("push-errors", "period_closed") == ["s1", "s1", "s3", "s2", "s2"]
    assert ids("push-errors", "disconnected") == []


def test_a_removed_cause_is_shown_by_its_key(failures: Store, client: TestClient) -> None:
    """The team removed it from its file, and the rows are not reclassified yet."""
    with failures.database.writing() as connection:
        for table in (transactions, failed_transactions):
            connection.execute(update(table).values(cause_key="gone"))
        connection.execute(update(syncs).values(cause_key=None))
    cause = causes(client)["gone"]
    assert (cause["title"], cause["text"], cause["owner"]) == ("gone", None, None)
    row = client.get(f"{V1}/syncs/s2/transactions").json()["items"][0]
    assert (row["cause"]["title"], row["cause"]["owner"]) == ("gone", None)
