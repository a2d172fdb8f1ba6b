"""Reads of syncs: lists, one, a company's latest. Nothing here writes.

A sync's *own time* orders syncs as they happened at Codat, whatever the order in which news of
them came in: when it started, else when it finished, else when we first heard of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    RowMapping,
    Select,
    func,
    select,
    tuple_,
)

from app.db import rare, windows
from app.db import rate_limit as gate
from app.db.caused import caused_by
from app.db.pagination import Order, read_page
from app.db.queries.search import syncs_found
from app.db.sync_rows import to_sync
from app.db.tables import companies, fetches, gates, syncs
from app.domain.sync_state import ErrorsState, FetchState, Sync, errors_state
from app.errors import Conflicting, NotKnown

MOST_AT_ONCE = 200
SUCCESSFUL = ("all_written", "nothing_to_write")
_DEFAULT_SORT = "-updated_at"


def own_time(table: FromClause) -> ColumnElement[datetime]:
    """The time by which syncs are "newer" and "older", over `syncs` or an alias of it."""
    return table.c.occurred_at


OWN_TIME: ColumnElement[Any] = own_time(syncs)

_KEYS: dict[str, tuple[ColumnElement[Any], ...]] = {
    "updated_at": (syncs.c.updated_at, syncs.c.id),
    "started_at": (syncs.c.started_at, syncs.c.id),
    "finished_at": (syncs.c.finished_at, syncs.c.id),
    "company_id": (syncs.c.company_id, syncs.c.sync_id),
    "status_code": (syncs.c.status_code, syncs.c.id),
}
_MAY_BE_UNKNOWN = frozenset({"started_at", "finished_at", "status_code"})

_FETCH = ("state", "due", "token", "attempts", "last_error")
_NAME = select(companies.c.name).where(companies.c.company_id == syncs.c.company_id)
_PLATFORM = select(companies.c.platform).where(companies.c.company_id == syncs.c.company_id)
_SYNC = select(
    syncs,
    _NAME.correlate(syncs).scalar_subquery().label("company_name"),
    _PLATFORM.correlate(syncs).scalar_subquery().label("source_platform"),
    *(fetches.c[name].label(f"fetch_{name}") for name in _FETCH),
    select(gates.c.closed_until).where(gate.HOLDS).scalar_subquery().label("gate_closed_until"),
    select(gates.c.reason).where(gate.HOLDS).scalar_subquery().label("gate_reason"),
).select_from(syncs.outerjoin(fetches, fetches.c.sync == syncs.c.id))


@dataclass(frozen=True, slots=True)
class Fetch:
    """What we owe ourselves to ask about a sync. `next_attempt_at` is None while one runs.

    While all calls to Codat rest, it is when they may go on; `last_error` may be why they rest.
    """

    state: FetchState
    attempts: int
    next_attempt_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class KeptSync:
    """A sync with what is kept beside it. `number` is our own short name for it."""

    number: int
    sync: Sync
    updated_at: datetime
    company_name: str | None
    fetch: Fetch | None
    cause: str | None = None
    source_platform: str | None = None

    @property
    def errors_state(self) -> ErrorsState:
        """How much is known of its item errors."""
        return errors_state(self.sync, self.fetch.state if self.fetch else None)


@dataclass(frozen=True, slots=True)
class SyncFilter:
    """Which syncs are wanted. Empty means all; `since` is inclusive, `until` is not.

    Both times are compared with a sync's own time.
    """

    company_id: str | None = None
    states: Sequence[str] = ()
    outcomes: Sequence[str] = ()
    status_codes: Sequence[int] = ()
    cause: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str | None = None

    @property
    def has_only_a_range(self) -> bool:
        """True when nothing but a range of time is asked for."""
        several = (*self.states, *self.outcomes, *self.status_codes)
        return not several and self.company_id is self.cause is self.q is None


@dataclass(frozen=True, slots=True)
class SyncPage:
    """Some syncs, and the cursor of the page after them."""

    items: list[KeptSync]
    next: str | None


def list_syncs(
    connection: Connection,
    wanted: SyncFilter,
    *,
    sort: str = _DEFAULT_SORT,
    cursor: str | None = None,
    limit: int = 50,
) -> SyncPage:
    """One page of the wanted syncs. `sort` is a key of the contract, `-` before it for descending.

    Raises BadRequest naming `cursor` when it belongs to another list or sort.
    """
    name = sort.removeprefix("-")
    order = _order(sort, name, wanted)
    statement = _SYNC.where(*_conditions(connection, wanted))
    few: Column[Any] | None = None
    first: list[ColumnElement[bool]] = []
    if wanted.since or wanted.until:
        inside = within(OWN_TIME, wanted.since, wanted.until)
        span = windows.Range(wanted.since, wanted.until, inside)
        alone = name == "updated_at" and wanted.has_only_a_range
        few, first = windows.plan(connection, order, cursor, limit, span, alone=alone)
    if few is None and name != "updated_at":  # which each plain condition has an index with
        few, first = rare.plan(connection, _plain(wanted))
    listed = statement.where(*first)
    page = read_page(connection, listed, order, cursor=cursor, limit=limit, few=few)
    return SyncPage([_kept(row) for row in page.rows], page.next)


def _order(sort: str, name: str, wanted: SyncFilter) -> Order:
    """A start that is known is the sync's own time: an index by that serves the start as well."""
    by_start = name == "started_at"
    return Order(
        f"syncs:{sort}",
        _KEYS[name],
        sort.startswith("-"),
        name in _MAY_BE_UNKNOWN,
        within(syncs.c.started_at, wanted.since, wanted.until) if by_start else (),
        (OWN_TIME, syncs.c.id) if by_start and wanted.company_id is not None else (),
    )


def _conditions(connection: Connection, wanted: SyncFilter) -> list[ColumnElement[bool]]:
    conditions = [*_plain(wanted), *within(OWN_TIME, wanted.since, wanted.until)]
    if wanted.cause is not None:
        conditions.append(caused_by(connection, wanted.cause))
    if wanted.q is not None:
        conditions.append(syncs_found(connection, wanted.q))
    return conditions


def _plain(wanted: SyncFilter) -> list[ColumnElement[bool]]:
    """The conditions on what a sync is, each of which has an index."""
    return [
        *_one_of(syncs.c.company_id, [wanted.company_id] if wanted.company_id else []),
        *_one_of(syncs.c.state, wanted.states),
        *_one_of(syncs.c.outcome, wanted.outcomes),
        *_one_of(syncs.c.status_code, wanted.status_codes),
    ]


def _one_of(column: ColumnElement[Any], values: Sequence[Any]) -> list[ColumnElement[bool]]:
    """A plain equality where it can be one: it leaves an index in its order."""
    if not values:
        return []
    return [column == values[0] if len(values) == 1 else column.in_(list(values))]


def within(
    column: ColumnElement[Any], since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    """The conditions for a time from `since` on and before `until`."""
    lower = [column >= since] if since else []
    return [*lower, column < until] if until else lower


def get_sync(connection: Connection, sync_id: str, company_id: str | None = None) -> KeptSync:
    """The sync of this id. Raises NotKnown, or Conflicting when two companies have one."""
    statement = _SYNC.where(syncs.c.sync_id == sync_id)
    if company_id is not None:
        statement = statement.where(syncs.c.company_id == company_id)
    found = connection.execute(statement.limit(2)).mappings().all()
    if not found:
        raise NotKnown("no such sync is known here")
    if len(found) > 1:
        raise Conflicting("several companies have a sync of this id: say which company_id")
    return _kept(found[0])


def latest_sync(connection: Connection, company_id: str) -> KeptSync:
    """The company's newest sync by its own time. Raises NotKnown when it has none."""
    return _newest(connection, _of(company_id), "no sync of this company is known here")


def last_successful_sync(connection: Connection, company_id: str) -> KeptSync:
    """The newest sync that Codat's own verdict proves complete, with or without data to write.

    Raises NotKnown when the company has none.
    """
    proved = _of(company_id).where(syncs.c.state == "completed", syncs.c.outcome.in_(SUCCESSFUL))
    return _newest(connection, proved, "no successful sync of this company is known here")


def open_whole_failure(connection: Connection, company_id: str) -> KeptSync | None:
    """The company's newest sync that failed with no failed item to show for it.

    None when there is none, or a later sync is proved complete.
    """
    wanted = _of(company_id).where(
        syncs.c.outcome == "failed", func.coalesce(syncs.c.failed, 0) == 0
    )
    good = select(OWN_TIME, syncs.c.id).where(
        syncs.c.company_id == company_id, syncs.c.outcome.in_(SUCCESSFUL)
    )
    last = connection.execute(good.order_by(OWN_TIME.desc(), syncs.c.id.desc()).limit(1)).first()
    if last is not None:
        wanted = wanted.where(tuple_(OWN_TIME, syncs.c.id) > tuple_(*last))
    found = _in_own_order(connection, wanted, 1)
    return found[0] if found else None


def newest_syncs(connection: Connection, company_id: str, most: int) -> list[KeptSync]:
    """The company's newest syncs by their own time, at most so many, newest first."""
    return _in_own_order(connection, _of(company_id), most)


def syncs_by_number(connection: Connection, numbers: Sequence[int]) -> dict[int, KeptSync]:
    """These syncs by our own numbers; one that is gone is left out."""
    if not numbers:
        return {}
    rows = connection.execute(_SYNC.where(syncs.c.id.in_(numbers))).mappings()
    return {row["id"]: _kept(row) for row in rows}


def _of(company_id: str) -> Select[Any]:
    return _SYNC.where(syncs.c.company_id == company_id)


def _newest(connection: Connection, statement: Select[Any], otherwise: str) -> KeptSync:
    found = _in_own_order(connection, statement, 1)
    if not found:
        raise NotKnown(otherwise)
    return found[0]


def _in_own_order(connection: Connection, statement: Select[Any], most: int) -> list[KeptSync]:
    ordered = statement.order_by(OWN_TIME.desc(), syncs.c.id.desc()).limit(most)
    return [_kept(row) for row in connection.execute(ordered).mappings()]


def _kept(row: RowMapping) -> KeptSync:
    return KeptSync(
        number=row["id"],
        sync=to_sync(row),
        updated_at=row["updated_at"],
        company_name=row["company_name"],
        fetch=_fetch(row),
        cause=row["cause"],
        source_platform=row["source_platform"],
    )


def _fetch(row: RowMapping) -> Fetch | None:
    state: FetchState | None = row["fetch_state"]
    if state is None:
        return None
    due = row["fetch_due"] if state == "owed" and row["fetch_token"] is None else None
    error, rests_until = row["fetch_last_error"], row["gate_closed_until"]
    if due and rests_until and due < rests_until:
        due, error = rests_until, error or row["gate_reason"]
    return Fetch(state, row["fetch_attempts"], next_attempt_at=due, last_error=error)
