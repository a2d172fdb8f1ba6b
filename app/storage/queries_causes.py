"""Reads of causes: how many failures of which cause there are, and for whom.

Failures of one cause and one fingerprint are a group: the same sentence, over all companies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from app.storage.causes_by_rows import by_rows
from app.storage.causes_counted import CauseFilter as CauseFilter
from app.storage.causes_counted import Counted, Span, adds_up, by_sums, spans
from app.storage.tables import filed_failures, syncs, transactions


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
    way = by_sums if adds_up(connection, wanted) else by_rows
    causes: list[Counted] = []
    groups: dict[str, list[Counted]] = {}
    for each in sorted(way(connection, wanted), key=_by_weight):
        if each.fingerprint is None:
            causes.append(each)
        else:
            groups.setdefault(each.cause, []).append(each)
    shown = {each.cause: groups[each.cause][:most_groups] for each in causes}
    told = [*causes, *(group for some in shown.values() for group in some)]
    seen = spans(connection, wanted, [(each.cause, each.fingerprint) for each in told])
    kept: list[KeptCause] = []
    for whole in causes:
        some = [
            KeptGroup(
                str(each.fingerprint), _failing(each, seen), _example(connection, wanted, each)
            )
            for each in shown[whole.cause]
        ]
        kept.append(KeptCause(whole.cause, _failing(whole, seen), len(groups[whole.cause]), some))
    return kept


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


def _failing(each: Counted, seen: dict[tuple[str, str | None], Span]) -> Failing:
    span = seen.get((each.cause, each.fingerprint))
    companies = each.companies if each.companies is not None else span.companies if span else 0
    return Failing(
        companies=companies,
        transactions=each.transactions,
        open=each.open,
        syncs=each.syncs,
        first_seen_at=span.first_at if span else None,
        last_seen_at=span.last_at if span else None,
    )


def _example(connection: Connection, wanted: CauseFilter, group: Counted) -> str | None:
    """The newest message of a group, of the wanted company."""
    its = filed_failures.c
    newest = select(its.sync, its.syncs).where(
        its.cause == group.cause, its.fingerprint == group.fingerprint
    )
    if wanted.company_id is not None:
        newest = newest.where(its.company_id == wanted.company_id)
    found = connection.execute(
        newest.order_by(its.last_at.desc(), its.sync.desc()).limit(1)
    ).first()
    if found is None:
        return None
    if found.syncs:
        # as in rows.why_as_a_whole: the text that the fingerprint was made of
        told = func.coalesce(func.nullif(syncs.c.error_message, ""), syncs.c.exception_message)
        said = select(told).where(syncs.c.id == found.sync)
    else:
        of_it = (
            transactions.c.cause == group.cause,
            transactions.c.fingerprint == group.fingerprint,
        )
        said = select(transactions.c.message).where(transactions.c.sync == found.sync, *of_it)
        said = said.order_by(transactions.c.position.desc()).limit(1)
    message: str | None = connection.execute(said).scalar()
    return message
