"""Reads of causes: how many failures of which cause there are, and for whom.

Failures of one cause and one fingerprint are a group: the same sentence, over all companies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from sqlalchemy import Connection, func, select

from app.db.causes_by_rows import by_rows
from app.db.causes_counted import CauseFilter as CauseFilter
from app.db.causes_counted import Counted, by_sums, in_days
from app.db.causes_seen import Key, Seen, look_at
from app.db.tables import transactions


@dataclass(frozen=True, slots=True)
class Failing:
    """How many failures there are of something, and since when.

    `transactions` counts each of a company once, however often it was tried; `open` those that
    nothing has cured since; `syncs` those that failed as a whole. When it was first and last seen
    is told of all times, whatever range is wanted; None while it is not counted yet.
    """

    companies: int
    transactions: int
    open: int
    syncs: int
    first_seen_at: datetime | None
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """The failures of one cause with one fingerprint, and the newest of their messages."""

    fingerprint: str
    failing: Failing
    example: str | None = None


@dataclass(frozen=True, slots=True)
class KeptCause:
    """The failures of one cause; its groups with the most transactions first."""

    cause: str
    failing: Failing
    group_count: int
    groups: Sequence[KeptGroup]


def list_causes(
    connection: Connection, wanted: CauseFilter, *, most_groups: int = 10
) -> list[KeptCause]:
    """The causes of the wanted failures, those with the most open transactions first.

    On a connection of `journal.caught_up`, for what is open and what is counted is written down.
    """
    days = in_days(connection, wanted)
    found = by_sums(connection, days) if days else by_rows(connection, wanted)
    causes: list[Counted] = []
    groups: dict[str, list[Counted]] = {}
    for each in sorted(found, key=_by_weight):
        if each.fingerprint is None:
            causes.append(each)
        else:
            groups.setdefault(each.cause, []).append(each)
    shown = {each.cause: groups[each.cause][:most_groups] for each in causes}
    told = [*causes, *chain.from_iterable(shown.values())]
    seen = look_at(connection, days or wanted, [(each.cause, each.fingerprint) for each in told])
    return [
        KeptCause(
            whole.cause,
            _failing(whole, seen),
            len(groups[whole.cause]),
            [_group(each, seen) for each in shown[whole.cause]],
        )
        for whole in causes
    ]


def causes_in(connection: Connection, number: int) -> list[tuple[str | None, int]]:
    """Why items of one sync failed, and how many each time; the most frequent cause first."""
    count = func.count()
    found = connection.execute(
        select(transactions.c.cause, count)
        .where(transactions.c.sync == number, transactions.c.failed.is_(True))
        .group_by(transactions.c.cause)
        .order_by(count.desc(), transactions.c.cause)
    )
    return [(row[0], row[1]) for row in found]


def _by_weight(each: Counted) -> tuple[int, int, int, str, str]:
    return (-each.open, -each.transactions, -each.syncs, each.cause, each.fingerprint or "")


def _group(each: Counted, seen: Mapping[Key, Seen]) -> KeptGroup:
    its = seen.get((each.cause, each.fingerprint))
    return KeptGroup(str(each.fingerprint), _failing(each, seen), its.example if its else None)


def _failing(each: Counted, seen: Mapping[Key, Seen]) -> Failing:
    its = seen.get((each.cause, each.fingerprint))
    companies = each.companies if each.companies is not None else its.companies if its else 0
    times = (its.first_at, its.last_at) if its else (None, None)
    return Failing(companies, each.transactions, each.open, each.syncs, *times)
