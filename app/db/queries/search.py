"""The search box: what a person may have pasted, turned into an indexed condition.

A search means exactly one sync id, company id, transaction id or correlation id, in capitals too,
or the beginning of a company's name in any case. Each meaning is probed by its index first, and
only those that exist become part of the condition; so the usual search is one plain equality.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, false, or_, select, union

from app.db import rare
from app.db.tables import companies, syncs, transactions

FEW = 50
FIRST_SURROGATE, LAST = 0xD800, 0x10FFFF  # surrogates are no text


@dataclass(frozen=True, slots=True)
class Named:
    """A transaction that a search means."""

    company_id: str
    company_name: str | None
    transaction_id: str


def syncs_found(connection: Connection, q: str) -> ColumnElement[bool]:
    """The condition on `syncs` for a search."""
    return or_(false(), *(_syncs(connection, q) or _syncs(connection, _as_codat_writes(q))))


def items_found(connection: Connection, q: str) -> ColumnElement[bool]:
    """The condition on `transactions` joined to `syncs` for a search."""
    return or_(false(), *(_items(connection, q) or _items(connection, _as_codat_writes(q))))


def _as_codat_writes(q: str) -> str:
    """An id in small letters; other systems show the same one in capitals."""
    try:
        return str(UUID(q))
    except ValueError:
        return q


def _syncs(connection: Connection, q: str) -> list[ColumnElement[bool]]:
    found = _on_syncs(connection, q)
    for column in (transactions.c.transaction_id, transactions.c.correlation_id):
        if _any(connection, column == q):
            found.append(syncs.c.id.in_(select(transactions.c.sync).where(column == q)))
    return found


def _items(connection: Connection, q: str) -> list[ColumnElement[bool]]:
    found = _on_syncs(connection, q)
    for column in (transactions.c.transaction_id, transactions.c.correlation_id):
        if _any(connection, column == q):
            found.append(column == q)
    return found


def transactions_named(connection: Connection, q: str, most: int) -> list[Named]:
    """The transactions whose id or correlation id this is, of any company, at most so many."""
    either = sorted({q, _as_codat_writes(q)})
    each = [
        select(syncs.c.company_id, companies.c.name, transactions.c.transaction_id)
        .join_from(transactions, syncs, syncs.c.id == transactions.c.sync)
        .outerjoin(companies, companies.c.company_id == syncs.c.company_id)
        .where(column.in_(either), transactions.c.transaction_id.is_not(None))
        for column in (transactions.c.transaction_id, transactions.c.correlation_id)
    ]
    found = union(*each).subquery()
    ordered = select(found).order_by(found.c.company_id, found.c.transaction_id)
    return [Named(*row) for row in connection.execute(ordered.limit(most))]


def companies_named(q: str) -> ColumnElement[bool]:
    """The condition on `companies` for a name's beginning, in any case: a range of an index."""
    first = q.casefold()
    end = _after_all(first)
    begins = companies.c.name_folded >= first
    return begins if end is None else and_(begins, companies.c.name_folded < end)


def _after_all(beginning: str) -> str | None:
    """The smallest text after all that begin so, by code point; None when there is none."""
    kept = beginning.rstrip(chr(LAST))
    if not kept:
        return None
    after = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if after == FIRST_SURROGATE else after)


def _on_syncs(connection: Connection, q: str) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if _any(connection, syncs.c.sync_id == q):
        found.append(syncs.c.sync_id == q)
    named = select(companies.c.company_id).where(companies_named(q))
    ids = set(connection.execute(named.limit(FEW + 1)).scalars())
    if len(ids) > FEW:
        return [*found, _of_many(connection, named)]
    if q not in ids and _any(connection, companies.c.company_id == q):
        ids.add(q)
    return found + _among(sorted(ids))


def _of_many(connection: Connection, named: Select[tuple[str]]) -> ColumnElement[bool]:
    """Syncs of many companies. SQLite would find and sort them all, where they may be a good part
    of the table; `|| ''` leaves it the walk in the wanted order, which soon meets enough of them.
    """
    plain = syncs.c.company_id.in_(named)
    theirs = select(syncs.c.id).where(plain)
    if connection.dialect.name != "sqlite" or rare.few(connection, theirs, rare.FEW):
        return plain
    return syncs.c.company_id.concat("").in_(named)


def _among(ids: list[str]) -> list[ColumnElement[bool]]:
    """A plain equality where it can be one: it leaves an index in its order."""
    if len(ids) == 1:
        return [syncs.c.company_id == ids[0]]
    return [syncs.c.company_id.in_(ids)] if ids else []


def _any(connection: Connection, condition: ColumnElement[bool]) -> bool:
    return bool(connection.execute(select(exists().where(condition))).scalar())
