"""The signed sender: shapes, signatures, retries, resends, recovery."""

import asyncio
import json
import random
from typing import Any

import pytest
from svix.webhooks import WebhookVerificationError

from simulator import SubscriptionSettings
from simulator.schedule import GAPS, gap_before, retry_after_seconds

from .stage import (
    FAST,
    LEGACY,
    OTHER,
    SECRET,
    URL,
    Receiver,
    silent_sync,
    staged,
    subscription,
    told,
)

pytestmark = pytest.mark.anyio

NEW = ("expenses.sync.successful", "expenses.sync.unsuccessful")


async def test_a_failed_sync_is_told_in_the_legacy_shape() -> None:
    """Sync Started, then Sync Failed with a failure stage, signed and typed."""
    async with staged() as stage:
        sync = await stage.sync(await stage.company(), outcome="write_error")
        await stage.settle()
        bodies = [json.loads(one.body) for one in stage.receiver.got]
        assert sorted(body["RuleType"] for body in bodies) == ["Sync Failed", "Sync Started"]
        failed = next(body for body in bodies if body["RuleType"] == "Sync Failed")
        assert failed["CompanyId"] == sync["company_id"]
        assert failed["Data"] == {
            "syncId": sync["sync_id"],
            "syncType": "Expense",
            "FailureStage": "Pushing",
        }
        for one in stage.receiver.got:
            one.verify()
            assert one.headers["content-type"] == "application/json"
            assert one.headers["user-agent"].startswith("Svix-Webhooks/")


async def test_the_new_shape_carries_its_rows() -> None:
    """Failing rows are `Failed` there, with their message; the company is named."""
    new = (SubscriptionSettings(URL, SECRET, NEW),)
    async with staged(subscriptions=new) as stage:
        sync = await stage.sync(await stage.company(), outcome="validation_error", size=1)
        await stage.settle()
        (body,) = [json.loads(one.body) for one in stage.receiver.got]
        assert body["eventType"] == "expenses.sync.unsuccessful"
        assert body["payload"]["referenceCompany"]["name"] == "Harbour Lane Bakery"
        assert body["payload"]["syncId"] == sync["sync_id"]
        (row,) = body["payload"]["transactions"]
        assert row["status"] == "Failed"
        assert row["errorMessage"] == sync["items"][0]["message"]


async def test_two_subscriptions_tell_one_sync_twice() -> None:
    """Legacy and new are two messages with two ids and two secrets."""
    both = (SubscriptionSettings(URL, SECRET, LEGACY), SubscriptionSettings(URL, OTHER, NEW))
    async with staged(subscriptions=both) as stage:
        await stage.sync(await stage.company(), outcome="all_written", tell_start=False)
        await stage.settle()
        legacy, new = sorted(stage.receiver.got, key=lambda one: b"eventType" in one.body)
        legacy.verify(SECRET)
        new.verify(OTHER)
        assert legacy.message_id != new.message_id


@pytest.mark.parametrize(
    ("shape", "key", "value"),
    [
        ("ruletype-without-space", "RuleType", "SyncFailed"),
        ("type-key", "Type", "Sync Failed"),
        ("camel", "type", "Sync Failed"),
        ("status", "syncStatusCode", 5130),
    ],
)
async def test_other_spellings_can_be_ordered(shape: str, key: str, value: object) -> None:
    """Every documented variation of a legacy body."""
    async with staged() as stage:
        sync = await silent_sync(stage)
        (body,) = await told(stage, sync_ids=[sync], shapes=[shape])
        assert body[key] == value


async def test_a_new_body_can_leave_its_rows_out() -> None:
    """Absent is not empty."""
    async with staged() as stage:
        sync = await silent_sync(stage)
        (body,) = await told(stage, sync_ids=[sync], shapes=["new-without-transactions"])
        assert "transactions" not in body["payload"]


async def test_either_header_family_can_be_ordered() -> None:
    """Exactly one family comes along, and it verifies."""
    async with staged() as stage:
        sync = await silent_sync(stage)
        for family, other in (("svix", "webhook"), ("webhook", "svix")):
            await told(stage, sync_ids=[sync], family=family)
            last = stage.receiver.got[-1]
            last.verify()
            assert f"{family}-signature" in last.headers
            assert f"{other}-signature" not in last.headers


async def test_copies_share_an_id_and_times_do_not() -> None:
    """A duplicate is the same message; telling anew is another one."""
    async with staged() as stage:
        sync = await silent_sync(stage)
        await told(stage, sync_ids=[sync], copies=3)
        assert len({one.message_id for one in stage.receiver.got}) == 1
        await told(stage, sync_ids=[sync], times=3, shuffle=True)
        assert len({one.message_id for one in stage.receiver.got}) == 4


async def test_any_body_can_be_sent() -> None:
    """Unknown events, and text that is not JSON, signed all the same."""
    async with staged() as stage:
        await told(stage, body={"type": "hello.world"})
        await stage.order("POST", "/events", {"body": "not { json", "message_id": "msg_mine"})
        await stage.settle()
        last = stage.receiver.got[-1]
        last.verify()
        assert (last.body, last.message_id) == (b"not { json", "msg_mine")


async def test_a_failed_delivery_is_retried_with_the_same_id_signed_anew() -> None:
    """Redirects and errors are failures; each attempt is logged with the gap after it."""
    receiver = Receiver(answers=[307, 500, 404])
    async with staged(receiver, speed=FAST) as stage:
        sync = await silent_sync(stage)
        await told(stage, sync_ids=[sync])
        attempts = await stage.attempts(sync_id=sync)
        assert [one["status"] for one in attempts] == [307, 500, 404, 204]
        assert [one["number"] for one in attempts] == [1, 2, 3, 4]
        assert len({one.message_id for one in receiver.got}) == 1
        for one in receiver.got:
            one.verify()
        assert 4 <= attempts[0]["next_gap"] <= 6


async def test_a_hopeless_delivery_ends_after_eight_attempts() -> None:
    """Then nothing more is scheduled."""
    async with staged(Receiver(always=500), speed=FAST) as stage:
        sync = await silent_sync(stage)
        await told(stage, sync_ids=[sync])
        attempts = await stage.attempts()
        assert len(attempts) == len(GAPS) == 8
        assert attempts[-1]["next_gap"] is None


async def test_a_slow_receiver_is_a_time_out() -> None:
    """No answer in time is a failure of its own kind."""

    class Slow(Receiver):
        async def __call__(self, *args: Any) -> None:
            self.got.append(None)  # type: ignore[arg-type]  # only counted
            if len(self.got) == 1:
                await asyncio.sleep(5)
            self.got.pop()
            await super().__call__(*args)

    async with staged(Slow(), speed=FAST, timeout_seconds=0.05) as stage:
        sync = await silent_sync(stage)
        await stage.order("POST", "/events", {"sync_ids": [sync]})
        await stage.simulator.box.sender.settled(0.3)
        first = (await stage.attempts())[0]
        assert (first["result"], first["status"]) == ("timeout", None)
        assert first["next_gap"] >= 60


def test_the_gaps_are_codats_with_a_fifth_of_jitter() -> None:
    """Eight attempts over more than a day, never exactly alike."""
    rng = random.Random(1)
    for attempt, planned in enumerate(GAPS, start=1):
        gaps = [gap_before(attempt, rng) or 0.0 for _ in range(50)]
        assert all(0.8 * planned <= gap <= 1.2 * planned for gap in gaps)
    assert gap_before(9, rng) is None


def test_retry_after_counts_between_one_and_two_gaps() -> None:
    """Less is ignored, more is cut; a 429 slows down to a minute."""
    rng = random.Random(1)
    assert 300 <= (gap_before(3, rng, 503, 1.0) or 0) <= 360
    assert (gap_before(3, rng, 503, 500.0) or 0) == 500
    assert (gap_before(3, rng, 503, 9000.0) or 0) == 600
    assert (gap_before(2, rng, 429) or 0) == 60
    assert retry_after_seconds("120", 0) == 120
    assert retry_after_seconds("Thu, 01 Jan 1970 00:01:00 GMT", 0) == 60
    assert retry_after_seconds("soon", 0) is None


async def test_rotation_signs_with_both_secrets_for_a_while() -> None:
    """Either secret verifies until the old one's time is over."""
    async with staged() as stage:
        sync, consumer = await silent_sync(stage), await subscription(stage)
        for keep, old_holds in ((60, True), (0, False)):
            order = {"secret": OTHER, "keep_seconds": keep}
            await stage.order("POST", f"/subscriptions/{consumer}/rotate", order)
            await told(stage, sync_ids=[sync])
            last = stage.receiver.got[-1]
            last.verify(OTHER)
            if old_holds:
                last.verify(SECRET)
            else:
                with pytest.raises(WebhookVerificationError):
                    last.verify(SECRET)


async def test_bad_weather_duplicates_loses_and_reorders() -> None:
    """By chance, but the same chance for the same seed."""
    async with staged(seed=5, speed=100.0) as stage:
        sync = await silent_sync(stage)
        sky = {"duplicate": 0.4, "lose": 0.3, "delay": 20}
        assert await stage.order("PUT", "/weather", sky) == sky
        await told(stage, sync_ids=[sync], times=40)
        results = [one["result"] for one in await stage.attempts()]
        triggers = {one["trigger"] for one in await stage.attempts()}
        sent = [one["message_id"] for one in await stage.order("GET", "/messages")]
        got = list(dict.fromkeys(one.message_id for one in stage.receiver.got))
        assert {"lost", "ok"} <= set(results)
        assert "duplicate" in triggers
        assert got != [one for one in sent if one in got]


async def test_the_speed_can_be_changed_while_something_waits() -> None:
    """A delay of an hour ends at once when time flies."""
    async with staged() as stage:
        sync = await silent_sync(stage)
        await stage.order("POST", "/events", {"sync_ids": [sync], "delay": 3600})
        assert not await stage.simulator.box.sender.settled(0.02)
        await stage.order("PUT", "/speed", {"speed": FAST})
        await stage.settle()
        assert len(stage.receiver.got) == 1
        assert (await stage.order("GET", "/speed"))["elapsed"] > 3600
