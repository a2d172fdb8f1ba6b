"""The webhook sender: shapes, signatures, retries, faults."""

import pytest

from simulator import Subscription

from .harness import FAST, LEGACY, NEW, OTHER_SECRET, SECRET, URL, Receiver, simulated

pytestmark = pytest.mark.anyio


async def test_a_failed_sync_is_announced_in_the_legacy_shape() -> None:
    """Sync Started, then Sync Failed with a failure stage, signed, with svix's headers."""
    async with simulated() as harness:
        sync = await harness.sync(outcome="write_error")
        bodies = {sent.json()["RuleType"]: sent.json() for sent in await harness.settle()}
        assert set(bodies) == {"Sync Failed", "Sync Started"}
        assert bodies["Sync Failed"]["CompanyId"] == sync["company_id"]
        assert bodies["Sync Failed"]["Data"] == {
            "syncId": sync["sync_id"],
            "syncType": "Expense",
            "FailureStage": "Pushing",
        }
        for delivery in harness.receiver.deliveries:
            delivery.verify()
            assert delivery.headers["content-type"] == "application/json"
            assert delivery.headers["user-agent"].startswith("Svix-Webhooks/")


async def test_two_subscriptions_get_one_message_each() -> None:
    """Legacy and new are two messages with two ids and two secrets; the new one has the rows."""
    both = (Subscription(URL, SECRET, LEGACY), Subscription(URL, OTHER_SECRET, NEW))
    async with simulated(subscriptions=both) as harness:
        sync = await harness.sync(outcome="validation_error", size=1, tell_start=False)
        legacy, new = sorted(await harness.settle(), key=lambda sent: b"eventType" in sent.body)
        legacy.verify(SECRET)
        new.verify(OTHER_SECRET)
        assert legacy.message_id != new.message_id
        assert new.json()["eventType"] == "expenses.sync.unsuccessful"
        payload = new.json()["payload"]
        assert payload["referenceCompany"]["name"] == "Harbour Lane Bakery"
        assert payload["syncId"] == sync["sync_id"]
        (row,), (item,) = payload["transactions"], sync["items"]
        assert (row["status"], row["errorMessage"]) == ("Failed", item["message"])


async def test_the_quota_and_unknown_shapes_can_be_sent() -> None:
    """Rate-limit events, a bare status, and a new body without transactions."""
    async with simulated(subscriptions=(Subscription(URL, SECRET),)) as harness:
        await harness.control("POST", "/quota/exhaust", {})
        await harness.control("POST", "/quota/reset", {})
        deliveries = await harness.settle()
        types = {delivery.json()["eventType"] for delivery in deliveries}
        assert types == {"client.rateLimit.reached", "client.rateLimit.reset"}
        sync_id = await harness.silent_sync()
        assert len(deliveries) == 2
        await harness.send(sync_ids=[sync_id], shapes=["status"])
        assert deliveries[-1].json()["syncStatusCode"] == 5130
        await harness.send(sync_ids=[sync_id], shapes=["new-without-transactions"])
        assert "transactions" not in deliveries[-1].json()["payload"]


async def test_copies_have_one_id_and_the_requested_header_family() -> None:
    """A duplicate is the same message; only one family of signature headers is sent."""
    async with simulated() as harness:
        sync_id = await harness.silent_sync()
        deliveries = await harness.send(sync_ids=[sync_id], copies=3, family="svix")
        assert len({delivery.message_id for delivery in deliveries}) == 1
        deliveries[-1].verify()
        assert not [name for name in deliveries[-1].headers if name.startswith("webhook-")]
        await harness.send(sync_ids=[sync_id, sync_id], event="completed", shuffle=True)
        assert len({delivery.message_id for delivery in deliveries}) == 3
        assert not [name for name in deliveries[-1].headers if name.startswith("svix-")]


async def test_a_failed_delivery_is_retried_with_the_same_id() -> None:
    """Up to eight times with Codat's gaps and 20% jitter; a redirect is a failure, too."""
    receiver = Receiver(statuses=[307, 404], always=500)
    async with simulated(receiver, speed=FAST) as harness:
        deliveries = await harness.send(sync_ids=[await harness.silent_sync()])
        for delivery in deliveries:
            delivery.verify()
        assert len({delivery.message_id for delivery in deliveries}) == 1
        attempts = await harness.attempts()
        assert [attempt["status"] for attempt in attempts] == [307, 404, *[500] * 6]
        *gaps, last = [attempt["next_gap"] for attempt in attempts]
        scheduled = (5, 300, 1800, 7200, 18_000, 36_000, 36_000)
        for gap, expected in zip(gaps, scheduled, strict=True):
            assert 0.8 * expected <= gap <= 1.2 * expected
        assert last is None


@pytest.mark.parametrize(
    ("status", "retry_after", "lowest", "highest"),
    [(503, "1", 4, 6), (503, "8", 8, 8), (503, "9000", 10, 10), (429, "", 60, 60)],
)
async def test_retry_after_is_respected_within_limits(
    status: int, retry_after: str, lowest: float, highest: float
) -> None:
    """Between once and twice the scheduled gap; a 429 waits at least a minute."""
    receiver = Receiver(statuses=[status], retry_after=retry_after)
    async with simulated(receiver, speed=FAST) as harness:
        await harness.send(sync_ids=[await harness.silent_sync()])
        assert lowest <= (await harness.attempts())[0]["next_gap"] <= highest


async def test_a_slow_receiver_is_a_timeout() -> None:
    """No response in time has a result of its own and no status."""
    receiver = Receiver(slow_first=True)
    async with simulated(receiver, speed=FAST, timeout_seconds=0.05) as harness:
        await harness.send(sync_ids=[await harness.silent_sync()])
        first, second = await harness.attempts()
        assert (first["result"], first["status"]) == ("timeout", None)
        assert first["next_gap"] >= 60
        assert second["result"] == "ok"


async def test_delivery_faults_duplicate_lose_and_reorder() -> None:
    """Random, but the same for the same seed."""
    async with simulated(seed=5, speed=100.0) as harness:
        sync_id = await harness.silent_sync()
        faults = {"duplicate": 0.4, "lose": 0.3, "delay": 20}
        assert await harness.control("PUT", "/weather", faults) == faults
        sent = await harness.control("POST", "/events", {"sync_ids": [sync_id] * 40})
        received = [delivery.message_id for delivery in await harness.settle()]
        assert {"lost", "ok"} == {attempt["result"] for attempt in await harness.attempts()}
        assert len(set(received)) < min(len(received), 40)
        order = list(dict.fromkeys(received))
        assert order != [name for name in sent["message_ids"] if name in order]
