"""The signed sender: delivers messages to their consumers, retries, resends and recovers."""

import asyncio
import random
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import httpx
from svix.webhooks import Webhook

from simulator.clock import Clock
from simulator.deliveries import ARRIVED, HELD_BACK, LOST, Attempt, DeliveryLog, Message, Plan
from simulator.schedule import gap_before, retry_after_seconds
from simulator.subscriptions import Subscription

USER_AGENT = "Svix-Webhooks/1.84.0 (sender-9YMgn; +https://www.svix.com/http-sender/)"
SPACING = 0.2
LANES = 64


@dataclass
class Weather:
    """What happens to messages by chance, drawn anew for each of them.

    Shares from 0 to 1; `delay` is at most so many simulated seconds and changes the order too.
    """

    duplicate: float = 0.0
    lose: float = 0.0
    delay: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What the receiver made of one attempt; `status` None when no answer came at all."""

    result: str
    status: int | None = None
    retry_after: float | None = None
    milliseconds: float = 0.0


@dataclass(frozen=True)
class Errand:
    """One message on its way to one consumer; only a scheduled one is retried."""

    message: Message
    subscription: Subscription
    trigger: str = "scheduled"
    delay: float = 0.0
    family: str | None = None


def signed_headers(
    message_id: str, body: str, secrets: list[str], family: str, now: datetime
) -> dict[str, str]:
    """The three signature headers of one family (`webhook` or `svix`), one signature per secret.

    The timestamp is the attempt's (docs.codat.io/using-the-api/webhooks/create-consumer).
    """
    signatures = " ".join(Webhook(secret).sign(message_id, now, body) for secret in secrets)
    return {
        f"{family}-id": message_id,
        f"{family}-timestamp": str(int(now.timestamp())),
        f"{family}-signature": signatures,
    }


class Sender:
    """Sends webhooks over HTTP in the background of the running event loop."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        timeout: float = 15.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """No consumers yet. `timeout` is real seconds; `transport` replaces the network."""
        self._clock = clock
        self._rng = rng
        self._timeout = timeout
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._lanes = asyncio.Semaphore(LANES)
        self._tasks: set[asyncio.Task[None]] = set()
        self.subscriptions: dict[str, Subscription] = {}
        self.log = DeliveryLog()
        self.weather = Weather()

    @property
    def under_way(self) -> int:
        """Messages being delivered or waiting for their next attempt."""
        return len(self._tasks)

    def send(
        self, message: Message, plan: Plan | None = None, to: list[Subscription] | None = None
    ) -> int:
        """Send a message to all consumers that listen to it, or to those given; returns how many.

        At least once and in no promised order, as at Codat.
        """
        plan = plan or Plan()
        self.log.messages[message.message_id] = message
        listening = [s for s in self.subscriptions.values() if s.listens(message.event_type)]
        targets = listening if to is None else to
        for subscription in targets:
            self._dispatch(message, subscription, plan)
        return len(targets)

    def resend(self, message_id: str, subscription_id: str | None = None) -> int:
        """The same message again, once, under the same id. KeyError for unknown ids.

        Like "Resend" in the Portal (docs.codat.io/using-the-api/webhooks/troubleshooting).
        """
        message = self.log.messages[message_id]
        targets = (
            [self.subscriptions[subscription_id]]
            if subscription_id
            else [s for s in self.subscriptions.values() if s.listens(message.event_type)]
        )
        for subscription in targets:
            self._start(Errand(message, subscription, "resend"))
        return len(targets)

    def recover(self, subscription_id: str, since: float = 0.0) -> int:
        """Send again, in a burst, all that failed there since that simulated second."""
        subscription = self.subscriptions[subscription_id]
        return self._burst(self.log.failed(subscription_id, since), subscription, "recover")

    def replay_missing(self, subscription_id: str, since: float = 0.0) -> int:
        """Send, in a burst, all that was never sent there since that simulated second."""
        subscription = self.subscriptions[subscription_id]
        missing = self.log.missing(subscription_id, since)
        wanted = [message for message in missing if subscription.listens(message.event_type)]
        return self._burst(wanted, subscription, "replay")

    async def reachable(self) -> bool:
        """Whether every consumer's host accepts connections (always, with another transport)."""
        if self._transport is not None:
            return True
        hosts = {httpx.URL(one.url) for one in self.subscriptions.values()}
        return all([await _listens(url) for url in hosts])

    async def settled(self, seconds: float) -> bool:
        """Wait up to so many real seconds until nothing is under way; whether that came true."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        return not self._tasks

    async def aclose(self) -> None:
        """Give up everything under way and close the network."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _dispatch(self, message: Message, subscription: Subscription, plan: Plan) -> None:
        sky = self.weather
        delay = plan.delay + (self._rng.uniform(0, sky.delay) if sky.delay else 0.0)
        lost = plan.lose or (sky.lose > 0 and self._rng.random() < sky.lose)
        twice = sky.duplicate > 0 and self._rng.random() < sky.duplicate
        errand = Errand(message, subscription, "scheduled", delay, plan.family)
        if lost or subscription.disabled:
            self._note(errand, 1, Answer(LOST if lost else HELD_BACK))
            return
        self._start(errand)
        for _ in range(plan.copies - 1 + twice):
            self._start(Errand(message, subscription, "duplicate", delay, plan.family))

    def _burst(self, messages: list[Message], subscription: Subscription, trigger: str) -> int:
        for position, message in enumerate(messages):
            self._start(Errand(message, subscription, trigger, position * SPACING))
        return len(messages)

    def _start(self, errand: Errand) -> None:
        self.spawn(self._deliver(errand))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work run in the background until it ends or `aclose`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, errand: Errand) -> None:
        number, gap = 1, errand.delay
        while True:
            await self._clock.sleep(gap)
            await errand.subscription.enabled.wait()
            following = await self._attempt(errand, number)
            if following is None:
                return
            number, gap = number + 1, following

    async def _attempt(self, errand: Errand, number: int) -> float | None:
        """Deliver once; the gap to the next attempt, or None when this was the last one."""
        async with self._lanes:
            begun = time.perf_counter()
            answer = await self._post(errand)
            took = round((time.perf_counter() - begun) * 1000, 2)
        answer = replace(answer, milliseconds=took)
        ok = answer.result == ARRIVED
        errand.subscription.note(ok, self._clock.elapsed())
        gap = None
        if not ok and errand.trigger == "scheduled":
            seen = 0 if answer.result == "timeout" else answer.status
            gap = gap_before(number + 1, self._rng, seen, answer.retry_after)
        self._note(errand, number, answer, gap)
        return gap

    async def _post(self, errand: Errand) -> Answer:
        """Ask the receiver; any 2xx within the time-out is success, a redirect is not."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._request(errand)
        except (TimeoutError, httpx.TimeoutException):
            return Answer("timeout")
        except (httpx.HTTPError, httpx.InvalidURL):
            return Answer("unreachable")
        told = response.headers.get("retry-after")
        wait = retry_after_seconds(told, self._clock.wall().timestamp())
        return Answer(ARRIVED if response.is_success else "failed", response.status_code, wait)

    async def _request(self, errand: Errand) -> httpx.Response:
        message, subscription = errand.message, errand.subscription
        secrets = subscription.valid_secrets(self._clock.elapsed())
        family = errand.family or subscription.family
        now = self._clock.wall()
        headers = {
            **subscription.headers,
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            **signed_headers(message.message_id, message.body, secrets, family, now),
        }
        return await self._connected().request(
            subscription.method, subscription.url, content=message.body.encode(), headers=headers
        )

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=self._transport,
                timeout=self._timeout,
                follow_redirects=False,
                trust_env=False,
            )
        return self._client

    def _note(
        self, errand: Errand, number: int, answer: Answer, next_gap: float | None = None
    ) -> None:
        message, subscription = errand.message, errand.subscription
        self.log.attempts.append(
            Attempt(
                message_id=message.message_id,
                subscription_id=subscription.subscription_id,
                event_type=message.event_type,
                sync_id=message.sync_id,
                number=number,
                trigger=errand.trigger,
                family=errand.family or subscription.family,
                at=self._clock.wall().isoformat(),
                elapsed=self._clock.elapsed(),
                next_gap=next_gap,
                **asdict(answer),
            )
        )


async def _listens(url: httpx.URL) -> bool:
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(url.host, port), 2)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
