"""The rate-limit pause: until when no replica calls Codat.

A 429 or the event `client.rateLimit.reached` starts a pause; the event `client.rateLimit.reset` or
the time that was named ends it. Pauses and resumptions are ordered by Codat's clock, so the two
events may arrive in any order and any number of times.
"""

from datetime import UTC, datetime, time, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, or_, select

from app.db.engine import insert
from app.db.tables import rate_limit_pauses as pauses
from app.domain.models import RATE_LIMIT_REACHED, RATE_LIMIT_RESET, WebhookEvent

CODAT = "codat"
MAX_PAUSE = timedelta(hours=25)

NOT_RESUMED: ColumnElement[bool] = and_(
    pauses.c.name == CODAT,
    or_(pauses.c.resumed_as_of.is_(None), pauses.c.paused_as_of > pauses.c.resumed_as_of),
)
"""The condition on `rate_limit_pauses` for a pause that holds until its time is over."""


def is_paused(now: datetime) -> ColumnElement[bool]:
    """The condition on `rate_limit_pauses` for a pause that is in force."""
    return and_(NOT_RESUMED, pauses.c.paused_until > now)


def paused_until(connection: Connection, now: datetime) -> datetime | None:
    """The end of the pause; None while calls are allowed."""
    return connection.execute(select(pauses.c.paused_until).where(is_paused(now))).scalar()


def pause(connection: Connection, until: datetime, reason: str, as_of: datetime) -> None:
    """Pause all calls until a time; never shortens a pause that is in force."""
    statement = insert(connection, pauses)
    new = statement.excluded
    is_over = and_(
        pauses.c.resumed_as_of >= pauses.c.paused_as_of, new.paused_as_of > pauses.c.resumed_as_of
    )
    is_earlier = or_(pauses.c.paused_until.is_(None), pauses.c.paused_until < new.paused_until)
    replaces = or_(is_over, is_earlier)
    is_newer = or_(pauses.c.paused_as_of.is_(None), pauses.c.paused_as_of < new.paused_as_of)
    changed = {
        "paused_until": case((replaces, new.paused_until), else_=pauses.c.paused_until),
        "paused_as_of": case((is_newer, new.paused_as_of), else_=pauses.c.paused_as_of),
        "reason": case((replaces, new.reason), else_=pauses.c.reason),
    }
    row = {"name": CODAT, "paused_until": until, "paused_as_of": as_of, "reason": reason[:500]}
    upsert = statement.on_conflict_do_update(index_elements=["name"], set_=changed)
    connection.execute(upsert, row)


def resume(connection: Connection, as_of: datetime) -> None:
    """Allow calls again, unless a later pause is in force."""
    is_later = or_(pauses.c.resumed_as_of.is_(None), pauses.c.resumed_as_of < as_of)
    changed = {"resumed_as_of": as_of}
    upsert = insert(connection, pauses).values(name=CODAT, **changed)
    connection.execute(
        upsert.on_conflict_do_update(index_elements=["name"], set_=changed, where=is_later)
    )


def apply_event(connection: Connection, event: WebhookEvent) -> None:
    """Pause or resume as a rate limit event says; other events change nothing.

    Codat resets its quota at midnight UTC (Codat docs, "Rate limits"): the pause ends then if the
    event names no time, or an impossible one. A body of the older generation has no time of its
    own: if the time it names is over, it is late (a replay or Codat's sample) and is ignored.
    """
    payload, received_at = event.payload, event.received_at
    as_of = min(payload.generated_at or received_at, received_at)
    if payload.event_type == RATE_LIMIT_RESET:
        resume(connection, as_of)
    elif payload.event_type == RATE_LIMIT_REACHED:
        expires = payload.quota_expires_at
        if expires and not payload.generated_at and expires <= received_at:
            return
        if expires is None or not as_of < expires <= as_of + MAX_PAUSE:
            expires = datetime.combine(as_of.astimezone(UTC) + timedelta(days=1), time(), UTC)
        pause(connection, expires, "Codat reports that its rate limit is reached", as_of)
