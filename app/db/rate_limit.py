"""The gate: until when all calls to Codat rest, in every replica.

It is closed by Codat's 429 and by its event `client.rateLimit.reached`, and opened by the event
`client.rateLimit.reset` or by the time that was named. Closings and openings are joined by Codat's
clock, so that the two events may come in any order and any number of times.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, or_, select

from app.db.engine import insert
from app.db.tables import gates
from app.domain.models import RATE_LIMIT_REACHED, RATE_LIMIT_RESET, Delivery

CODAT = "codat"
LONGEST = timedelta(hours=25)


# the condition on `gates` that says that the closing holds, until the time it has
HOLDS: ColumnElement[bool] = and_(
    gates.c.name == CODAT,
    or_(gates.c.opened_as_of.is_(None), gates.c.closed_as_of > gates.c.opened_as_of),
)


def is_closed(now: datetime) -> ColumnElement[bool]:
    """The condition on `gates` that says that calls must rest now."""
    return and_(HOLDS, gates.c.closed_until > now)


def closed_until(connection: Connection, now: datetime) -> datetime | None:
    """Until when calls must rest; None while they may be made."""
    return connection.execute(select(gates.c.closed_until).where(is_closed(now))).scalar()


def close(connection: Connection, until: datetime, reason: str, as_of: datetime) -> None:
    """Let all calls rest until a time. A closing never shortens the one that holds."""
    statement = insert(connection, gates)
    told = statement.excluded
    over = and_(
        gates.c.opened_as_of >= gates.c.closed_as_of, told.closed_as_of > gates.c.opened_as_of
    )
    unset_or_earlier = or_(gates.c.closed_until.is_(None), gates.c.closed_until < told.closed_until)
    longer = or_(over, unset_or_earlier)
    later = or_(gates.c.closed_as_of.is_(None), gates.c.closed_as_of < told.closed_as_of)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "closed_until": case((longer, told.closed_until), else_=gates.c.closed_until),
                "closed_as_of": case((later, told.closed_as_of), else_=gates.c.closed_as_of),
                "reason": case((longer, told.reason), else_=gates.c.reason),
            },
        ),
        {"name": CODAT, "closed_until": until, "closed_as_of": as_of, "reason": reason[:500]},
    )


def open_again(connection: Connection, as_of: datetime) -> None:
    """Let calls be made again, unless a later closing holds."""
    statement = insert(connection, gates)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"opened_as_of": as_of},
            where=or_(gates.c.opened_as_of.is_(None), gates.c.opened_as_of < as_of),
        ),
        {"name": CODAT, "opened_as_of": as_of},
    )


def heed(connection: Connection, delivery: Delivery) -> None:
    """Close or open as a rate limit event says; other events change nothing.

    Codat's quota is reset at midnight UTC (Codat docs, "Rate limits"); that is when the gate opens
    by itself where the event names no time, or an impossible one. An old body has no time of its
    own: if what it names is over, it came late, as a replay or an example does, and closes nothing.
    """
    event = delivery.event
    as_of = min(event.generated_at or delivery.received_at, delivery.received_at)
    if event.event == RATE_LIMIT_RESET:
        open_again(connection, as_of)
    elif event.event == RATE_LIMIT_REACHED:
        named = event.quota_expires_at
        if named and not event.generated_at and named <= delivery.received_at:
            return
        sound = named is not None and as_of < named <= as_of + LONGEST
        until = named if named and sound else _next_midnight(as_of)
        close(connection, until, "Codat says that its rate limit is reached", as_of)


def _next_midnight(moment: datetime) -> datetime:
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=1)
