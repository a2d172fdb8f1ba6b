"""When failures of a cause or message began and ended, of how many companies, and what was said.

All of it is looked up by indexes, for all that is asked about at once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    Text,
    column,
    distinct,
    func,
    or_,
    select,
    table,
    tuple_,
)

from app.db.bulk import given
from app.db.causes_counted import CauseFilter
from app.db.tables import filed_days, filed_failures, filed_spans, syncs, transactions
from app.domain.sync_state import day_of

Key = tuple[str, str | None]
"""A cause, and the fingerprint of a message or None for the cause as a whole."""

_NAMES = ("cause", "fingerprint")
_GROUPS = table("groups", *(column(name, Text) for name in _NAMES))


@dataclass(frozen=True, slots=True)
class Seen:
    """Of failures of all times: the first and the last, and the newest message as it came.

    `companies` counts those that had some in the wanted range of days. A cause has no message.
    """

    companies: int
    first_at: datetime
    last_at: datetime
    example: str | None


def look_at(connection: Connection, wanted: CauseFilter, keys: Collection[Key]) -> dict[Key, Seen]:
    """The failures of these causes and messages, of the wanted company or of all."""
    rows = _looked_up(connection, wanted, keys)
    said = _messages(connection, [row for row in rows if row.fingerprint])
    return {
        (row.cause, row.fingerprint or None): Seen(
            row.companies, row.first_at, row.last_at, said.get((row.cause, row.fingerprint))
        )
        for row in rows
        if row.last_at is not None
    }


def _looked_up(connection: Connection, wanted: CauseFilter, keys: Collection[Key]) -> Sequence[Any]:
    groups = given(connection.dialect.name, _GROUPS, _NAMES)
    spans, newest = _of(filed_spans, wanted, groups), _of(filed_failures, wanted, groups)
    companies = _companies(wanted, groups)
    first, last = func.min(filed_spans.c.first_at), func.max(filed_spans.c.last_at)
    order = (filed_failures.c.last_at.desc(), filed_failures.c.sync.desc())
    statement = select(
        *groups.c,
        companies.scalar_subquery().label("companies"),
        select(first).where(*spans).scalar_subquery().label("first_at"),
        select(last).where(*spans).scalar_subquery().label("last_at"),
        *(
            select(each).where(*newest).order_by(*order).limit(1).scalar_subquery().label(each.name)
            for each in (filed_failures.c.sync, filed_failures.c.syncs)
        ),
    )
    told = [dict(zip(_NAMES, (cause, message or ""), strict=True)) for cause, message in keys]
    return connection.execute(statement, {"groups_rows": orjson.dumps(told).decode()}).all()


def _companies(wanted: CauseFilter, groups: FromClause) -> Select[Any]:
    """How many had some: those whose last is in the range, or, where it has ended, those by day."""
    if wanted.until:
        its = filed_days.c
        days = [its.day >= day_of(wanted.since)] if wanted.since else []
        some = (its.day < day_of(wanted.until), or_(its.transactions > 0, its.syncs > 0))
        found = select(func.count(distinct(its.company_id))).where(*days, *some)
        return found.where(*_of(filed_days, wanted, groups))
    since = [filed_spans.c.last_at >= wanted.since] if wanted.since else []
    return select(func.count()).where(*_of(filed_spans, wanted, groups), *since)


def _of(its: Table, wanted: CauseFilter, groups: FromClause) -> list[ColumnElement[bool]]:
    same = [its.c[name] == groups.c[name] for name in _NAMES]
    mine = [its.c.company_id == wanted.company_id] if wanted.company_id is not None else []
    return same + mine


def _messages(connection: Connection, groups: Collection[Any]) -> Mapping[Key, str | None]:
    """What was said in the newest sync of each group: the last of its rows, or the whole sync."""
    of_items = [(row.sync, row.cause, row.fingerprint) for row in groups if not row.syncs]
    its = transactions.c
    rows = connection.execute(
        select(its.cause, its.fingerprint, its.message)
        .where(its.sync.in_({sync for sync, *_ in of_items}))  # by an index, on SQLite too
        .where(tuple_(its.sync, its.cause, its.fingerprint).in_(of_items))
        .order_by(its.position)
    )
    said: dict[Key, str | None] = {(row.cause, row.fingerprint): row.message for row in rows}
    of_syncs = {row.sync for row in groups if row.syncs}
    # as in rows.why_as_a_whole: the text that the fingerprint was made of
    told = func.coalesce(func.nullif(syncs.c.error_message, ""), syncs.c.exception_message)
    wholes = select(syncs.c.cause, syncs.c.fingerprint, told).where(syncs.c.id.in_(of_syncs))
    return said | {(cause, key): message for cause, key, message in connection.execute(wholes)}
