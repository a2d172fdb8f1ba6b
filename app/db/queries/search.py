"""The search box: a search text as a condition that indexes serve.

A search means exactly one sync id, company id, transaction id or correlation id, also in capitals,
or the beginning of a company's name in any case. Each meaning is looked up first and only those
with a match become part of the condition, so that the usual search is one equality.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    and_,
    exists,
    false,
    or_,
    select,
    union,
)

from app.db.tables import companies, syncs, transactions

MAX_COMPANIES = 50  # as a list of ids. More become a subquery.
LAST_CODE_POINT = chr(0x10FFFF)
_TRANSACTION_IDS = (transactions.c.transaction_id, transactions.c.correlation_id)


MakeCondition = Callable[[ColumnElement[str]], ColumnElement[bool]]
"""Makes the condition; its argument stands for `syncs.company_id`."""


@dataclass(frozen=True, slots=True)
class TransactionMatch:
    """A transaction that a search means."""

    company_id: str
    company_name: str | None
    transaction_id: str


def has_transaction(column: Column[str | None], value: str) -> ColumnElement[bool]:
    """The condition on `syncs` for a transaction with this value."""
    return syncs.c.id.in_(select(transactions.c.sync_pk).where(column == value))


def find(
    connection: Connection,
    q: str,
    is_match: Callable[[Column[str | None], str], ColumnElement[bool]] = operator.eq,
) -> MakeCondition:
    """Look up what a search means, for a condition on `transactions` joined to `syncs`.

    With `has_transaction` as `is_match` it is a condition on `syncs`.
    """
    for text in dict.fromkeys((q, _lower_uuid(q))):
        companies_found = _companies(connection, text)
        others = [syncs.c.sync_id == text] if _exists(connection, syncs.c.sync_id == text) else []
        others += [
            is_match(column, text)
            for column in _TRANSACTION_IDS
            if _exists(connection, column == text)
        ]
        if companies_found is not None or others:
            break

    def make(company_id: ColumnElement[str]) -> ColumnElement[bool]:
        found = [] if companies_found is None else [company_id.in_(companies_found)]
        return or_(false(), *found, *others)

    return make


def find_transactions(connection: Connection, q: str, limit: int) -> list[TransactionMatch]:
    """The transactions of any company with this id or correlation id."""
    ids = sorted({q, _lower_uuid(q)})
    matches = union(
        *(
            select(syncs.c.company_id, companies.c.name, transactions.c.transaction_id)
            .join_from(transactions, syncs, syncs.c.id == transactions.c.sync_pk)
            .outerjoin(companies, companies.c.company_id == syncs.c.company_id)
            .where(column.in_(ids), transactions.c.transaction_id.is_not(None))
            for column in _TRANSACTION_IDS
        )
    ).subquery()
    ordered = select(matches).order_by(matches.c.company_id, matches.c.transaction_id)
    return [TransactionMatch(*row) for row in connection.execute(ordered.limit(limit))]


def name_starts_with(q: str) -> ColumnElement[bool]:
    """The condition on `companies` for the beginning of a name in any case: a range of an index."""
    prefix = q.casefold()
    folded = companies.c.name_folded
    return and_(folded >= prefix, folded <= prefix + LAST_CODE_POINT)


def _lower_uuid(q: str) -> str:
    """A UUID in lower case, as Codat writes it; other systems show the same one in capitals."""
    try:
        return str(UUID(q))
    except ValueError:
        return q


def _companies(connection: Connection, q: str) -> list[str] | Select[tuple[str]] | None:
    """The ids of companies with this id or beginning of a name; a subquery if there are many."""
    named = select(companies.c.company_id).where(name_starts_with(q))
    ids = set(connection.execute(named.limit(MAX_COMPANIES + 1)).scalars())
    if len(ids) > MAX_COMPANIES:
        return named
    if q not in ids and _exists(connection, companies.c.company_id == q):
        ids.add(q)
    return sorted(ids) or None


def _exists(connection: Connection, condition: ColumnElement[bool]) -> bool:
    return bool(connection.execute(select(exists().where(condition))).scalar())
