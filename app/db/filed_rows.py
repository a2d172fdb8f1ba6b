"""Reads what failures are filed of, and what the rows say that should be filed."""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from itertools import groupby, starmap
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    Select,
    Table,
    TableClause,
    Text,
    and_,
    column,
    func,
    literal,
    select,
    table,
    true,
    union_all,
)

from app.db.bulk import Write, given, sent
from app.db.queries.transactions import COMPLETED, rank
from app.db.tables import open_failures, syncs, transactions
from app.db.tables_filed import filed_failures
from app.domain.failing import Filed, Told

Own = tuple[str, str]
"""A company, and the id of one of its transactions, syncs or units."""
Name = tuple[str, str, str, str, str]
"""Company, unit, cause, fingerprint, day."""

LONGEST_KEY = 580  # characters; of four bytes each they still fit into PostgreSQL's index rows
# Asked of a sync's rows only: an index would else lead to the nameless rows of all syncs there are.
NAMELESS = transactions.c.transaction_id.concat("").is_(None)
_OWN = ("company_id", "own_id")
_ASKED = table("asked", *(column(name, Text) for name in _OWN))


def asking(whose: TableClause, keys: Iterable[Any], statement: Callable[[str], Any]) -> Write:
    """A statement that reads, with the keys it asks about."""
    names = tuple(each.name for each in whose.c)
    return Write(whose, [dict(zip(names, key, strict=True)) for key in sorted(keys)], statement)


def fits(own: Own) -> bool:
    """Can it be filed? Older versions have kept syncs with longer ids, which are not."""
    return sum(map(len, own)) <= LONGEST_KEY


def unit_of(kind: str, own: Own) -> Own:
    """A transaction ("t") or a sync ("s") as it is filed."""
    return own[0], kind + own[1]


def known(connection: Connection, touched: Collection[Own]) -> tuple[set[Own], set[Own]]:
    """Which of these transactions are stored as open failures, and which are filed."""
    stored, filed = set(), set()
    if touched:
        found = sent(connection, asking(_ASKED, touched, _knowing))
        stored = {(company_id, own_id) for company_id, own_id, it_is, _ in found if it_is}
        filed = {(company_id, own_id) for company_id, own_id, _, it_is in found if it_is}
    return stored, filed


@lru_cache
def _knowing(kind: str) -> Select[Any]:
    asked = given(kind, _ASKED, _OWN)
    company_id, own_id = asked.c.company_id, asked.c.own_id
    stored = select(open_failures.c.company_id).where(
        open_failures.c.company_id == company_id, open_failures.c.transaction_id == own_id
    )
    filed = select(filed_failures.c.company_id).where(
        filed_failures.c.company_id == company_id,
        filed_failures.c.unit == literal("t", Text).concat(own_id),
    )
    is_stored, is_filed = _is_there(stored), _is_there(filed)
    return select(company_id, own_id, is_stored.label("is_stored"), is_filed.label("is_filed"))


def _is_there(some: Select[Any]) -> ColumnElement[bool]:
    """As EXISTS, but always by index: for EXISTS PostgreSQL may read the whole table first."""
    return some.limit(1).scalar_subquery().is_not(None)


def filed_of(connection: Connection, units: Collection[Own]) -> dict[Name, Filed]:
    """What these units are filed of."""
    rows = sent(connection, asking(_ASKED, units, _reading)) if units else []
    return {(row[0], row[1], row[2], row[3], row[4]): Filed(*row[5:]) for row in rows}


@lru_cache
def _reading(kind: str) -> Select[Any]:
    asked = given(kind, _ASKED, _OWN)
    its = filed_failures.c
    same = and_(its.company_id == asked.c.company_id, its.unit == asked.c.own_id)
    return select(*its).join_from(asked, filed_failures, same)


def histories(connection: Connection, asked: Collection[Own]) -> Iterator[tuple[Own, list[Told]]]:
    """All rows of each of these transactions of which one has failed; of a sync in Codat's order.

    Of two failures in one sync the last one leads, wherever the database happens to keep them.
    """
    rows = sent(connection, asking(_ASKED, asked, _remembering)) if asked else []
    for own, its in groupby(sorted(rows, key=_own_position), _own):
        yield own, list(starmap(Told, (row[2:-1] for row in its)))


def _own(row: tuple[Any, ...]) -> Own:
    return row[0], row[1]


def _own_position(row: tuple[Any, ...]) -> tuple[str, str, int]:
    return row[0], row[1], row[-1]


def _looked_up(
    kind: str, whole: Table, *which: ColumnElement[bool]
) -> tuple[FromClause, ColumnElement[bool]]:
    """To join some rows of a table to each row that is there, always by an index.

    Joined as tables, PostgreSQL without statistics would rather read all of both.
    """
    if kind == "sqlite":
        return whole, and_(*which)
    return select(whole).where(*which).offset(0).lateral(f"its_{whole.name}"), true()


@lru_cache
def _remembering(kind: str) -> Select[Any]:
    asked = given(kind, _ASKED, _OWN)
    its, are_its = _looked_up(kind, transactions, transactions.c.transaction_id == asked.c.own_id)
    # by its id alone, as in `queries_items`
    its_company = syncs.c.company_id.concat("") == asked.c.company_id
    sync, is_its = _looked_up(kind, syncs, syncs.c.id == its.c.sync + 0, its_company)
    is_completed = (rank(its) == COMPLETED).label("completed")
    failures = transactions.alias("failures")
    one_failed = select(failures.c.id).where(
        failures.c.transaction_id == asked.c.own_id, failures.c.failed.is_(True)
    )
    return (
        select(
            *asked.c,
            *(sync.c.occurred_at, sync.c.id, sync.c.day),
            *(its.c.failed, is_completed),
            *(its.c.cause, its.c.fingerprint, its.c.position),
        )
        .join_from(asked, its, are_its)
        .join(sync, is_its)
        .where(_is_there(one_failed.correlate(asked)))
    )


def failing_syncs(connection: Connection, sync_ids: Collection[Own]) -> dict[Name, Filed]:
    """What these syncs are to be filed of: as a whole, and for failed rows without an id.

    Such a row is open for ever, as nothing can say that it was cured.
    """
    rows = sent(connection, asking(_ASKED, sync_ids, _failing)) if sync_ids else []
    found: dict[Name, Filed] = {}
    for company_id, own_id, at, number, day, cause, fingerprint, nameless, wholes in rows:
        name = (*unit_of("s", (company_id, own_id)), cause, fingerprint, day)
        found[name] = Filed("", "", at, at, number, nameless, nameless, wholes)
    return found


@lru_cache
def _failing(kind: str) -> CompoundSelect[Any]:
    asked = given(kind, _ASKED, _OWN)
    mine = and_(syncs.c.company_id == asked.c.company_id, syncs.c.sync_id == asked.c.own_id)
    its = (*asked.c, syncs.c.occurred_at, syncs.c.id, syncs.c.day)
    items, are_its = _looked_up(kind, transactions, transactions.c.sync == syncs.c.id, NAMELESS)
    why = (items.c.cause, items.c.fingerprint)
    nameless = (
        select(*its, *why, func.count().label("nameless"), literal(0).label("wholes"))
        .join_from(asked, syncs, mine)
        .join(items, are_its)
        .where(*(each.is_not(None) for each in why))
        .group_by(*its, *why)
    )
    why_whole = (syncs.c.cause, syncs.c.fingerprint)
    wholes = (
        select(*its, *why_whole, literal(0), literal(1))
        .join_from(asked, syncs, mine)
        .where(*(each.is_not(None) for each in why_whole))
    )
    return union_all(nameless, wholes)
