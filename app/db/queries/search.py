"""The search box: a search text as a condition that indexes serve.

A search means exactly one sync id, company id, transaction id or correlation id, also in capitals;
or else at least the first eight characters of such ids, as lists show them; or words of a company's
name, as people type them. Each meaning is looked up first and only those with a match become part
of the condition, so that the usual search is one equality.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    and_,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    union,
)

from app.db.many_rows import is_any_of
from app.db.tables import companies, syncs, transactions
from app.domain.names import fold_name

MAX_COMPANIES = 50  # as a list of values. More become one value.
MAX_IDS = 50  # with one beginning. What begins more is not the beginning of an id.
MAX_WORDS = 100  # no name has more
_TRANSACTION_IDS = (transactions.c.transaction_id, transactions.c.correlation_id)
_BEGINNING = re.compile(r"[!-~]{7,}[0-9A-Za-z]")
_LAST_TO_INCREASE = re.compile(r"(.*)([0-9A-Ya-y])[^0-9A-Ya-y]*")
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"

IdColumn = Column[Any]
MakeCondition = Callable[[ColumnElement[str]], ColumnElement[bool]]
"""Makes the condition; its argument stands for `syncs.company_id`."""


@dataclass(frozen=True, slots=True)
class TransactionMatch:
    """A transaction that a search means."""

    company_id: str
    company_name: str | None
    transaction_id: str


@dataclass(frozen=True, slots=True)
class SyncMatch:
    """A sync that a search means."""

    company_id: str
    sync_id: str


def is_one_of(column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
    """An equality where possible: it keeps the order of an index, which IN does not."""
    return column.in_(values) if len(values) > 1 else column == next(iter(values))


def has_transaction(column: IdColumn, values: Collection[str]) -> ColumnElement[bool]:
    """The condition on `syncs` for a transaction with one of these values."""
    return syncs.c.id.in_(select(transactions.c.sync_pk).where(is_one_of(column, values)))


def find(
    connection: Connection,
    q: str,
    is_match: Callable[[IdColumn, Collection[str]], ColumnElement[bool]] = is_one_of,
) -> MakeCondition:
    """Look up what a search means, for a condition on `transactions` joined to `syncs`.

    With `has_transaction` as `is_match` it is a condition on `syncs`.
    """
    ids = find_ids(connection, q, companies.c.company_id, syncs.c.sync_id, *_TRANSACTION_IDS)
    named = select(companies.c.company_id).where(has_name(q))
    company_ids = sorted(
        {*ids.pop(companies.c.company_id, []), *connection.execute(named).scalars()}
    )
    others = [
        (is_one_of if column is syncs.c.sync_id else is_match)(column, values)
        for column, values in ids.items()
    ]

    def make(company_id: ColumnElement[str]) -> ColumnElement[bool]:
        of_companies = []
        if len(company_ids) > MAX_COMPANIES:  # one value, whose length PostgreSQL counts with
            of_companies = [is_any_of(connection, company_id, company_ids)]
        elif company_ids:
            of_companies = [company_id.in_(company_ids)]
        return or_(false(), *of_companies, *others)

    return make


def find_ids(connection: Connection, q: str, *columns: IdColumn) -> dict[IdColumn, list[str]]:
    """The ids that a text means in these columns: exactly, or else by their beginning."""
    text = q.strip().strip(_INVISIBLE).strip()
    unmarked = text.removeprefix("'")  # as a CSV file for spreadsheets marks it
    for exact in dict.fromkeys((q, text, unmarked, _lower_uuid(text))):
        found = {column: [exact] for column in columns if _exists(connection, column == exact)}
        if found:
            return found
    for beginning in dict.fromkeys((text, text.lower(), text.upper())):
        matches = {column: _beginning_with(connection, column, beginning) for column in columns}
        if any(matches.values()):
            return {column: ids for column, ids in matches.items() if ids}
    return {}


def find_only(connection: Connection, q: str) -> TransactionMatch | SyncMatch | None:
    """The one transaction or sync that a search means; None if it means several things."""
    ids = find_ids(connection, q, companies.c.company_id, syncs.c.sync_id, *_TRANSACTION_IDS)
    if not ids or companies.c.company_id in ids or _exists(connection, has_name(q)):
        return None
    if syncs.c.sync_id not in ids:
        matches = find_transactions(connection, q, 2)
        return matches[0] if len(matches) == 1 else None
    is_meant = syncs.c.sync_id.in_(ids[syncs.c.sync_id])
    found = select(syncs.c.company_id, syncs.c.sync_id).where(is_meant).limit(2)
    rows = connection.execute(found).all()
    return SyncMatch(*rows[0]) if len(ids) == len(rows) == 1 else None


def find_transactions(connection: Connection, q: str, limit: int) -> list[TransactionMatch]:
    """The transactions of any company with this id or correlation id, or its beginning."""
    matches = [
        select(syncs.c.company_id, companies.c.name, transactions.c.transaction_id)
        .join_from(transactions, syncs, syncs.c.id == transactions.c.sync_pk)
        .outerjoin(companies, companies.c.company_id == syncs.c.company_id)
        .where(is_one_of(column, ids), transactions.c.transaction_id.is_not(None))
        for column, ids in find_ids(connection, q, *_TRANSACTION_IDS).items()
    ]
    if not matches:
        return []
    found = union(*matches).subquery()
    ordered = select(found).order_by(found.c.company_id, found.c.transaction_id)
    return [TransactionMatch(*row) for row in connection.execute(ordered.limit(limit))]


def has_name(q: str) -> ColumnElement[bool]:
    """The condition on `companies` for a name of which each of these words begins a word.

    The index of all names is read: 2,000 names take less than 2 ms.
    """
    words = dict.fromkeys(fold_name(q).split())
    if not 0 < len(words) <= MAX_WORDS:
        return false()
    spaced = literal(" ") + companies.c.name_folded
    return and_(*(spaced.contains(f" {word}", autoescape=True) for word in words))


def _beginning_with(connection: Connection, column: IdColumn, text: str) -> list[str]:
    """The ids with this beginning of eight characters or more; none if they are too many.

    The range is one of the index in any collation of PostgreSQL; the other condition is exact.
    """
    beginning = text.rstrip("-")
    if not _BEGINNING.fullmatch(beginning):
        return []
    conditions = [column >= beginning, func.substr(column, 1, len(beginning)) == beginning]
    if match := _LAST_TO_INCREASE.fullmatch(beginning):
        last = match[2]
        conditions.append(column < match[1] + ("a" if last == "9" else chr(ord(last) + 1)))
    ids = select(column).where(*conditions).distinct().order_by(column).limit(MAX_IDS + 1)
    found = connection.execute(ids).scalars().all()
    return [] if len(found) > MAX_IDS else list(filter(None, found))


def _lower_uuid(q: str) -> str:
    """A UUID in lower case, as Codat writes it; other systems show the same one in capitals."""
    try:
        return str(UUID(q))
    except ValueError:
        return q


def _exists(connection: Connection, condition: ColumnElement[bool]) -> bool:
    return bool(connection.execute(select(exists().where(condition))).scalar())
