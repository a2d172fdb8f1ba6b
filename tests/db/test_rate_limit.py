"""The rate-limit pause: events and 429s, in any order, for all replicas."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from sqlalchemy import select

from app.db import rate_limit
from app.db.engine import Database
from app.db.tables import rate_limit_pauses
from app.domain.models import RATE_LIMIT_REACHED, RATE_LIMIT_RESET, WebhookEvent, WebhookPayload
from tests.factories import T0, after

LATER = after(days=9)


def event(
    event_type: str,
    at: datetime | None,
    expires: datetime | None = None,
    *,
    received_at: datetime = LATER,
) -> WebhookEvent:
    payload = WebhookPayload(
        event_type=event_type, parse_status="ok", generated_at=at, quota_expires_at=expires
    )
    return WebhookEvent("m1", received_at, payload)


REACHED = event(RATE_LIMIT_REACHED, T0, after(hours=3))
RESET = event(RATE_LIMIT_RESET, after(hours=1))


def apply(database: Database, *events: WebhookEvent) -> None:
    for reported in events:
        with database.writing() as connection:
            rate_limit.apply_event(connection, reported)


def is_paused(database: Database, moment: datetime) -> bool:
    with database.reading() as connection:
        return rate_limit.paused_until(connection, moment) is not None


def test_reached_pauses_until_the_time_it_names(database: Database) -> None:
    apply(database, event("sync.failed", T0, after(hours=3)))
    assert not is_paused(database, T0)
    apply(database, REACHED)
    assert is_paused(database, after(hours=2, minutes=59))
    assert not is_paused(database, after(hours=3))


@pytest.mark.parametrize("expires", [None, T0 - timedelta(days=1), T0 + timedelta(days=400)])
def test_without_a_plausible_time_the_pause_ends_at_midnight(
    database: Database, expires: datetime | None
) -> None:
    """Codat's quota is reset at 00:00 UTC; its documentation shows an impossible time."""
    apply(database, event(RATE_LIMIT_REACHED, T0, expires))
    assert is_paused(database, datetime(2026, 1, 1, 23, 59, tzinfo=UTC))
    assert not is_paused(database, datetime(2026, 1, 2, tzinfo=UTC))


def test_an_old_body_that_is_late_pauses_nothing(database: Database) -> None:
    """Codat's own sample, sent from the Portal, names a time that is long over."""
    apply(database, event(RATE_LIMIT_REACHED, None, T0))
    assert not is_paused(database, after(days=9))
    earlier = T0 - timedelta(hours=1)
    apply(database, event(RATE_LIMIT_REACHED, None, T0, received_at=earlier))
    assert is_paused(database, T0 - timedelta(minutes=1))


def test_the_order_and_number_of_events_do_not_matter(database: Database) -> None:
    """Codat sent the reset after the other, so calls are allowed."""
    for order in permutations([REACHED, RESET, REACHED]):
        with database.writing() as connection:
            connection.execute(rate_limit_pauses.delete())
        apply(database, *order)
        assert not is_paused(database, after(hours=2))


def test_a_pause_after_a_reset_holds_for_its_own_time(database: Database) -> None:
    """The longer one before the reset is over."""
    apply(database, REACHED, RESET)
    with database.writing() as connection:
        rate_limit.pause(connection, after(hours=1, minutes=5), "429", after(hours=1, seconds=1))
    assert is_paused(database, after(hours=1, minutes=4))
    assert not is_paused(database, after(hours=1, minutes=5))


def test_a_second_pause_never_shortens_the_first(database: Database) -> None:
    with database.writing() as connection:
        rate_limit.pause(connection, after(seconds=30), "first", T0)
        rate_limit.pause(connection, after(seconds=10), "second", after(seconds=1))
    with database.reading() as connection:
        assert rate_limit.paused_until(connection, T0) == after(seconds=30)
        reason = connection.execute(select(rate_limit_pauses.c.reason)).scalar_one()
    assert reason == "first"


def test_a_date_in_the_far_future_does_not_hold_the_pause(database: Database) -> None:
    """It cannot have happened later than it was received."""
    apply(database, event(RATE_LIMIT_REACHED, datetime(2999, 1, 1, tzinfo=UTC)))
    assert not is_paused(database, after(days=11))
