"""The gate: rate limit events and 429s, in any order, for all replicas."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from app.db import rate_limit as gate
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.tables import gates
from app.domain.models import RATE_LIMIT_REACHED, RATE_LIMIT_RESET, Delivery, Event
from app.errors import CodatRateLimited
from app.worker.rate_limit import Gate
from tests.reports import T0, after


def told(message_id: str, event: str, at: datetime, expires: datetime | None = None) -> Delivery:
    meaning = Event(event=event, reading="ok", generated_at=at, quota_expires_at=expires)
    return Delivery(message_id, after(days=9), b"{}", meaning)


REACHED = told("m1", RATE_LIMIT_REACHED, T0, after(hours=3))
RESET = told("m2", RATE_LIMIT_RESET, after(hours=1))


def closed_at(database: Database, moment: datetime) -> bool:
    with database.reading() as connection:
        return gate.closed_until(connection, moment) is not None


def keep(database: Database, *deliveries: Delivery) -> None:
    for delivery in deliveries:
        with database.writing() as connection:
            keep_all(connection, [delivery])


def test_reached_closes_until_the_time_it_names(database: Database) -> None:
    """And no longer."""
    keep(database, REACHED)
    assert closed_at(database, after(hours=2, minutes=59))
    assert not closed_at(database, after(hours=3))


@pytest.mark.parametrize("expires", [None, T0 - timedelta(days=1), T0 + timedelta(days=400)])
def test_without_a_sound_time_it_opens_at_midnight(
    database: Database, expires: datetime | None
) -> None:
    """Codat's quota is reset at 00:00 UTC; its documents show an impossible time."""
    keep(database, told("m1", RATE_LIMIT_REACHED, T0, expires))
    assert closed_at(database, datetime(2026, 1, 1, 23, 59, tzinfo=UTC))
    assert not closed_at(database, datetime(2026, 1, 2, tzinfo=UTC))


def test_an_old_body_that_came_late_closes_nothing(database: Database) -> None:
    """Codat's own example, sent from the Portal, names a time that is long over."""
    late = Event(event=RATE_LIMIT_REACHED, reading="ok", quota_expires_at=T0)
    keep(database, Delivery("m1", after(days=9), b"{}", late))
    assert not closed_at(database, after(days=9))
    keep(database, Delivery("m2", T0 - timedelta(hours=1), b"{}", late))
    assert closed_at(database, T0 - timedelta(minutes=1))


def test_the_order_and_number_of_rate_limit_events_do_not_matter(database: Database) -> None:
    """Reset was told after reached by Codat's clock, so calls may be made."""
    for order in permutations([REACHED, RESET, REACHED]):
        with database.writing() as connection:
            connection.execute(gates.delete())
            for n, each in enumerate(order):
                gate.heed(connection, Delivery(f"m{n}", T0, b"", each.event))
        assert not closed_at(database, after(hours=2))


def test_a_closing_after_a_reset_holds_for_its_own_time(database: Database) -> None:
    """The longer one before the reset is over."""
    keep(database, REACHED, RESET)
    with database.writing() as connection:
        gate.close(connection, after(hours=1, minutes=5), "429", after(hours=1, seconds=1))
    assert closed_at(database, after(hours=1, minutes=4))
    assert not closed_at(database, after(hours=1, minutes=5))


def test_no_call_is_made_while_the_gate_is_closed(database: Database) -> None:
    """The client asks before each call; the refusal says how long to wait."""
    moment = [after(hours=2)]
    ask = Gate(database, lambda: moment[0])
    keep(database, REACHED)
    with pytest.raises(CodatRateLimited) as caught:
        asyncio.run(ask())
    assert caught.value.retry_after == timedelta(hours=1)
    moment[0] = after(hours=3)
    asyncio.run(ask())
    moment[0] = after(hours=3, seconds=1)
    keep(database, told("m9", RATE_LIMIT_REACHED, after(hours=3), after(hours=4)))
    with pytest.raises(CodatRateLimited):
        asyncio.run(ask())


def test_a_date_in_the_far_future_does_not_hold_the_gate(database: Database) -> None:
    """It cannot have happened later than it was received."""
    keep(database, told("m1", RATE_LIMIT_REACHED, datetime(2999, 1, 1, tzinfo=UTC)))
    assert not closed_at(database, after(days=11))
