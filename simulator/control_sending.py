"""Controls over the sender: consumers, messages, resends, weather, and the log of deliveries."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from simulator.access import InBox
from simulator.box import Box
from simulator.deliveries import Message
from simulator.orders import (
    EventOrder,
    RotateOrder,
    SettleOrder,
    SinceOrder,
    SubscriptionOrder,
    WeatherOrder,
)
from simulator.sender import Weather
from simulator.settings import SubscriptionSettings
from simulator.subscriptions import Subscription, new_secret, subscribe

Json = dict[str, Any]


def _targets(order: EventOrder, box: Box, event_type: str) -> list[Subscription]:
    """The named consumer; else those that listen; else the first, so that something is sent."""
    known = box.sender.subscriptions
    if order.subscription_id is not None:
        return [known[order.subscription_id]]
    listening = [one for one in known.values() if one.listens(event_type)]
    return listening or list(known.values())[:1]


def _about_syncs(order: EventOrder, box: Box) -> list[Message]:
    made: list[Message] = []
    for sync in (box.world.syncs[sync_id] for sync_id in order.sync_ids):
        ended = "completed" if sync.succeeded else "failed"
        event = order.event or ("started" if sync.running else ended)
        made.extend(box.sync_message(sync, event, shape) for shape in order.shapes)
    return made


def _raw(order: EventOrder, box: Box) -> list[Message]:
    return [box.message(order.event_type, order.body, message_id=order.message_id)]


async def send_event(order: EventOrder, box: InBox) -> Json:
    """Send events of syncs, or any body, in a chosen shape, number and order; answers the ids."""
    make = _about_syncs if order.sync_ids else _raw
    messages = [message for _ in range(order.times) for message in make(order, box)]
    if order.shuffle:
        box.dice.shuffle(messages)
    for message in messages:
        box.sender.send(message, order.plan(), _targets(order, box, message.event_type))
    return {"message_ids": [message.message_id for message in messages]}


async def resend(message_id: str, box: InBox, subscription_id: str | None = None) -> Json:
    """Send a message once more under the same id; a failure of this is not retried."""
    return {"sent": box.sender.resend(message_id, subscription_id)}


async def messages(box: InBox) -> list[Json]:
    """Every message ever made, with its body."""
    return [
        {**asdict(one), "created": one.created.isoformat()}
        for one in box.sender.log.messages.values()
    ]


async def deliveries(box: InBox, message_id: str = "", sync_id: str = "") -> Json:
    """The log of attempts, oldest first, and how many messages are still under way."""
    attempts = box.sender.log.about(message_id, sync_id)
    return {"attempts": attempts, "under_way": box.sender.under_way}


async def settle(order: SettleOrder, box: InBox) -> Json:
    """Wait until nothing is under way any more, at most so many real seconds."""
    settled = await box.sender.settled(order.seconds)
    return {"settled": settled, "under_way": box.sender.under_way}


async def subscriptions(box: InBox) -> list[Json]:
    """All consumers with their secrets."""
    return [one.full_body() for one in box.sender.subscriptions.values()]


async def add_subscription(order: SubscriptionOrder, box: InBox) -> Json:
    """Add a consumer; answers its secret."""
    wanted = SubscriptionSettings(
        order.url,
        order.secret,
        tuple(order.event_types),
        order.family,
        order.method,
        order.headers,
    )
    return box.add_subscription(subscribe(wanted, box.dice)).full_body()


async def remove_subscription(subscription_id: str, box: InBox) -> Json:
    """Take a consumer out of service; what is under way to it still goes out."""
    return box.sender.subscriptions.pop(subscription_id).public_body()


async def rotate(subscription_id: str, order: RotateOrder, box: InBox) -> Json:
    """Give a consumer a new secret; signatures of the old ones go along for a while."""
    found = box.sender.subscriptions[subscription_id]
    found.rotate(order.secret or new_secret(box.dice), box.clock.elapsed(), order.keep_seconds)
    return found.full_body()


async def enable(subscription_id: str, box: InBox) -> Json:
    """Let attempts to a consumer go out again, waiting ones too."""
    found = box.sender.subscriptions[subscription_id]
    found.enable()
    return found.public_body()


async def disable(subscription_id: str, box: InBox) -> Json:
    """Hold everything back from a consumer."""
    found = box.sender.subscriptions[subscription_id]
    found.enabled.clear()
    return found.public_body()


async def recover(subscription_id: str, order: SinceOrder, box: InBox) -> Json:
    """Send again, in a burst, all that failed at a consumer since then."""
    return {"sent": box.sender.recover(subscription_id, order.since)}


async def replay_missing(subscription_id: str, order: SinceOrder, box: InBox) -> Json:
    """Send, in a burst, all that was never sent to a consumer since then."""
    return {"sent": box.sender.replay_missing(subscription_id, order.since)}


async def weather(box: InBox) -> Json:
    """What happens to messages by chance."""
    return asdict(box.sender.weather)


async def set_weather(order: WeatherOrder, box: InBox) -> Json:
    """Change what happens to messages by chance; what is not named is fair."""
    box.sender.weather = Weather(**order.model_dump())
    return await weather(box)


def routes() -> APIRouter:
    """The controls of this file."""
    router = APIRouter(prefix="/_sim")
    router.post("/events", status_code=201)(send_event)
    router.get("/messages")(messages)
    router.post("/messages/{message_id}/resend")(resend)
    router.get("/deliveries")(deliveries)
    router.post("/settle")(settle)
    router.get("/weather")(weather)
    router.put("/weather")(set_weather)
    router.get("/subscriptions")(subscriptions)
    router.post("/subscriptions", status_code=201)(add_subscription)
    one = "/subscriptions/{subscription_id}"
    router.delete(one)(remove_subscription)
    router.post(one + "/rotate")(rotate)
    router.post(one + "/enable")(enable)
    router.post(one + "/disable")(disable)
    router.post(one + "/recover")(recover)
    router.post(one + "/replay-missing")(replay_missing)
    return router
