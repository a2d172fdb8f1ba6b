"""The webhook sender: signs events, delivers them to subscriptions, retries, and logs attempts."""

import asyncio
import random
import string
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from pydantic import BaseModel, Field
from svix.webhooks import Webhook

from simulator.clock import Clock, wall_time
from simulator.settings import Subscription

Family = Literal["webhook", "svix"]
AttemptResult = Literal["ok", "failed", "timeout", "unreachable", "lost"]

USER_AGENT = "Svix-Webhooks/1.84.0 (sender-9YMgn; +https://www.svix.com/http-sender/)"
MAX_CONCURRENT_DELIVERIES = 64
# Simulated seconds before each attempt (docs.codat.io/using-the-api/webhooks/troubleshooting).
RETRY_GAPS = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
RETRY_JITTER = 0.2
MIN_GAP_WHEN_BUSY = 60.0
_ID_CHARACTERS = string.digits + string.ascii_letters


class DeliveryFaults(BaseModel, extra="forbid"):
    """Random faults for every message: shares from 0 to 1, and a maximum delay.

    `delay` is in simulated seconds; since each message gets its own, it also changes the order.
    """

    duplicate: float = Field(default=0.0, ge=0, le=1)
    lose: float = Field(default=0.0, ge=0, le=1)
    delay: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class DeliveryOptions:
    """How one message is delivered.

    `delay` is simulated seconds before the first attempt, `copies` how often the message is
    delivered under the same id, `family` the prefix of the signature headers.
    """

    delay: float = 0.0
    copies: int = 1
    family: Family = "webhook"


@dataclass(frozen=True)
class Message:
    """One webhook event; id and body stay the same over all attempts."""

    message_id: str
    event_type: str
    body: str


@dataclass
class Attempt:
    """One delivery attempt in the log.

    `status` is the HTTP status, or null without a response. `result` is `lost` for a message that
    a delivery fault dropped. `at` is the real time; `retry_after` and `next_gap`, the wait before
    the next attempt, are simulated seconds.
    """

    message_id: str
    subscription_id: str
    number: int
    result: AttemptResult = "ok"
    status: int | None = None
    at: str = field(default_factory=lambda: wall_time().isoformat())
    retry_after: float | None = None
    next_gap: float | None = None


def new_message_id(rng: random.Random) -> str:
    """Return an id in svix's form, `msg_` and 27 characters."""
    return "msg_" + "".join(rng.choices(_ID_CHARACTERS, k=27))


def is_signing_secret(secret: str) -> bool:
    """Whether svix can sign with it: `whsec_` and base64."""
    try:
        Webhook(secret)
    except Exception:  # svix lets errors of several libraries through
        return False
    return True


def sign(message: Message, secret: str, family: Family) -> dict[str, str]:
    """Return the three signature headers with the current time, which is that of the attempt.

    See docs.codat.io/using-the-api/webhooks/create-consumer.
    """
    now = wall_time()
    return {
        f"{family}-id": message.message_id,
        f"{family}-timestamp": str(int(now.timestamp())),
        f"{family}-signature": Webhook(secret).sign(message.message_id, now, message.body),
    }


def retry_gap(failed: Attempt, rng: random.Random) -> float | None:
    """Return the simulated seconds until the next attempt, or None after the eighth.

    As at svix: 20% jitter; at least a minute after a timeout or a 429; a `Retry-After` is respected
    between once and twice the scheduled gap.
    """
    if failed.number >= len(RETRY_GAPS):
        return None
    scheduled = RETRY_GAPS[failed.number]
    gap = scheduled * rng.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)
    if failed.result == "timeout" or failed.status == 429:
        scheduled = max(scheduled, MIN_GAP_WHEN_BUSY)
        gap = max(gap, MIN_GAP_WHEN_BUSY)
    if failed.retry_after is not None:
        gap = max(gap, min(max(failed.retry_after, scheduled), 2 * scheduled))
    return gap


class Sender:
    """Delivers messages in the background of the running event loop.

    At least once and in no guaranteed order, as Codat does.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        timeout: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`timeout` is in real seconds; `transport` replaces the network."""
        self._clock = clock
        self._rng = rng
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            transport=transport, timeout=timeout, follow_redirects=False, trust_env=False
        )
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_DELIVERIES)
        self._tasks: set[asyncio.Task[None]] = set()
        self.subscriptions: list[Subscription] = []
        self.faults = DeliveryFaults()
        self.attempts: list[Attempt] = []

    @property
    def pending(self) -> int:
        """Number of deliveries in progress or waiting for their next attempt."""
        return len(self._tasks)

    def send(self, message: Message, options: DeliveryOptions | None = None) -> None:
        """Deliver a message to every subscription that accepts its type."""
        for subscription in self.subscriptions:
            if subscription.accepts(message.event_type):
                self._send_to(subscription, message, options or DeliveryOptions())

    def _send_to(
        self, subscription: Subscription, message: Message, options: DeliveryOptions
    ) -> None:
        delay = options.delay + self._rng.uniform(0, self.faults.delay)
        lost = self._rng.random() < self.faults.lose
        duplicated = self._rng.random() < self.faults.duplicate
        if lost:
            self.attempts.append(
                Attempt(message.message_id, subscription.subscription_id, 1, "lost")
            )
            return
        for copy in range(options.copies + duplicated):
            retried = copy == 0
            self.spawn(self._deliver(message, subscription, delay, options.family, retried=retried))

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine until it ends or the sender is closed."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_until_idle(self, seconds: float) -> bool:
        """Wait up to so many real seconds for the pending deliveries; False if some are left."""
        deadline = time.monotonic() + seconds
        while self._tasks and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(self._tasks.copy(), timeout=left)
        return not self._tasks

    async def aclose(self) -> None:
        """Cancel everything pending and close the HTTP client."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _deliver(
        self,
        message: Message,
        subscription: Subscription,
        delay: float,
        family: Family,
        *,
        retried: bool,
    ) -> None:
        gap: float | None = delay
        number = 0
        while gap is not None:
            await self._clock.sleep(gap)
            number += 1
            attempt = Attempt(message.message_id, subscription.subscription_id, number)
            async with self._slots:
                await self._post(attempt, message, subscription, family)
            failed = attempt.result != "ok"
            gap = retry_gap(attempt, self._rng) if failed and retried else None
            attempt.next_gap = gap
            self.attempts.append(attempt)

    async def _post(
        self, attempt: Attempt, message: Message, subscription: Subscription, family: Family
    ) -> None:
        """Post once; any 2xx within the timeout is a success, a redirect is not."""
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            **sign(message, subscription.secret, family),
        }
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.post(
                    subscription.url, content=message.body.encode(), headers=headers
                )
            attempt.result = "ok" if response.is_success else "failed"
            attempt.status = response.status_code
            retry_after = response.headers.get("retry-after", "")
            attempt.retry_after = float(retry_after) if retry_after.isdecimal() else None
        except (TimeoutError, httpx.TimeoutException):
            attempt.result = "timeout"
        except (httpx.HTTPError, httpx.InvalidURL):
            attempt.result = "unreachable"
