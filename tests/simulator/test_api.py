"""Codat's REST API as the simulator answers it."""

from typing import Any

import pytest

from .stage import KEY, authorization, staged

pytestmark = pytest.mark.anyio

STATUS_MEMBERS = {
    "companyId",
    "syncId",
    "syncStatusCode",
    "syncStatus",
    "errorMessage",
    "syncExceptionMessage",
    "syncUtc",
    "dataPushed",
}
ERROR_MEMBERS = {
    "statusCode",
    "service",
    "error",
    "correlationId",
    "canBeRetried",
    "detailedErrorCode",
}
PAGE_MEMBERS = {"results", "pageNumber", "pageSize", "totalResults", "_links"}


def syncs_path(company_id: str) -> str:
    """Where a company's syncs are."""
    return f"/companies/{company_id}/sync/expenses/syncs"


async def test_a_call_without_the_key_is_401_in_codats_form() -> None:
    """Neither a missing nor a wrong key gets in; the body is an ErrorMessage."""
    async with staged() as stage:
        for headers in ({}, authorization("wrong"), {"Authorization": f"Bearer {KEY}"}):
            answer = await stage.client.get("/companies", headers=headers)
            assert answer.status_code == 401
            assert set(answer.json()) == ERROR_MEMBERS
            assert answer.json()["error"] == "Unauthorized"


async def test_every_reply_says_how_much_quota_is_left() -> None:
    """The three headers are there on success and on failure."""
    async with staged(daily_quota=10) as stage:
        good, bad = await stage.get("/companies"), await stage.get("/companies/nobody")
        assert [good.status_code, bad.status_code] == [200, 404]
        assert good.headers["X-Rate-Limit-Limit"] == "10"
        assert good.headers["X-Rate-Limit-Remaining"] == "9"
        assert bad.headers["X-Rate-Limit-Remaining"] == "8"
        assert bad.headers["X-Rate-Limit-Reset"].endswith("T00:00:00Z")


async def test_companies_come_in_pages() -> None:
    """Paging counts from one and links the neighbours."""
    async with staged() as stage:
        for number in range(5):
            await stage.company(name=f"Company {number}")
        page = (await stage.get("/companies", page=2, pageSize=2)).json()
        assert set(page) == PAGE_MEMBERS
        assert [row["name"] for row in page["results"]] == ["Company 2", "Company 3"]
        assert page["totalResults"] == 5
        assert page["_links"]["next"]["href"] == "/companies?page=3&pageSize=2"
        assert page["_links"]["previous"]["href"] == "/companies?page=1&pageSize=2"
        beyond = (await stage.get("/companies", page=9)).json()
        assert beyond["results"] == []


@pytest.mark.parametrize("query", [{"page": 0}, {"page": "x"}, {"pageSize": 5001}])
async def test_paging_that_makes_no_sense_is_400(query: dict[str, Any]) -> None:
    """A page below one, a word, or more than 5000 rows are refused."""
    async with staged() as stage:
        answer = await stage.get("/companies", **query)
        assert answer.status_code == 400


async def test_a_company_has_connections_and_a_configuration() -> None:
    """The accounting connection comes first; the configuration names three accounts."""
    async with staged() as stage:
        company = await stage.company(platform="Sage Intacct")
        shown = (await stage.get(f"/companies/{company}")).json()
        links = (await stage.get(f"/companies/{company}/connections")).json()
        config = (await stage.get(f"/companies/{company}/sync/expenses/config")).json()
        assert links["results"] == shown["dataConnections"]
        assert [one["sourceType"] for one in links["results"]] == ["Accounting", "Expense"]
        assert links["results"][0]["platformName"] == "Sage Intacct"
        assert set(config) == {"bankAccount", "supplier", "customer"}


async def test_a_sync_in_progress_looks_like_codats_sample() -> None:
    """Empty texts are empty, not null, and the time has seven fractional digits."""
    async with staged() as stage:
        company = await stage.company()
        sync = await stage.sync(company)
        status = (await stage.get(f"{syncs_path(company)}/{sync['sync_id']}/status")).json()
        assert set(status) == STATUS_MEMBERS
        assert (status["syncStatusCode"], status["syncStatus"]) == (1000, "Started")
        assert (status["errorMessage"], status["dataPushed"]) == ("", False)
        assert len(status["syncUtc"].split(".")[1]) == len("0797213Z")


async def test_the_four_status_paths_agree() -> None:
    """List is a bare array, latest is the newest, lastSuccessful the newest 2xxx."""
    async with staged() as stage:
        company = await stage.company()
        good = await stage.sync(company, outcome="all_written")
        bad = await stage.sync(company, outcome="write_error")
        base = syncs_path(company)
        listed = (await stage.get(f"{base}/list/status")).json()
        assert [one["syncId"] for one in listed] == [bad["sync_id"], good["sync_id"]]
        assert (await stage.get(f"{base}/latest/status")).json() == bad["status"]
        assert (await stage.get(f"{base}/lastSuccessful/status")).json() == good["status"]
        assert (await stage.get(f"{base}/{bad['sync_id']}/status")).json() == bad["status"]


async def test_what_is_not_there_is_404() -> None:
    """Unknown companies, syncs, transactions and paths, and another company's sync."""
    async with staged() as stage:
        company, other = await stage.company(), await stage.company(name="Old Mill")
        sync = (await stage.sync(other, outcome="all_written"))["sync_id"]
        paths = [
            "/companies/none",
            "/nothing",
            f"{syncs_path(company)}/{sync}/status",
            f"{syncs_path(company)}/latest/status",
            f"{syncs_path(other)}/{sync}/transactions/none",
        ]
        for path in paths:
            answer = await stage.get(path)
            assert answer.status_code == 404, path
            assert set(answer.json()) == ERROR_MEMBERS


async def test_transactions_come_in_pages_with_the_older_links() -> None:
    """250 rows are three pages whose hrefs lack /sync/expenses."""
    async with staged() as stage:
        company = await stage.company()
        rows = [{"transactionId": f"t-{n:03}", "status": "Completed"} for n in range(250)]
        sync = (await stage.sync(company, items=rows))["sync_id"]
        path = f"{syncs_path(company)}/{sync}/transactions"
        pages = [(await stage.get(path, page=n)).json() for n in (1, 2, 3)]
        assert [len(page["results"]) for page in pages] == [100, 100, 50]
        assert {page["totalResults"] for page in pages} == {250}
        old = f"/companies/{company}/syncs/{sync}/transactions"
        assert pages[0]["_links"]["next"]["href"] == f"{old}?page=2&pageSize=100"
        assert pages[0]["_links"]["self"]["href"] == old
        assert "next" not in pages[2]["_links"]
        assert "message" not in pages[0]["results"][0]


async def test_one_transaction_is_an_array_of_its_rows() -> None:
    """Rows of one id, also identical ones, all come; an encoded slash belongs to the id."""
    async with staged() as stage:
        company = await stage.company()
        row = {"transactionId": "card/7 é", "status": "PushError", "message": "closed"}
        feed = {**row, "integrationType": "bankfeeds"}
        sync = (await stage.sync(company, items=[row, feed, feed]))["sync_id"]
        path = f"{syncs_path(company)}/{sync}/transactions/card%2F7%20%C3%A9"
        rows = (await stage.get(path)).json()
        assert [one["integrationType"] for one in rows] == ["expense", "bankfeeds", "bankfeeds"]
        assert {one["transactionId"] for one in rows} == {"card/7 é"}


async def test_a_sync_can_be_initiated_once_at_a_time() -> None:
    """202 with an id, then 409 while it runs, 400 without datasets, 422 unconnected."""
    async with staged() as stage:
        company, loose = await stage.company(), await stage.company(connected=False)
        body = {"datasetIds": ["fd4cc60e-8666-4443-8fad-12c56d7420ee"]}
        first = await stage.post(syncs_path(company), body)
        assert (first.status_code, list(first.json())) == (202, ["syncId"])
        assert (await stage.post(syncs_path(company), body)).status_code == 409
        assert (await stage.post(syncs_path(loose), body)).status_code == 422
        assert (await stage.post(syncs_path("none"), body)).status_code == 404
        wrong = await stage.post(syncs_path(company), {"datasetIds": []})
        assert wrong.status_code == 400
        assert wrong.json()["validation"]["errors"][0]["itemId"] == "datasetIds"


async def test_an_idempotency_key_answers_the_same_sync_again() -> None:
    """The same key with the same body is one sync, with another body 422."""
    async with staged() as stage:
        path = syncs_path(await stage.company())
        key = {"Idempotency-Key": "b9f1ddd8"}
        first = await stage.post(path, {"datasetIds": ["a"]}, **key)
        again = await stage.post(path, {"datasetIds": ["a"]}, **key)
        other = await stage.post(path, {"datasetIds": ["b"]}, **key)
        assert first.json() == again.json()
        assert other.status_code == 422


async def test_push_operations_speak_of_rows_but_not_of_syncs() -> None:
    """One operation per row, with Codat's four statuses."""
    async with staged() as stage:
        company = await stage.company()
        await stage.sync(company, outcome="partly_failed", size=4)
        page = (await stage.get(f"/companies/{company}/push")).json()
        assert {row["status"] for row in page["results"]} == {"Success", "Failed"}
        assert all("syncId" not in row for row in page["results"])


async def test_consumers_are_listed_and_created_without_their_secrets() -> None:
    """GET and POST /webhooks show id, url, event types and whether it is disabled."""
    async with staged() as stage:
        made = await stage.post("/webhooks", {"url": "http://x.test", "eventTypes": ["SyncFailed"]})
        listed = (await stage.get("/webhooks")).json()["results"]
        assert made.status_code == 201
        assert listed[1] == made.json()
        assert set(listed[1]) == {"id", "url", "eventTypes", "disabled"}


async def test_the_same_seed_makes_the_same_world() -> None:
    """Ids and rows repeat from run to run."""

    async def world(seed: int) -> Any:
        async with staged(seed=seed) as stage:
            sync = await stage.sync(await stage.company(), outcome="partly_failed", size=6)
            return sync["sync_id"], sync["items"]

    assert await world(7) == await world(7)
    assert await world(7) != await world(8)
