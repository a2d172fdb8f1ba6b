"""When a failed fetch or delivery is tried again, and when to stop.

Codat advises exponential backoff on 408, 429 and 5xx. Ours starts at two seconds, triples, and
stops growing at an hour, so twelve attempts bridge an outage of about five hours. Jitter keeps
fetches that failed together from being retried together.

Outgoing messages follow the schedule that Standard Webhooks recommends: ten attempts over a little
more than three days, so a receiver may be down for a long weekend.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

FIRST_PAUSE = timedelta(seconds=2)
FACTOR = 3
LONGEST_PAUSE = timedelta(hours=1)
RATE_LIMIT_PAUSE = timedelta(seconds=60)
RATE_LIMIT_RECHECK = timedelta(seconds=1)
LONGEST_RETRY_AFTER = timedelta(hours=24)
DELIVERY_PAUSES = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)
MAX_DELIVERY_ATTEMPTS = len(DELIVERY_PAUSES) + 1

Failure = Literal["transient", "rate_limited", "final"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again at `at`. With `refund_attempt` the failed attempt does not count."""

    at: datetime
    refund_attempt: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not try again; `reason` is one line for people."""

    reason: str


def backoff(attempts: int, jitter: float) -> timedelta:
    """The pause after attempt number `attempts` (1 or more).

    `jitter`, in [0, 1), takes up to half of it off.
    """
    grown: timedelta = FIRST_PAUSE * FACTOR ** min(attempts - 1, 20)
    return min(grown, LONGEST_PAUSE) * (1 - jitter / 2)


def pause_until(retry_after: timedelta | None, now: datetime) -> datetime:
    """Until when all calls to Codat pause after a 429: `retry_after`, a day at most."""
    return now + min(retry_after or RATE_LIMIT_PAUSE, LONGEST_RETRY_AFTER)


def next_fetch_attempt(
    failure: Failure,
    *,
    attempts: int,
    max_attempts: int,
    now: datetime,
    retry_after: timedelta | None,
    random: Callable[[], float],
) -> Retry | Stop:
    """What to do after fetch attempt number `attempts` (1-based) failed.

    A rate limit refunds the attempt and makes the job due in a second: the rate-limit pause does
    the waiting and may end early. `retry_after` is honored up to a day.
    """
    if failure == "rate_limited":
        return Retry(now + RATE_LIMIT_RECHECK, refund_attempt=True)
    if failure == "final":
        return Stop("Codat's answer is final")
    if attempts >= max_attempts:
        return Stop(f"stopped after {attempts} attempts")
    pause = backoff(attempts, random())
    return Retry(now + max(pause, min(retry_after or pause, LONGEST_RETRY_AFTER)))


def next_delivery_attempt(
    attempts: int, *, now: datetime, retry_after: timedelta | None, random: Callable[[], float]
) -> Retry | Stop:
    """What to do after delivery attempt number `attempts` (1-based) of a message failed.

    Jitter adds up to a fifth to a pause; `retry_after` is honored up to a day.
    """
    if attempts >= MAX_DELIVERY_ATTEMPTS:
        return Stop(f"stopped after {attempts} attempts")
    pause = DELIVERY_PAUSES[attempts - 1] * (1 + random() / 5)
    return Retry(now + max(pause, min(retry_after or pause, LONGEST_RETRY_AFTER)))
