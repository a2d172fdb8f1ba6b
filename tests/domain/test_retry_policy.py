"""When to ask Codat again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.retry_policy import (
    AT_THE_GATE,
    FIRST,
    LONGEST,
    LONGEST_WAIT_ASKED,
    RATE_LIMIT_PAUSE,
    Again,
    GiveUp,
    Trouble,
    backoff,
    decide,
    rest_until,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def decided(
    trouble: Trouble, *, attempts: int = 1, retry_after: timedelta | None = None, luck: float = 0
) -> Again | GiveUp:
    return decide(
        trouble,
        attempts=attempts,
        max_attempts=12,
        now=NOW,
        retry_after=retry_after,
        luck=lambda: luck,
    )


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_a_pause_is_never_longer_than_an_hour_nor_shorter_than_half_its_step(
    attempts: int, luck: float
) -> None:
    """Bounds hold for any number of attempts."""
    assert FIRST / 2 <= backoff(attempts, luck) <= LONGEST


def test_pauses_grow() -> None:
    """Each attempt waits at least as long as the one before."""
    pauses = [backoff(attempts, 0) for attempts in range(1, 13)]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[5] < pauses[-1]


def test_twelve_attempts_bridge_an_outage_of_hours() -> None:
    """The default number of attempts must survive a bad morning at Codat."""
    assert sum((backoff(n, 0.5) for n in range(1, 12)), timedelta()) > timedelta(hours=3)


def test_a_final_refusal_ends_at_once() -> None:
    """A wrong key is not asked again twelve times."""
    assert isinstance(decided("final"), GiveUp)


def test_the_last_attempt_gives_up() -> None:
    """Attempt twelve of twelve is the last."""
    assert isinstance(decided("passing", attempts=11), Again)
    assert isinstance(decided("passing", attempts=12), GiveUp)


def test_a_rate_limit_is_waited_for_and_costs_nothing() -> None:
    """Even at the last attempt."""
    asked = decided("rate_limited", attempts=12, retry_after=timedelta(seconds=7))
    assert asked == Again(NOW + AT_THE_GATE, free=True)
    assert rest_until(timedelta(seconds=7), NOW) == NOW + timedelta(seconds=7)
    assert rest_until(None, NOW) == NOW + RATE_LIMIT_PAUSE
    assert rest_until(timedelta(days=400), NOW) == NOW + LONGEST_WAIT_ASKED


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        (timedelta(seconds=90), timedelta(seconds=90)),
        (timedelta(milliseconds=1), FIRST),
        (timedelta(days=400), LONGEST_WAIT_ASKED),
    ],
)
def test_what_codat_asks_for_is_honoured_within_reason(
    retry_after: timedelta, pause: timedelta
) -> None:
    """Never sooner than our own pause, never later than a day."""
    assert decided("passing", retry_after=retry_after) == Again(NOW + pause)
