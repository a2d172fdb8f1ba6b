"""Limits, faults and counters at the API's gate."""

import asyncio
import json
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from .stage import Stage, staged

pytestmark = pytest.mark.anyio


async def large_sync(stage: Stage, rows: int = 25) -> str:
    """The path of a sync's transactions."""
    company = await stage.company()
    items = [{"transactionId": f"t-{n:03}", "status": "Completed"} for n in range(rows)]
    sync = (await stage.sync(company, items=items))["sync_id"]
    return f"/companies/{company}/sync/expenses/syncs/{sync}/transactions"


async def test_over_quota_is_429_until_the_reset() -> None:
    """The gate closes, says for how long, and opens again."""
    async with staged(daily_quota=2) as stage:
        answers = [await stage.get("/companies") for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 429, 429]
        assert int(answers[2].headers["Retry-After"]) > 0
        assert (await stage.order("GET", "/counters"))["while_quota_closed"] == 2
        await stage.order("POST", "/quota/reset")
        assert (await stage.get("/companies")).status_code == 200


async def test_an_exhausted_quota_is_told_and_comes_back_by_itself() -> None:
    """client.rateLimit.reached at once, .reset when the time is over."""
    async with staged(subscriptions=()) as stage:
        await stage.order("POST", "/quota/exhaust", {"reset_after": 0.1})
        assert (await stage.get("/companies")).headers["Retry-After"] == "1"
        await stage.settle()
        assert (await stage.get("/companies")).status_code == 200
        told = await stage.order("GET", "/messages")
        assert [one["event_type"] for one in told] == [
            "client.rateLimit.reached",
            "client.rateLimit.reset",
        ]


async def test_retry_after_can_be_an_http_date() -> None:
    """For the quota by a setting, for a fault by its value."""
    async with staged(daily_quota=1, retry_after_form="date") as stage:
        fault = {"kind": "status", "status": 429, "retry_after": "date:20"}
        await stage.order("POST", "/faults", fault)
        for _ in range(2):
            told = (await stage.get("/companies")).headers["Retry-After"]
            assert parsedate_to_datetime(told).utcoffset() is not None


@pytest.mark.parametrize("status", [401, 402, 403, 404, 409, 429, 500, 503])
async def test_the_next_calls_can_be_made_to_fail(status: int) -> None:
    """As many calls as asked, of the path asked; the body's code may differ from HTTP's."""
    async with staged() as stage:
        fault = {"kind": "status", "status": status, "path": "/companies/", "times": 2}
        await stage.order("POST", "/faults", {**fault, "retry_after": 7})
        company = await stage.company()
        assert (await stage.get("/companies")).status_code == 200
        answers = [await stage.get(f"/companies/{company}") for _ in range(3)]
        assert [one.status_code for one in answers] == [status, status, 200]
        assert answers[0].headers["Retry-After"] == "7"
        assert answers[0].json()["statusCode"] == {402: 429, 503: 500}.get(status, status)


async def test_faults_can_wait_have_chances_and_be_cleared() -> None:
    """`skip` lets calls pass, a probability hits some, clearing ends it all."""
    async with staged(seed=3) as stage:
        await stage.order("POST", "/faults", {"kind": "status", "skip": 1})
        assert [(await stage.get("/companies")).status_code for _ in range(3)] == [200, 503, 200]
        chance = {"kind": "status", "probability": 0.5, "times": None, "call": "companies"}
        await stage.order("POST", "/faults", chance)
        statuses = [(await stage.get("/companies")).status_code for _ in range(40)]
        assert {200, 503} == set(statuses)
        assert (await stage.order("DELETE", "/faults")) == {"cleared": 2}
        assert (await stage.get("/companies")).status_code == 200


async def test_a_body_can_be_cut() -> None:
    """200 with half the JSON."""
    async with staged() as stage:
        await stage.order("POST", "/faults", {"kind": "truncated_body"})
        answer = await stage.get("/companies")
        with pytest.raises(json.JSONDecodeError):
            answer.json()
        assert answer.status_code == 200


async def test_a_connection_can_be_dropped_and_an_answer_held() -> None:
    """The caller sees a broken connection, or waits."""
    async with staged() as stage:
        await stage.order("POST", "/faults", {"kind": "drop"})
        with pytest.raises(httpx.TransportError):
            await stage.get("/companies")
        await stage.order("POST", "/faults", {"kind": "timeout", "hold_seconds": 30})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stage.get("/companies"), 0.05)


async def page(stage: Stage, path: str, number: int, fault: dict[str, Any]) -> dict[str, Any]:
    """One page of ten rows that meets a fault."""
    await stage.order("POST", "/faults", {"call": "transactions", **fault})
    return dict((await stage.get(path, page=number, pageSize=10)).json())


async def test_lists_can_be_bent() -> None:
    """Rows missing, rows repeated, totals moving, rows still pending."""
    async with staged() as stage:
        path = await large_sync(stage)
        short = await page(stage, path, 1, {"kind": "truncated_list", "rows": 2})
        assert (len(short["results"]), short["totalResults"]) == (8, 25)
        shifted = await page(stage, path, 2, {"kind": "shifting_page"})
        assert shifted["results"][0]["transactionId"] == "t-009"
        moving = await page(stage, path, 1, {"kind": "moving_total", "times": 2, "rows": 3})
        again = (await stage.get(path, page=2, pageSize=10)).json()
        assert [moving["totalResults"], again["totalResults"]] == [28, 31]
        pending = await page(stage, path, 1, {"kind": "pending_left", "rows": 2})
        statuses = [row["status"] for row in pending["results"]]
        assert statuses == ["Pending"] * 2 + ["Completed"] * 8
        honest = (await stage.get(path, pageSize=100)).json()
        assert (len(honest["results"]), honest["totalResults"]) == (25, 25)


async def test_counters_know_kinds_and_how_many_at_once() -> None:
    """Three calls for one company at the same time are a peak of three."""
    async with staged() as stage:
        company = await stage.company()
        hold = {"kind": "timeout", "hold_seconds": 0.05, "times": 3}
        await stage.order("POST", "/faults", hold)
        await asyncio.gather(*(stage.get(f"/companies/{company}") for _ in range(3)))
        await stage.get(f"/companies/{company}/push")
        counters = await stage.order("GET", "/counters")
        assert counters["calls"] == {"company": 3, "push": 1}
        assert counters["peak_in_flight_by_company"] == {company: 3}
        assert counters["minute_peak"] == 4
        assert counters["in_flight"] == 0
        assert (await stage.order("DELETE", "/counters"))["total"] == 0


async def test_too_many_at_once_or_in_a_minute_is_429() -> None:
    """Both limits refuse with a Retry-After."""
    async with staged(concurrency_per_company=1, minute_limit=4) as stage:
        hold = {"kind": "timeout", "hold_seconds": 0.05, "times": 1}
        await stage.order("POST", "/faults", hold)
        both = await asyncio.gather(stage.get("/companies"), stage.get("/companies"))
        assert sorted(one.status_code for one in both) == [200, 429]
        answers = [await stage.get("/companies") for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "60"


async def test_wrong_orders_say_what_is_wrong() -> None:
    """Unknown ids are 404, unknown kinds and members 422."""
    async with staged() as stage:
        company = await stage.company()
        wrong = {
            "/_sim/faults": {"kind": "sunshine"},
            "/_sim/companies": {"name": "X", "colour": "red"},
            "/_sim/syncs": {"company_id": company, "outcome": "sunshine"},
        }
        for path, body in wrong.items():
            assert (await stage.client.post(path, json=body)).status_code == 422
        unknown = await stage.client.post("/_sim/syncs", json={"company_id": "none"})
        assert unknown.status_code == 404
        assert (await stage.client.get("/_sim/syncs/none")).json() == {"error": "unknown: 'none'"}
