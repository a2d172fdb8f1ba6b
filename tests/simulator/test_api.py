"""Codat's REST API as the simulator responds: shapes, errors, limits, faults and counters."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from .harness import KEY, authorization, simulated

pytestmark = pytest.mark.anyio

STATUS_MEMBERS = """companyId syncId syncStatusCode syncStatus errorMessage
    syncExceptionMessage syncUtc dataPushed"""
ERROR_MEMBERS = "statusCode service error correlationId canBeRetried detailedErrorCode"
PAGE_MEMBERS = "results pageNumber pageSize totalResults _links"


def syncs_path(company_id: str) -> str:
    return f"/companies/{company_id}/sync/expenses/syncs"


async def test_a_call_without_the_key_is_401() -> None:
    """Neither a missing nor a wrong key is accepted; the body is an ErrorMessage."""
    async with simulated() as harness:
        for headers in ({}, authorization("wrong"), {"Authorization": f"Bearer {KEY}"}):
            response = await harness.client.get("/companies", headers=headers)
            assert response.status_code == 401
            assert set(response.json()) == set(ERROR_MEMBERS.split())
            assert response.json()["error"] == "Unauthorized"


async def test_companies_are_paged() -> None:
    """Pages count from one and link their neighbors; beyond the end empty, invalid ones 400."""
    async with simulated() as harness:
        for number in range(5):
            await harness.company(name=f"Company {number}")
        page = (await harness.get("/companies", page=2, pageSize=2)).json()
        assert set(page) == set(PAGE_MEMBERS.split())
        assert [row["name"] for row in page["results"]] == ["Company 2", "Company 3"]
        assert page["totalResults"] == 5
        assert page["_links"]["next"]["href"] == "/companies?page=3&pageSize=2"
        assert page["_links"]["previous"]["href"] == "/companies?page=1&pageSize=2"
        assert (await harness.get("/companies", page=9)).json()["results"] == []
        for query in ({"page": 0}, {"page": -1}, {"pageSize": 5001}):
            assert (await harness.get("/companies", **query)).status_code == 400


async def test_a_company_has_connections_and_a_configuration() -> None:
    """The accounting connection comes first; an id may contain an encoded slash."""
    async with simulated() as harness:
        await harness.company(platform="Sage Intacct", company_id="card/7 é")
        path = "/companies/card%2F7%20%C3%A9"
        rows = (await harness.get(f"{path}/connections")).json()["results"]
        config = (await harness.get(f"{path}/sync/expenses/config")).json()
        (company,) = (await harness.get("/companies")).json()["results"]
        assert rows == company["dataConnections"]
        assert [row["sourceType"] for row in rows] == ["Accounting", "Expense"]
        assert rows[0]["platformName"] == "Sage Intacct"
        assert set(config) == {"bankAccount", "supplier", "customer"}


async def test_statuses_have_the_shape_of_codats_samples() -> None:
    """Empty messages are not null, times have seven fractional digits, the list is an array."""
    async with simulated() as harness:
        company = await harness.company()
        running = await harness.sync(company)
        failed = await harness.sync(company, outcome="write_error")
        path = syncs_path(company)
        status = (await harness.get(f"{path}/{running['sync_id']}/status")).json()
        assert set(status) == set(STATUS_MEMBERS.split())
        assert (status["syncStatusCode"], status["syncStatus"]) == (1000, "Started")
        assert (status["errorMessage"], status["dataPushed"]) == ("", False)
        assert len(status["syncUtc"].split(".")[1]) == len("0797213Z")
        listed = (await harness.get(f"{path}/list/status")).json()
        assert listed == [failed["status"], running["status"]]


async def test_unknown_ids_are_404() -> None:
    """Companies, paths, transactions, and the sync of another company."""
    async with simulated() as harness:
        company, other = await harness.company(), await harness.company(name="Old Mill")
        sync = (await harness.sync(other, outcome="all_written"))["sync_id"]
        paths = [
            "/companies/none/connections",
            "/nothing",
            f"{syncs_path(company)}/{sync}/status",
            f"{syncs_path(other)}/{sync}/transactions/none",
        ]
        for path in paths:
            response = await harness.get(path)
            assert response.status_code == 404, path
            assert set(response.json()) == set(ERROR_MEMBERS.split())


async def test_transactions_are_paged_with_the_older_links() -> None:
    """250 rows are three pages whose hrefs lack /sync/expenses."""
    async with simulated() as harness:
        company = await harness.company()
        sync = await harness.sync(company, outcome="in_progress", size=250)
        path = f"{syncs_path(company)}/{sync['sync_id']}/transactions"
        pages = [(await harness.get(path, page=n)).json() for n in (1, 2, 3)]
        assert [len(page["results"]) for page in pages] == [100, 100, 50]
        assert {page["totalResults"] for page in pages} == {250}
        old_path = path.replace("/sync/expenses", "")
        assert pages[0]["_links"]["next"]["href"] == f"{old_path}?page=2&pageSize=100"
        assert "next" not in pages[2]["_links"]
        assert "message" not in pages[0]["results"][0]


async def test_one_transaction_is_an_array_of_its_rows() -> None:
    """All rows with the id are in it, also equal ones."""
    async with simulated() as harness:
        company = await harness.company()
        sync = await harness.sync(company, outcome="write_error", size=30)
        ids = [row["transactionId"] for row in sync["items"]]
        repeated = next(name for name in ids if ids.count(name) == 2)
        path = f"{syncs_path(company)}/{sync['sync_id']}/transactions/{repeated}"
        rows = (await harness.get(path)).json()
        assert rows == [row for row in sync["items"] if row["transactionId"] == repeated]


async def test_one_sync_at_a_time_can_be_initiated() -> None:
    """202 with an id, then 409; the same with an idempotency key; 400 without datasets."""
    async with simulated() as harness:
        path = syncs_path(await harness.company())
        body, key = {"datasetIds": ["a"]}, {"Idempotency-Key": "b9f1ddd8"}
        first = await harness.post(path, body, **key)
        assert (first.status_code, list(first.json())) == (202, ["syncId"])
        assert (await harness.post(path, body, **key)).json() == first.json()
        assert (await harness.post(path, {"datasetIds": ["b"]}, **key)).status_code == 422
        assert (await harness.post(path, body)).status_code == 409
        assert (await harness.post(syncs_path("none"), body)).status_code == 404
        assert (await harness.post(path, {"datasetIds": []})).status_code == 400


async def test_webhook_consumers_are_listed_without_secrets() -> None:
    """GET /webhooks shows id, URL, event types and whether it is disabled."""
    async with simulated() as harness:
        body = {"url": "http://x.test", "event_types": ["SyncFailed"]}
        added = await harness.control("POST", "/subscriptions", body)
        listed = (await harness.get("/webhooks")).json()["results"]
        assert added["secret"].startswith("whsec_")
        assert listed[1] == {
            "id": added["subscription_id"],
            "url": "http://x.test",
            "eventTypes": ["SyncFailed"],
            "disabled": False,
        }


async def test_over_quota_is_429_until_the_reset() -> None:
    """Successes and errors count; every response has the rate-limit headers."""
    async with simulated(daily_quota=2) as harness:
        paths = ("/companies", "/none", "/companies")
        responses = [await harness.get(path) for path in paths]
        assert [response.status_code for response in responses] == [200, 404, 429]
        for response, left in zip(responses, "100", strict=True):
            assert response.headers["X-Rate-Limit-Limit"] == "2"
            assert response.headers["X-Rate-Limit-Remaining"] == left
            assert response.headers["X-Rate-Limit-Reset"].endswith("T00:00:00Z")
        assert int(responses[2].headers["Retry-After"]) > 0
        for path, status in (("reset", 200), ("exhaust", 429), ("reset", 200)):
            await harness.control("POST", f"/quota/{path}", {})
            assert (await harness.get("/companies")).status_code == status


async def test_too_many_calls_are_429() -> None:
    """At the same time, or within a minute; both with a Retry-After."""
    async with simulated(concurrency_per_company=1, minute_limit=4) as harness:
        await harness.control("POST", "/faults", {"kind": "timeout", "hold_seconds": 0.05})
        both = await asyncio.gather(harness.get("/companies"), harness.get("/companies"))
        assert sorted(response.status_code for response in both) == [200, 429]
        responses = [await harness.get("/companies") for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert responses[2].headers["Retry-After"] == "60"


@pytest.mark.parametrize("status", [401, 402, 403, 404, 409, 429, 500, 503])
async def test_calls_can_be_made_to_fail(status: int) -> None:
    """So many calls of one kind; the code in the body may differ from the HTTP status."""
    async with simulated() as harness:
        fault = {"kind": "status", "status": status, "call": "connections", "times": 2}
        await harness.control("POST", "/faults", {**fault, "retry_after": 7})
        company = await harness.company()
        assert (await harness.get("/companies")).status_code == 200
        responses = [await harness.get(f"/companies/{company}/connections") for _ in range(3)]
        assert [response.status_code for response in responses] == [status, status, 200]
        assert responses[0].headers["Retry-After"] == "7"
        assert responses[0].json()["statusCode"] == {402: 429, 503: 500}.get(status, status)


async def test_responses_can_be_truncated_dropped_and_delayed() -> None:
    """Half of the JSON, a broken connection, or no response in time."""
    async with simulated() as harness:
        await harness.control("POST", "/faults", {"kind": "truncated_body"})
        response = await harness.get("/companies")
        with pytest.raises(json.JSONDecodeError):
            response.json()
        assert response.status_code == 200
        drop = {"kind": "drop", "times": None}
        await harness.control("POST", "/faults", drop | {"probability": 0})
        await harness.control("POST", "/faults", drop)
        with pytest.raises(httpx.TransportError):
            await harness.get("/companies")
        assert await harness.control("DELETE", "/faults") == {"cleared": 3}
        await harness.control("POST", "/faults", {"kind": "timeout", "hold_seconds": 30})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(harness.get("/companies"), 0.05)


async def test_lists_can_be_distorted() -> None:
    """Missing rows, repeated rows, changing totals, rows that are still pending."""
    async with simulated() as harness:
        company = await harness.company()
        sync = await harness.sync(company, outcome="validation_error", size=25)
        path = f"{syncs_path(company)}/{sync['sync_id']}/transactions"
        rows = sync["items"]

        async def page(number: int, **fault: Any) -> Any:
            await harness.control("POST", "/faults", {"call": "transactions", **fault})
            return (await harness.get(path, page=number, pageSize=10)).json()

        short = await page(1, kind="truncated_list")
        assert (short["results"], short["totalResults"]) == (rows[:9], len(rows))
        assert (await page(2, kind="shifting_page"))["results"] == rows[9:19]
        moving = [await page(1, kind="moving_total", times=2)]
        moving.append((await harness.get(path)).json())
        assert [page["totalResults"] - len(rows) for page in moving] == [1, 2]
        pending = (await page(1, kind="pending_left"))["results"]
        assert (pending[0]["status"], pending[1:]) == ("Pending", rows[1:10])
        assert (await harness.get(path)).json()["results"] == rows


async def test_counters_count_kinds_of_calls_and_concurrent_calls() -> None:
    """Three calls for one company at the same time are a peak of three."""
    async with simulated() as harness:
        company = await harness.company()
        hold = {"kind": "timeout", "hold_seconds": 0.05, "times": 3}
        await harness.control("POST", "/faults", hold)
        path = f"/companies/{company}/connections"
        await asyncio.gather(*(harness.get(path) for _ in range(3)))
        await harness.get("/webhooks")
        counters = await harness.control("GET", "/counters")
        assert counters == {
            "calls": {"connections": 3, "webhooks": 1},
            "total": 4,
            "in_flight": 0,
            "peak_in_flight_by_company": {company: 3},
            "minute_peak": 4,
        }


async def test_invalid_control_calls_are_explained() -> None:
    """Unknown ids are 404; unknown outcomes, faults, members and bad secrets are 422."""
    async with simulated() as harness:
        company = await harness.company()
        invalid = (
            ("/faults", {"kind": "sunshine"}),
            ("/companies", {"name": "X", "color": "red"}),
            ("/syncs", {"company_id": company, "outcome": "sunshine"}),
            ("/subscriptions", {"url": "http://x.test", "secret": "whsec_!!"}),
            ("/events", {"sync_ids": [await harness.silent_sync()], "event": "started",
                         "shapes": ["new"]}),
        )  # fmt: skip
        for path, body in invalid:
            response = await harness.client.post(f"/_sim{path}", json=body)
            assert response.status_code == 422, path
        unknown = await harness.client.post("/_sim/syncs", json={"company_id": "none"})
        assert (unknown.status_code, unknown.json()) == (
            404,
            {"error": "No company was found with ID none"},
        )


async def test_the_same_seed_generates_the_same_data() -> None:
    """Ids and rows repeat from run to run."""

    async def generate(seed: int) -> Any:
        async with simulated(seed=seed) as harness:
            sync = await harness.sync(outcome="partly_failed", size=6)
            return sync["sync_id"], sync["items"]

    assert await generate(7) == await generate(7)
    assert await generate(7) != await generate(8)
