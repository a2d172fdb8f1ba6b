"""Codat's own paths: its shapes, its paging, its errors, its ways to sign in."""

from base64 import b64encode

import pytest
from fastapi.testclient import TestClient

from app.domain.models import Item
from tests.web.shelf import KEY, T0, Shelf, after, done_item, failed_item

C1 = "/codat/companies/c1/sync/expenses/syncs"


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "told",
    [
        f"Bearer {KEY}",
        basic(KEY),
        basic(f"{KEY}:"),
        basic(f"user:{KEY}"),
        f"basic {basic(KEY)[6:]}",
    ],
)
def test_a_key_is_taken_as_codats_sdks_send_it(client: TestClient, told: str) -> None:
    """Basic with the key in base64, with or without a colon, or Bearer."""
    assert client.get("/codat/companies", headers={"Authorization": told}).status_code == 200


@pytest.mark.parametrize(
    "told", ["", "Basic", "Basic ?", basic("wrong"), basic(""), f"Basic {KEY}"]
)
def test_a_wrong_key_is_codats_error(client: TestClient, told: str) -> None:
    """In Codat's shape."""
    answer = client.get("/codat/companies", headers={"Authorization": told})
    assert answer.status_code == 401
    assert answer.json()["statusCode"] == 401
    assert "Basic" in answer.headers["www-authenticate"]


def test_a_status_has_codats_fields(shelf: Shelf, client: TestClient) -> None:
    """One, the latest, the last successful, the list: the same shape."""
    shelf.company("c1")
    shelf.done("s1", at=T0, status="Complete", data_pushed=True, error_message="")
    shelf.failed("s2", at=after(hours=1))
    told = client.get(f"{C1}/s1/status").json()
    assert told == {
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
    assert client.get(f"{C1}/lastSuccessful/status").json() == told
    assert client.get(f"{C1}/latest/status").json()["syncId"] == "s2"
    assert [each["syncId"] for each in client.get(f"{C1}/list/status").json()] == ["s2", "s1"]


def test_freshness_is_in_the_headers(shelf: Shelf, client: TestClient) -> None:
    """Codat's models hide fields they do not know."""
    shelf.done("s1")
    shelf.sync("s2", at=after(hours=1))
    asked = client.get(f"{C1}/s1/status").headers
    assert asked["last-modified"] == "Thu, 01 Jan 2026 09:00:00 GMT"
    assert int(asked["age"]) >= 0
    assert "age" not in client.get(f"{C1}/s2/status").headers


def test_a_company_without_syncs_has_an_empty_list(shelf: Shelf, client: TestClient) -> None:
    """A company nobody spoke of is 404."""
    shelf.company("c1")
    answer = client.get(f"{C1}/list/status")
    assert (answer.status_code, answer.json()) == (200, [])
    assert "last-modified" not in answer.headers


def test_transactions_page_by_number(shelf: Shelf, client: TestClient) -> None:
    """With `_links` that always hold self and current."""
    shelf.failed(items=tuple(failed_item(f"t{n}") for n in range(5)))
    pages = [client.get(f"{C1}/s1/transactions?page={n}&pageSize=2").json() for n in (1, 2, 3, 4)]
    assert [[row["transactionId"] for row in page["results"]] for page in pages] == [
        ["t0", "t1"],
        ["t2", "t3"],
        ["t4"],
        [],
    ]
    assert {page["totalResults"] for page in pages} == {5}
    assert [set(page["_links"]) - {"self", "current"} for page in pages] == [
        {"next"},
        {"next", "previous"},
        {"previous"},
        {"previous"},
    ]


def test_words_codats_sdks_refuse_are_mapped_and_kept(shelf: Shelf, client: TestClient) -> None:
    """One unknown word would cost them the whole page."""
    rows = (
        Item("t1", "Failed", "Insufficient funds", "expense"),
        Item("t2", "Brewing", None, "teapots"),
        Item("t3", None, None, None),
    )
    shelf.failed(items=rows)
    told = client.get(f"{C1}/s1/transactions").json()["results"]
    assert [(row.get("status"), row.get("integrationType")) for row in told] == [
        ("PushError", "expenses"),
        ("Unknown", None),
        (None, None),
    ]
    assert (told[0]["originalStatus"], told[0]["originalIntegrationType"]) == ("Failed", "expense")


def test_one_transaction_is_an_array(shelf: Shelf, client: TestClient) -> None:
    """One row per integration type; 404 when there is none."""
    shelf.failed(items=(failed_item(), done_item()))
    assert len(client.get(f"{C1}/s1/transactions/t1").json()) == 2
    assert client.get(f"{C1}/s1/transactions/t9").json()["statusCode"] == 404


def test_a_list_that_is_not_known_is_not_shown_as_empty(shelf: Shelf, client: TestClient) -> None:
    """409 until it has been read; an empty list that was read is empty."""
    shelf.failed("s1", items=None)
    shelf.sync("s2", code=2040, items=())
    assert client.get(f"{C1}/s1/transactions").status_code == 409
    assert client.get(f"{C1}/s1/transactions/t1").status_code == 409
    assert client.get(f"{C1}/s2/transactions").json()["results"] == []


def test_companies_page_and_always_have_a_name(shelf: Shelf, client: TestClient) -> None:
    """The SDKs want id, name and redirect."""
    for company_id, name in (("a", "Ant"), ("b", None), ("c/1", "Sea")):
        shelf.company(company_id, name)
    shelf.done("s1", "a")
    first = client.get("/codat/companies?page=1&pageSize=2&query=x&orderBy=y").json()
    assert first["totalResults"] == 3
    assert [(each["id"], each["name"]) for each in first["results"]] == [("a", "Ant"), ("b", "b")]
    assert first["results"][0]["lastSync"] == "2026-01-01T09:00:00Z"
    second = client.get("/codat/companies?page=2&pageSize=2").json()
    assert second["results"][0]["redirect"] == "https://link.codat.io/company/c%2F1"


def test_doubled_and_encoded_slashes_are_understood(shelf: Shelf, client: TestClient) -> None:
    """A server URL with a trailing slash doubles one; ids are fully encoded."""
    shelf.done("s/1", "c/1", items=(done_item("t/1"),))
    path = "//codat//companies/c%2F1/sync/expenses/syncs/s%2F1"
    assert client.get(f"http://testserver{path}/status").json()["syncId"] == "s/1"
    assert client.get(f"http://testserver{path}/transactions/t%2F1").status_code == 200
    links = client.get(f"http://testserver{path}/transactions").json()["_links"]
    assert links["self"]["href"] == path[7:].replace("//", "/") + "/transactions"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/codat/companies?page=0", 400),
        ("/codat/companies?pageSize=5001", 400),
        ("/codat/companies?page=99999999999999999999", 400),
        (f"{C1}/latest/status", 404),
        (f"{C1}/list/status", 404),
        (f"{C1}/nope/status", 404),
        (f"{C1}/nope/transactions", 404),
        ("/codat/nothing", 404),
        ("//codat//nothing", 404),
    ],
)
def test_errors_are_codats(client: TestClient, path: str, status: int) -> None:
    """Its SDKs read nothing else."""
    answer = client.get(f"http://testserver{path}")
    assert answer.status_code == status
    assert answer.json()["statusCode"] == status
    assert len(answer.json()["correlationId"]) == 32
