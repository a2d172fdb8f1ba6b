"""The Codat-compatible API: Codat's bodies, paging, errors and authentication."""

from base64 import b64encode

import pytest
from fastapi.testclient import TestClient

from app.domain.models import Transaction
from tests.web.store import KEY, T0, Store, after, completed_row, failed_row

C1 = "/codat/companies/c1/sync/expenses/syncs"


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


OUR_KEYS = [f"Bearer {KEY}", basic(KEY), basic(f"{KEY}:"), basic(f"user:{KEY}"),
            f"basic {basic(KEY)[6:]}"]  # fmt: skip
OTHER_KEYS = ["", "Basic", "Basic ?", basic("wrong"), basic(""), f"Basic {KEY}"]


def test_a_key_is_accepted_as_codats_sdks_send_it(client: TestClient) -> None:
    """Another one is Codat's error."""
    for header in OUR_KEYS + OTHER_KEYS:
        answer = client.get("/codat/companies", headers={"Authorization": header})
        assert answer.status_code == (200 if header in OUR_KEYS else 401), header
        if header in OTHER_KEYS:
            assert answer.json()["statusCode"] == 401
            assert "Basic" in answer.headers["www-authenticate"]


def test_a_status_has_codats_fields(store: Store, client: TestClient) -> None:
    """One sync, the latest, the last successful and the list have the same fields."""
    store.completed("s1", at=T0, status="Complete", data_pushed=True, error_message="")
    store.failed("s2", at=after(hours=1))
    status = client.get(f"{C1}/s1/status").json()
    assert status == {
        "companyId": "c1",
        "syncId": "s1",
        "syncStatusCode": 2000,
        "syncStatus": "Complete",
        "errorMessage": "",
        "syncExceptionMessage": None,
        "syncUtc": "2026-01-01T09:00:00Z",
        "dataPushed": True,
        "state": "completed",
    }
    assert client.get(f"{C1}/lastSuccessful/status").json() == status
    assert client.get(f"{C1}/latest/status").json()["syncId"] == "s2"
    assert [sync["syncId"] for sync in client.get(f"{C1}/list/status").json()] == ["s2", "s1"]


def test_headers_say_how_old_the_answer_is(store: Store, client: TestClient) -> None:
    """Not the body, because Codat's models hide fields that they do not know."""
    store.completed("s1")
    store.sync("s2", at=after(hours=1))
    headers = client.get(f"{C1}/s1/status").headers
    assert headers["last-modified"] == "Thu, 01 Jan 2026 09:00:00 GMT"
    assert headers["age"] == "10800"
    assert "age" not in client.get(f"{C1}/s2/status").headers
    assert "age" not in client.get(f"{C1}/list/status").headers


def test_a_company_without_syncs_has_an_empty_list(store: Store, client: TestClient) -> None:
    """An unknown company is 404."""
    store.company("c1")
    answer = client.get(f"{C1}/list/status")
    assert (answer.status_code, answer.json()) == (200, [])
    assert "last-modified" not in answer.headers
    assert client.get("/codat/companies/c2/sync/expenses/syncs/list/status").status_code == 404


def test_transactions_page_by_number(store: Store, client: TestClient) -> None:
    """`_links` always has self and current."""
    store.failed(rows=tuple(failed_row(f"t{n}") for n in range(5)))
    pages = [client.get(f"{C1}/s1/transactions?page={n}&pageSize=2").json() for n in (1, 2, 3, 4)]
    ids = [[row["transactionId"] for row in page["results"]] for page in pages]
    assert ids == [["t0", "t1"], ["t2", "t3"], ["t4"], []]
    assert {page["totalResults"] for page in pages} == {5}
    links = [set(page["_links"]) - {"self", "current"} for page in pages]
    assert links == [{"next"}, {"next", "previous"}, {"previous"}, {"previous"}]


def test_members_that_sdks_reject_are_mapped(store: Store, client: TestClient) -> None:
    """One unknown member would cost them the whole page. The original is beside it."""
    kinds = [("Failed", "expense"), ("Brewing", "teapots"), (None, None)]
    store.failed(rows=tuple(Transaction("t1", status, None, kind) for status, kind in kinds))
    rows = client.get(f"{C1}/s1/transactions").json()["results"]
    mapped = [(row.get("status"), row.get("integrationType")) for row in rows]
    assert mapped == [("PushError", "expenses"), ("Unknown", None), (None, None)]
    originals = [(row.get("originalStatus"), row.get("originalIntegrationType")) for row in rows]
    assert originals == kinds


def test_one_transaction_is_an_array(store: Store, client: TestClient) -> None:
    """One row per integration type; 404 when there is none."""
    store.failed(rows=(failed_row(), completed_row()))
    assert len(client.get(f"{C1}/s1/transactions/t1").json()) == 2
    assert client.get(f"{C1}/s1/transactions/t9").json()["statusCode"] == 404


def test_an_unknown_list_is_not_shown_as_empty(store: Store, client: TestClient) -> None:
    """409 until it has been read. A list that is empty at Codat is empty."""
    store.failed("s1", rows=None)
    store.sync("s2", code=2040, rows=())
    assert client.get(f"{C1}/s1/transactions").status_code == 409
    assert client.get(f"{C1}/s1/transactions/t1").status_code == 409
    assert client.get(f"{C1}/s2/transactions").json()["results"] == []


def test_companies_page_and_always_have_a_name(store: Store, client: TestClient) -> None:
    """The SDKs require id, name and redirect."""
    for company_id, name in (("a", "Ant"), ("b", None), ("c/1", "Sea")):
        store.company(company_id, name)
    store.completed("s1", "a")
    first = client.get("/codat/companies?page=1&pageSize=2&query=x&orderBy=y").json()
    assert first["totalResults"] == 3
    assert [(found["id"], found["name"]) for found in first["results"]] == [
        ("a", "Ant"),
        ("b", "b"),
    ]
    assert first["results"][0]["lastSync"] == "2026-01-01T09:00:00Z"
    second = client.get("/codat/companies?page=2&pageSize=2").json()
    assert second["results"][0]["redirect"] == "https://link.codat.io/company/c%2F1"


def test_doubled_and_encoded_slashes_are_accepted(store: Store, client: TestClient) -> None:
    """A server URL with a trailing slash doubles one; SDKs encode ids."""
    store.completed("s/1", "c/1", rows=(completed_row("t/1"),))
    path = "//codat//companies/c%2F1/sync/expenses/syncs/s%2F1"
    assert client.get(f"http://testserver{path}/status").json()["syncId"] == "s/1"
    assert client.get(f"http://testserver{path}/transactions/t%2F1").status_code == 200
    links = client.get(f"http://testserver{path}/transactions").json()["_links"]
    assert links["self"]["href"] == path[7:].replace("//", "/") + "/transactions"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/codat/companies?page=99999999999999999999", 400, "page"),
        ("/codat/companies?page=0", 400, "page"),
        ("/codat/companies?pageSize=5001", 400, "pageSize"),
        (f"{C1}/latest/status", 404, ""),
        (f"{C1}/nope/status", 404, "not found"),
        (f"{C1}/nope/transactions", 404, "not found"),
        ("/codat/nothing", 404, "Not found"),
        ("//codat//nothing", 404, "Not found"),
    ],
)
def test_errors_have_codats_format(client: TestClient, path: str, status: int, error: str) -> None:
    """Its SDKs read nothing else, and do not know 422."""
    answer = client.get(f"http://testserver{path}")
    body = answer.json()
    assert (answer.status_code, body["statusCode"], body["canBeRetried"]) == (
        status, status, "False",
    )  # fmt: skip
    assert error in body["error"]
    assert len(body["correlationId"]) == 32
