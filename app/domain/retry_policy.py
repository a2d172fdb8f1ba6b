"""When to ask Codat again, and when to give up.

Codat's own advice is exponential backoff on 408, 429 and 5xx. Ours starts at two seconds, triples,
and stops growing at an hour, so twelve attempts bridge an outage of about five hours; jitter keeps
many fetches that failed together from coming back together.

A message that we owe others has a schedule of its own, the one Standard Webhooks recommends: ten
attempts over three days and a bit, so that a receiver may be broken for a long weekend.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

FIRST = timedelta(seconds=2)
FACTOR = 3
LONGEST = timedelta(hours=1)
RATE_LIMIT_PAUSE = timedelta(seconds=60)
AT_THE_GATE = timedelta(seconds=1)
LONGEST_WAIT_ASKED = timedelta(hours=24)
MESSAGE_PAUSES = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)

Trouble = Literal["passing", "rate_limited", "final"]
MOST_MESSAGE_ATTEMPTS = len(MESSAGE_PAUSES) + 1


@dataclass(frozen=True, slots=True)
class Again:
    """Ask again at `at`. `free` means this attempt does not count."""

    at: datetime
    free: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop asking; `reason` is one line for people."""

    reason: str


def backoff(attempts: int, luck: float) -> timedelta:
    """The pause after so many attempts (1 or more); `luck` in [0, 1) takes up to half of it off."""
    growth: int = FACTOR ** min(attempts - 1, 20)
    return min(FIRST * growth, LONGEST) * (1 - luck / 2)


def rest_until(retry_after: timedelta | None, now: datetime) -> datetime:
    """Until when all calls rest after a 429: as long as Codat asks, a day at most."""
    return now + min(retry_after or RATE_LIMIT_PAUSE, LONGEST_WAIT_ASKED)


def decide(
    trouble: Trouble,
    *,
    attempts: int,
    max_attempts: int,
    now: datetime,
    retry_after: timedelta | None,
    luck: Callable[[], float],
) -> Again | GiveUp:
    """What to do after attempt number `attempts` (1-based) ended in `trouble`.

    A rate limit costs no attempt and is due again in a second: the gate does the waiting, and may
    be opened early. A `retry_after` is honoured up to a day.
    """
    asked = min(retry_after, LONGEST_WAIT_ASKED) if retry_after else None
    if trouble == "rate_limited":
        return Again(now + AT_THE_GATE, free=True)
    if trouble == "final":
        return GiveUp("Codat's answer is final until somebody acts")
    if attempts >= max_attempts:
        return GiveUp(f"given up after {attempts} attempts")
    pause = backoff(attempts, luck())
    return Again(now + max(pause, asked or pause))


def decide_message(
    attempts: int, *, now: datetime, retry_after: timedelta | None, luck: Callable[[], float]
) -> Again | GiveUp:
    """What to do after attempt number `attempts` (1-based) to deliver a message has failed.

    Luck adds up to a fifth to a pause; a `retry_after` is honoured up to a day.
    """
    if attempts >= MOST_MESSAGE_ATTEMPTS:
        return GiveUp(f"given up after {attempts} attempts")
    pause = MESSAGE_PAUSES[attempts - 1] * (1 + luck() / 5)
    asked = min(retry_after, LONGEST_WAIT_ASKED) if retry_after else pause
    return Again(now + max(pause, asked))
