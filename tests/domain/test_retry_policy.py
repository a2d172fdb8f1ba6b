"""When fetches and deliveries are retried, and when they stop."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.retry_policy import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    MAX_DELIVERY_ATTEMPTS,
    RATE_LIMIT_PAUSE,
    RATE_LIMIT_RECHECK,
    Failure,
    Retry,
    Stop,
    backoff,
    next_delivery_attempt,
    next_fetch_attempt,
    pause_until,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def after_fetch(
    failure: Failure, *, attempts: int = 1, retry_after: timedelta | None = None
) -> Retry | Stop:
    return next_fetch_attempt(
        failure,
        attempts=attempts,
        max_attempts=12,
        now=NOW,
        retry_after=retry_after,
        random=lambda: 0.0,
    )


def after_delivery(
    attempts: int, *, retry_after: timedelta | None = None, jitter: float = 0.999
) -> Retry | Stop:
    return next_delivery_attempt(attempts, now=NOW, retry_after=retry_after, random=lambda: jitter)


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_a_pause_is_between_half_of_the_first_and_an_hour(attempts: int, jitter: float) -> None:
    """For any number of attempts."""
    assert FIRST_PAUSE / 2 <= backoff(attempts, jitter) <= LONGEST_PAUSE


def test_pauses_grow_and_twelve_attempts_bridge_hours() -> None:
    """The default number of attempts survives a long outage of Codat."""
    pauses = [backoff(attempts, 0) for attempts in range(1, 13)]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[5] < pauses[-1]
    assert sum((backoff(n, 0.5) for n in range(1, 12)), timedelta()) > timedelta(hours=3)


def test_a_final_refusal_and_the_last_attempt_stop() -> None:
    """A wrong key is not tried twelve times; attempt twelve of twelve is the last."""
    assert isinstance(after_fetch("final"), Stop)
    assert isinstance(after_fetch("transient", attempts=11), Retry)
    assert isinstance(after_fetch("transient", attempts=12), Stop)


def test_a_rate_limit_costs_no_attempt() -> None:
    """Not even the last one; the pause is as long as Codat asks, within a day."""
    limited = after_fetch("rate_limited", attempts=12, retry_after=timedelta(seconds=7))
    assert limited == Retry(NOW + RATE_LIMIT_RECHECK, refund_attempt=True)
    assert pause_until(timedelta(seconds=7), NOW) == NOW + timedelta(seconds=7)
    assert pause_until(None, NOW) == NOW + RATE_LIMIT_PAUSE
    assert pause_until(timedelta(days=400), NOW) == NOW + LONGEST_RETRY_AFTER


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        (timedelta(seconds=90), timedelta(seconds=90)),
        (timedelta(milliseconds=1), FIRST_PAUSE),
        (timedelta(days=400), LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after_is_honored_within_bounds(retry_after: timedelta, pause: timedelta) -> None:
    """Never sooner than our own pause, never later than a day."""
    assert after_fetch("transient", retry_after=retry_after) == Retry(NOW + pause)


def test_deliveries_follow_their_own_schedule() -> None:
    """Jitter only adds; `Retry-After` is honored up to a day; ten attempts over three days."""
    first = after_delivery(1)
    assert isinstance(first, Retry)
    assert timedelta(seconds=5) < first.at - NOW < timedelta(seconds=6.01)
    hour = timedelta(hours=1)
    assert after_delivery(1, retry_after=hour) == Retry(NOW + hour)
    assert after_delivery(1, retry_after=timedelta(days=9)) == Retry(NOW + timedelta(days=1))
    assert isinstance(after_delivery(MAX_DELIVERY_ATTEMPTS), Stop)
    total = timedelta()
    for attempt in range(1, MAX_DELIVERY_ATTEMPTS):
        decision = after_delivery(attempt, jitter=0)
        assert isinstance(decision, Retry)
        total += decision.at - NOW
    assert timedelta(days=3) < total < timedelta(days=4)
