"""Resends, recovery, replay, and consumers that are given up on."""

import pytest

from .stage import FAST, Receiver, silent_sync, staged, subscription, told

pytestmark = pytest.mark.anyio


async def test_a_resend_keeps_its_message_id() -> None:
    """Once more, the same id and body, and no retry when that fails."""
    async with staged(speed=FAST) as stage:
        sync = await silent_sync(stage)
        await told(stage, sync_ids=[sync])
        first = stage.receiver.got[0]
        stage.receiver.answers = [500]
        await stage.order("POST", f"/messages/{first.message_id}/resend")
        await stage.settle()
        last = stage.receiver.got[-1]
        assert (last.message_id, last.body) == (first.message_id, first.body)
        attempts = await stage.attempts(message_id=first.message_id)
        assert [(one["trigger"], one["status"]) for one in attempts] == [
            ("scheduled", 204),
            ("resend", 500),
        ]


async def test_all_that_failed_can_be_recovered() -> None:
    """Only what never arrived is sent again, under its own id."""
    async with staged(Receiver(always=500), speed=FAST) as stage:
        sync = await silent_sync(stage)
        await told(stage, sync_ids=[sync], times=2)
        stage.receiver.always = 204
        await told(stage, sync_ids=[sync])
        path = f"/subscriptions/{await subscription(stage)}/recover"
        assert await stage.order("POST", path, {}) == {"sent": 2}
        await stage.settle()
        assert await stage.order("POST", path, {}) == {"sent": 0}


async def test_what_was_lost_or_held_back_can_be_replayed() -> None:
    """Lost messages and those for a disabled consumer are missing until then."""
    async with staged(speed=FAST) as stage:
        sync, consumer = await silent_sync(stage), await subscription(stage)
        await told(stage, sync_ids=[sync], lose=True)
        await stage.order("POST", f"/subscriptions/{consumer}/disable")
        await told(stage, sync_ids=[sync])
        assert stage.receiver.got == []
        await stage.order("POST", f"/subscriptions/{consumer}/enable")
        sent = await stage.order("POST", f"/subscriptions/{consumer}/replay-missing", {})
        await stage.settle()
        assert (sent, len(stage.receiver.got)) == ({"sent": 2}, 2)


async def test_five_days_of_failures_disable_a_consumer() -> None:
    """GET /webhooks shows it; after enabling, what was waiting goes out."""
    async with staged(Receiver(always=500), speed=FAST) as stage:
        sync, consumer = await silent_sync(stage), await subscription(stage)
        for _ in range(20):
            await stage.order("POST", "/events", {"sync_ids": [sync]})
            await stage.simulator.box.sender.settled(0.11)
            if (await stage.get("/webhooks")).json()["results"][0]["disabled"]:
                break
        else:
            pytest.fail("never disabled")
        stage.receiver.always = 204
        await stage.order("POST", f"/subscriptions/{consumer}/enable")
        await stage.settle()
        assert not (await stage.get("/webhooks")).json()["results"][0]["disabled"]
