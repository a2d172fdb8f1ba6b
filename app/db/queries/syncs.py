"""Queries for syncs: a filtered list, one sync, the latest syncs of a company.

`occurred_at` orders syncs as they happened at Codat, whatever the order in which events arrived:
the start, else the end, else when the sync was first seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    RowMapping,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
    tuple_,
    union_all,
)

from app.db import rate_limit
from app.db.pagination import Order, Page, read_page
from app.db.queries.access_paths import Condition, clauses, make_condition, rare_condition
from app.db.queries.open_rows import count_open
from app.db.queries.search import find, has_transaction, is_one_of
from app.db.sync_rows import to_sync
from app.db.tables import companies, jobs, rate_limit_pauses, syncs, transactions
from app.domain.sync_state import ErrorsState, JobState, Outcome, Sync, errors_state
from app.errors import Conflict, NotFound

MAX_LIMIT = 200
SUCCESSFUL = ("all_written", "nothing_to_write")
DEFAULT_SORT = "-updated_at"
FEW_IN_RANGE = 50_000  # syncs of a time range that are looked up and then sorted

_NULLABLE = frozenset({"started_at", "finished_at", "status_code"})
# Each sort order is that of an index. A known start is also `occurred_at`, which has one.
_SORT_KEYS: dict[str, tuple[str, ...]] = {
    "updated_at": ("updated_at", "id"),
    "started_at": ("occurred_at", "id"),
    "finished_at": ("finished_at", "id"),
    "company_id": ("company_id", "sync_id"),
    "status_code": ("status_code", "updated_at", "id"),
}
_SORTED = ("id", "company_id", "sync_id", *("updated_at", "occurred_at"), *sorted(_NULLABLE))
_OUTCOMES: dict[str, tuple[Outcome, ...]] = {
    "started": ("in_progress", "unknown"),
    "completed": ("all_written", "nothing_to_write", "unknown"),
    "failed": ("partly_failed", "failed"),
}

_COMPANY = (companies.c.name.label("company_name"), companies.c.platform.label("source_platform"))
_JOB = tuple(
    jobs.c[name].label(f"job_{name}")
    for name in ("state", "run_at", "lease_token", "attempts", "last_error")
)
_PAUSE = tuple(
    select(rate_limit_pauses.c[name]).where(rate_limit.NOT_RESUMED).scalar_subquery().label(name)
    for name in ("paused_until", "reason")
)
_OPEN_FAILURES = count_open().label("open_failures")
_SYNC: Select[Any] = select(syncs, _OPEN_FAILURES, *_COMPANY, *_JOB, *_PAUSE).select_from(
    syncs.outerjoin(companies, companies.c.company_id == syncs.c.company_id).outerjoin(
        jobs, and_(jobs.c.kind == "fetch", jobs.c.key == syncs.c.id)
    )
)


@dataclass(frozen=True, slots=True)
class FetchJob:
    """The job that fetches a sync from Codat.

    `next_attempt_at` is None while an attempt is running or none is due. During a rate-limit pause
    it is not before the end of the pause, and `last_error` may be the reason for the pause.
    """

    state: JobState
    attempts: int
    next_attempt_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class SyncRecord:
    """A sync with what is stored beside it; `pk` is `syncs.id`.

    `open_failures` are its failed rows that no later sync has completed.
    """

    pk: int
    sync: Sync
    updated_at: datetime
    company_name: str | None
    source_platform: str | None
    cause_key: str | None
    open_failures: int | None
    job: FetchJob | None

    @property
    def errors_state(self) -> ErrorsState:
        """How much is known about the errors of its transactions."""
        return errors_state(self.sync, self.job.state if self.job else None)

    @property
    def is_list_unread(self) -> bool:
        """True when zero failed rows prove nothing: none is listed, and Codat's list is missing."""
        counts = self.sync.counts
        is_unread = self.errors_state in ("waiting", "incomplete", "given_up")
        return not (counts and counts.total) and (is_unread or self.sync.state == "started")

    @property
    def no_retry_reason(self) -> str | None:
        """Why there is nothing to retry; None if there is."""
        failed = self.sync.counts.failed if self.sync.counts else 0
        if self.is_list_unread:
            return "Nothing to retry yet: Codat has not returned the items."
        if failed == 1 and not self.open_failures:
            return "1 item failed; a later sync has recorded it. Nothing to do."
        if failed and not self.open_failures:
            return f"{failed:,} items failed; later syncs have recorded them. Nothing to do."
        if failed:
            return None
        if self.sync.state == "failed":
            return (
                "Nothing to retry: Codat returned no items. Fix the cause, then start a new sync."
            )
        return "Nothing to retry: no item failed."

    @property
    def shown_job(self) -> FetchJob:
        """The fetch as callers see it: one that confirms what is known shows only if it fails."""
        job, attempts = self.job or FetchJob("done", 0, None, None), self.sync.fetch_attempts
        if self.errors_state in ("fetched", "not_needed") and attempts and not job.last_error:
            return replace(job, attempts=attempts, next_attempt_at=None)
        return job


@dataclass(frozen=True, slots=True)
class SyncFilter:
    """Conditions on syncs; an empty one is always met.

    `since` (inclusive) and `until` (exclusive) are compared with `occurred_at`. `cause` is met by
    a sync that failed as a whole for this cause or has a transaction that did.
    """

    company_id: str | None = None
    states: Sequence[str] = ()
    outcomes: Sequence[str] = ()
    status_codes: Sequence[int] = ()
    cause: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str | None = None


SyncPage = Page[SyncRecord]


def list_syncs(
    connection: Connection,
    criteria: SyncFilter,
    *,
    sort: str = DEFAULT_SORT,
    cursor: str | None = None,
    limit: int = 50,
) -> SyncPage:
    """One page of syncs. `sort` is a key of _SORT_KEYS, after `-` for descending.

    Raises BadRequest naming `cursor` when it belongs to another list or sort order.
    """
    name = sort.removeprefix("-")
    rows = _matching(connection, criteria, name)
    order = Order(
        f"syncs:{sort}",
        tuple(rows.c[key] for key in _SORT_KEYS[name]),
        descending=sort.startswith("-"),
        nulls_last=rows.c[name] if name in _NULLABLE else None,
    )
    # Sorting ids and reading the rest for one page is three times as fast as sorting whole rows.
    page = read_page(connection, select(rows.c.id), order, cursor=cursor, limit=limit)
    records = syncs_by_pk(connection, [row["id"] for row in page.items])
    found = [records[row["id"]] for row in page.items if row["id"] in records]
    return Page(found, page.next, page.previous)


def count_syncs(connection: Connection, criteria: SyncFilter) -> int | None:
    """How many syncs meet the filter; None if so many meet each condition that it takes long."""
    conditions = _conditions(connection, criteria)
    if rare_condition(connection, conditions, "") is None:
        return None
    ids = select(_matching(connection, criteria, "").c.id)
    return connection.execute(select(func.count()).select_from(ids.subquery())).scalar_one()


def _matching(connection: Connection, criteria: SyncFilter, sort: str) -> FromClause:
    """The syncs that meet the filter, with the columns of _SORTED."""
    statement = select(*(syncs.c[name] for name in _SORTED))
    if not {"failed"}.issuperset(criteria.states):  # its outcomes say the same
        statement = statement.where(syncs.c.state.in_(criteria.states))
    conditions = _conditions(connection, criteria)
    rare = rare_condition(connection, conditions, sort)
    statement = statement.where(*clauses(conditions, rare, sort))
    if rare:
        return statement.cte("matching").prefix_with("MATERIALIZED")
    return statement.subquery("matching")


def _conditions(connection: Connection, criteria: SyncFilter) -> list[Condition]:
    def add(build: Callable[..., ColumnElement[bool]], *columns: Column[Any], **more: Any) -> None:
        conditions.append(make_condition(connection, select(syncs.c.id), build, *columns, **more))

    conditions: list[Condition] = []
    if criteria.q is not None:
        add(find(connection, criteria.q, has_transaction), syncs.c.company_id)
    if criteria.cause is not None:
        conditions.append(_cause_condition(criteria.cause))
    if criteria.status_codes:
        is_ordered = len(criteria.status_codes) == 1
        add(
            partial(is_one_of, values=criteria.status_codes),
            syncs.c.status_code,
            sorts={"updated_at", "status_code"} if is_ordered else set(),
        )
    implied = {outcome for state in criteria.states for outcome in _OUTCOMES[state]}
    for outcomes in filter(None, (criteria.outcomes, sorted(implied))):
        is_ordered = len(outcomes) == 1
        add(
            partial(is_one_of, values=outcomes),
            syncs.c.outcome,
            sorts={"updated_at"} if is_ordered else set(),
        )
    if criteria.company_id is not None or criteria.since or criteria.until:
        has_range = bool(criteria.since or criteria.until)
        add(
            partial(company_and_time, criteria.company_id, criteria.since, criteria.until),
            *(syncs.c.company_id, syncs.c.occurred_at),
            sorts={"started_at"} if has_range else {"started_at", "company_id"},
            few=FEW_IN_RANGE if has_range else None,
        )
    return conditions


def company_and_time(
    wanted_company: str | None,
    since: datetime | None,
    until: datetime | None,
    company_id: ColumnElement[Any],
    occurred_at: ColumnElement[Any],
) -> ColumnElement[bool]:
    """The sync is of this company and in this time range; one index serves both."""
    conditions = in_range(occurred_at, since, until)
    if wanted_company is not None:
        conditions.append(company_id == wanted_company)
    return and_(*conditions)


def _cause_condition(key: str) -> Condition:
    whole = syncs.alias("whole")
    failed = union_all(
        select(transactions.c.sync_pk).where(transactions.c.cause_key == key),
        select(whole.c.id).where(whole.c.cause_key == key),
    )
    has_failed = exists().where(
        transactions.c.sync_pk == syncs.c.id, transactions.c.cause_key == key
    )
    return Condition(
        rows=failed,
        lookup=syncs.c.id.in_(failed),
        check=or_(syncs.c.cause_key == key, has_failed.correlate(syncs)),
    )


def in_range(
    column: ColumnElement[Any], since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    """The conditions for a time from `since` (inclusive) to `until` (exclusive)."""
    return [
        *([column >= since] if since else []),
        *([column < until] if until else []),
    ]


def get_sync(connection: Connection, sync_id: str, company_id: str | None = None) -> SyncRecord:
    """One sync. Raises NotFound, or Conflict when several companies have a sync with this id."""
    statement = _SYNC.where(syncs.c.sync_id == sync_id)
    if company_id is not None:
        statement = statement.where(syncs.c.company_id == company_id)
    rows = connection.execute(statement.limit(2)).mappings().all()
    if not rows:
        raise NotFound("Sync not found")
    if len(rows) > 1:
        raise Conflict("Two companies have a sync with this ID; pass company_id.")
    return _record(rows[0])


def latest_sync(connection: Connection, company_id: str) -> SyncRecord:
    """The newest sync of a company. Raises NotFound when it has none."""
    records = newest_syncs(connection, company_id, 1)
    if not records:
        raise NotFound("This company has no syncs.")
    return records[0]


def last_successful_sync(connection: Connection, company_id: str) -> SyncRecord:
    """The newest sync that Codat's status and list prove complete, with or without data to write.

    Raises NotFound when the company has none.
    """
    records = newest_syncs(connection, company_id, 1, syncs.c.outcome.in_(SUCCESSFUL))
    if not records:
        raise NotFound("This company has no successful syncs.")
    return records[0]


def newest_syncs(
    connection: Connection, company_id: str, limit: int, *conditions: ColumnElement[bool]
) -> list[SyncRecord]:
    """The company's syncs that meet these conditions by `occurred_at`, newest first."""
    statement = (
        _SYNC.where(syncs.c.company_id == company_id, *conditions)
        .order_by(syncs.c.occurred_at.desc(), syncs.c.id.desc())
        .limit(limit)
    )
    return [_record(row) for row in connection.execute(statement).mappings()]


def open_whole_failure(connection: Connection, company_id: str) -> SyncRecord | None:
    """The company's newest sync that failed without any failed transaction.

    None when there is none, or when a later sync succeeded.
    """
    order = (syncs.c.occurred_at, syncs.c.id)
    succeeded = (
        select(*order)
        .where(syncs.c.company_id == company_id, syncs.c.outcome.in_(SUCCESSFUL))
        .order_by(*(key.desc() for key in order))
        .limit(1)
    )
    last = connection.execute(succeeded).first()
    conditions = [syncs.c.outcome == "failed", func.coalesce(syncs.c.failed, 0) == 0]
    if last is not None:
        conditions.append(tuple_(*order) > tuple_(*last))
    records = newest_syncs(connection, company_id, 1, *conditions)
    return records[0] if records else None


def syncs_by_pk(connection: Connection, pks: Sequence[int]) -> dict[int, SyncRecord]:
    """Syncs by their `syncs.id`; a missing one is left out."""
    if not pks:
        return {}
    rows = connection.execute(_SYNC.where(syncs.c.id.in_(pks))).mappings()
    return {row["id"]: _record(row) for row in rows}


def _record(row: RowMapping) -> SyncRecord:
    return SyncRecord(
        pk=row["id"],
        sync=to_sync(row),
        updated_at=row["updated_at"],
        company_name=row["company_name"],
        source_platform=row["source_platform"],
        cause_key=row["cause_key"],
        open_failures=row["open_failures"],
        job=_job(row),
    )


def _job(row: RowMapping) -> FetchJob | None:
    if row["job_state"] is None:
        return None
    is_waiting = row["job_state"] == "pending" and row["job_lease_token"] is None
    next_attempt_at = row["job_run_at"] if is_waiting else None
    last_error = row["job_last_error"]
    paused_until = row["paused_until"]
    if next_attempt_at and paused_until and next_attempt_at < paused_until:
        next_attempt_at, last_error = paused_until, last_error or row["reason"]
    return FetchJob(row["job_state"], row["job_attempts"], next_attempt_at, last_error)
