"""The fetches we owe ourselves: owing, claiming, putting off, giving up.

One column, `due`, is the time to start while a fetch is ready, and the end of the lease while a
worker has it; so claiming and taking over from a dead worker are one statement. The attempt is
counted at the claim. Every later write is fenced by the token the claim gave. `wanted` counts how
often a fetch was asked for, so an answer knows whether it came too early.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    exists,
    literal,
    select,
    update,
)

from app.db import announcements as announce
from app.db import rate_limit as gate
from app.db.bulk import Insert, Write, inserting, write
from app.db.sync_rows import to_sync
from app.db.tables import fetches, gates, syncs
from app.errors import NotKnown

LOOK_AT = 5_000  # due fetches, at most, to find one of a company of which nothing is in hand


@dataclass(frozen=True, slots=True)
class Claim:
    """A fetch that this worker, and nobody else, may carry out until its lease ends."""

    sync: int
    company_id: str
    sync_id: str
    token: str
    wanted: int
    attempts: int
    taken_at: datetime


def owe(connection: Connection, sync_ids: Sequence[int], now: datetime) -> None:
    """Owe a fetch for each of these syncs, from now on and with all attempts ahead.

    A fetch that is running is left to its worker, which will see that it is wanted once more.
    """
    write(connection, owing(sync_ids, now))


def owing(sync_ids: Sequence[int], now: datetime) -> Write:
    """What `owe` writes."""
    rows = [
        {"sync": sync, "state": "owed", "due": now, "wanted": 1, "attempts": 0}
        for sync in sorted(set(sync_ids))
    ]
    return Write(fetches, rows, _owing)


@lru_cache
def _owing(kind: str) -> Insert:
    statement = inserting(kind, fetches, ("sync", "state", "due", "wanted", "attempts"))
    running = _running(statement.excluded.due)
    return statement.on_conflict_do_update(
        index_elements=["sync"],
        set_={
            "state": "owed",
            "wanted": fetches.c.wanted + 1,
            "attempts": case((running, fetches.c.attempts), else_=0),
            "due": case((running, fetches.c.due), else_=statement.excluded.due),
            "token": case((running, fetches.c.token), else_=None),
        },
    )


def lock(connection: Connection, sync_ids: Iterable[int]) -> None:
    """Lock these fetches in the order in which everybody does, before two passes over them."""
    some = sorted(sync_ids)
    connection.execute(
        select(fetches.c.sync)
        .where(fetches.c.sync.in_(some))
        .order_by(fetches.c.sync)
        .with_for_update(key_share=True)
    ).all()


def owe_again(connection: Connection, sync_ids: Sequence[int], now: datetime) -> bool:
    """Start again the fetches of these syncs that wait or were given up; True when there is one."""
    if not sync_ids:
        return False
    lock(connection, sync_ids)
    again = connection.execute(
        update(fetches)
        .where(fetches.c.sync.in_(sync_ids), fetches.c.state != "settled", ~_running(now))
        .values(state="owed", due=now, attempts=0, token=None, wanted=fetches.c.wanted + 1)
        .returning(fetches.c.sync)
    )
    return bool(again.scalars().all())


def _running(now: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    return and_(fetches.c.token.is_not(None), fetches.c.due > now)


def claim(
    connection: Connection,
    *,
    now: datetime,
    lease: timedelta,
    limit: int,
    held: Iterable[str] = (),
    of_one: int | None = None,
) -> list[Claim]:
    """Take up to `limit` due fetches, earliest first, while Codat's gate is open.

    `held` names the company of each fetch that the caller has in hand already: of one company it
    gets no more than leaves it with `of_one`, so that a slow one does not keep the others waiting.
    """
    in_hand, most = Counter(held), of_one or limit
    full = [company_id for company_id, count in in_hand.items() if count >= most]
    due: Sequence[int] = connection.execute(_due(now, limit, full)).scalars().all()
    names = _names(connection, due)
    chosen = []
    for sync in due:
        company_id, _ = names[sync]
        in_hand[company_id] += 1
        if in_hand[company_id] <= most:
            chosen.append(sync)
    token = uuid.uuid4().hex
    taken = connection.execute(
        update(fetches)
        .where(fetches.c.sync.in_(chosen))
        .values(due=now + lease, token=token, attempts=fetches.c.attempts + 1)
        .returning(fetches.c.sync, fetches.c.wanted, fetches.c.attempts)
    ).all()
    return [
        Claim(row.sync, *names[row.sync], token, row.wanted, row.attempts, now) for row in taken
    ]


def _due(now: datetime, limit: int, full: Sequence[str]) -> Select[Any]:
    """The earliest fetches that are due, locked; none of these companies."""
    closed = exists(select(gates.c.name).where(gate.is_closed(now)))
    due = select(fetches.c.sync).where(fetches.c.due <= now, ~closed)
    if full:
        looked_at = select(fetches.c.sync).where(fetches.c.due <= now).order_by(fetches.c.due)
        whose = select(syncs.c.company_id).where(syncs.c.id == fetches.c.sync).scalar_subquery()
        due = due.where(fetches.c.sync.in_(looked_at.limit(LOOK_AT)), whose.not_in(full))
    return due.order_by(fetches.c.due).limit(limit).with_for_update(of=fetches, skip_locked=True)


def is_due(connection: Connection, now: datetime) -> bool:
    """True when a fetch is due and Codat's gate is open."""
    some = select(fetches.c.sync).where(fetches.c.due <= now).limit(1)
    if connection.execute(some).first() is None:
        return False
    return gate.closed_until(connection, now) is None


def _names(connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[str, str]]:
    if not numbers:
        return {}
    rows = connection.execute(
        select(syncs.c.id, syncs.c.company_id, syncs.c.sync_id).where(syncs.c.id.in_(numbers))
    ).all()
    return {row.id: (row.company_id, row.sync_id) for row in rows}


def _mine(claimed: Claim) -> ColumnElement[bool]:
    return and_(fetches.c.sync == claimed.sync, fetches.c.token == claimed.token)


def renew(connection: Connection, claimed: Claim, until: datetime) -> bool:
    """Move the lease's end; False when another worker has taken the fetch over."""
    moved = connection.execute(
        update(fetches).where(_mine(claimed)).values(due=until).returning(fetches.c.sync)
    )
    return moved.first() is not None


def wanted_now(connection: Connection, claimed: Claim) -> int | None:
    """How often the fetch has been asked for by now, locked; None when it is no longer ours."""
    return connection.execute(
        select(fetches.c.wanted).where(_mine(claimed)).with_for_update()
    ).scalar()


def put_off(
    connection: Connection, claimed: Claim, *, until: datetime, error: str | None, free: bool
) -> bool:
    """Give the fetch back until a time; `free` gives its attempt back too.

    Wanted once more meanwhile, it is due at once and with all attempts ahead.
    """
    alone = fetches.c.wanted == claimed.wanted
    at_once, later = (literal(at, fetches.c.due.type) for at in (claimed.taken_at, until))
    given = connection.execute(
        update(fetches)
        .where(_mine(claimed))
        .values(
            due=case((alone, later), else_=at_once),
            token=None,
            last_error=error,
            attempts=case((alone, fetches.c.attempts - (1 if free else 0)), else_=0),
        )
        .returning(fetches.c.sync)
    )
    return given.first() is not None


def ask_once_more(connection: Connection, claimed: Claim, now: datetime) -> None:
    """News came while the fetch ran: it is due again, with all attempts ahead."""
    connection.execute(
        update(fetches)
        .where(_mine(claimed))
        .values(due=now, token=None, attempts=0, last_error=None)
    )


def finish(connection: Connection, claimed: Claim) -> None:
    """Nothing is owed any more."""
    connection.execute(
        update(fetches)
        .where(_mine(claimed))
        .values(state="settled", due=None, token=None, last_error=None)
    )


def give_up(
    connection: Connection, claimed: Claim, reason: str, *, refused_at: datetime | None = None
) -> bool:
    """Stop asking, visibly; `redrive`, a refresh or a resent webhook brings it back.

    False when the claim was lost, or it was wanted once more meanwhile: then it is due again.
    `refused_at` is when Codat's answer was final: then reconciliation leaves it alone for a day.
    A failed sync is told to others now, with what is known of it. The sync is locked before its
    fetch, as everywhere.
    """
    one = select(syncs).where(syncs.c.id == claimed.sync).with_for_update(key_share=True)
    row = connection.execute(one).mappings().first()
    dead = connection.execute(
        update(fetches)
        .where(_mine(claimed), fetches.c.wanted == claimed.wanted)
        .values(state="dead", due=None, token=None, last_error=reason, refused_at=refused_at)
        .returning(fetches.c.sync)
    )
    if dead.first() is None or row is None:
        ask_once_more(connection, claimed, claimed.taken_at)
        return False
    announce.ended(connection, claimed.sync, to_sync(row), "dead", claimed.taken_at)
    return True


def redrive(connection: Connection, *, sync_id: str | None, now: datetime) -> int:
    """Put given-up fetches back to work, of one sync or of all; returns how many.

    Raises NotKnown for a sync that is not kept.
    """
    dead = fetches.c.state == "dead"
    if sync_id is not None:
        named = select(syncs.c.id).where(syncs.c.sync_id == sync_id)
        numbers = connection.execute(named).scalars().all()
        if not numbers:
            raise NotKnown("no such sync is known here")
        dead &= fetches.c.sync.in_(numbers)
    back = connection.execute(
        update(fetches)
        .where(dead)
        .values(state="owed", due=now, attempts=0, token=None, wanted=fetches.c.wanted + 1)
        .returning(fetches.c.sync)
    )
    return len(back.scalars().all())
