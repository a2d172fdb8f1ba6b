"""Compares a database with the simulator's truth."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import select, update

from app.db.engine import open_database
from app.db.queries.transactions import PushErrorFilter, list_push_errors
from app.db.tables import jobs, syncs, transactions
from app.domain.status_codes import phase_of
from app.domain.transactions import is_failed
from app.errors import DatabaseUnavailable
from bench.harness import IS_PENDING, count_where, reading, stored_message_ids

STATES = {"running": "started", "completed": "completed", "failed": "failed"}
Json = dict[str, Any]


class Difference(NamedTuple):
    """One value that is not as Codat has it."""

    sync_id: str
    what: str
    ours: object
    codats: object


def compare(url: str, truth: Json) -> list[Difference]:
    """Compare the state, code and messages of every sync, and all its transactions in order."""
    rows: dict[int, list[tuple[object, ...]]] = defaultdict(list)
    columns = [transactions.c[name] for name in
               ("sync_pk", "transaction_id", "status", "message", "integration_type")]  # fmt: skip
    with reading(url) as connection:
        found = connection.execute(select(syncs)).mappings()
        ours = {(row["company_id"], row["sync_id"]): row for row in found}
        for pk, *values in connection.execute(select(*columns).order_by(transactions.c.position)):
            rows[pk].append(tuple(values))
    differences = []
    for real in truth["syncs"]:
        row = ours.pop((real["company_id"], real["sync_id"]), None)
        if row is None:
            differences.append(Difference(real["sync_id"], "the sync", None, "present"))
        else:
            differences += _compare_sync(row, rows[row["id"]], real)
    return differences + [Difference(key[1], "the sync", "present", None) for key in ours]


def _compare_sync(
    row: Mapping[Any, Any], rows: list[tuple[object, ...]], real: Json
) -> Iterator[Difference]:
    status = real["status"]
    phase = phase_of(status["syncStatusCode"]) or "running"
    wanted: Json = {"state": STATES[phase]}
    if phase != "running":
        wanted |= {
            "status_code": status["syncStatusCode"],
            "error_message": status["errorMessage"] or None,
            "exception_message": status["syncExceptionMessage"] or None,
        }
    for name, value in wanted.items():
        if row[name] != value:
            yield Difference(row["sync_id"], name, row[name], value)
    names = ("transactionId", "status", "message", "integrationType")
    codats = [tuple(item.get(name) or None for name in names) for item in real["items"]]
    if phase != "running" and rows != codats:
        pairs = enumerate(zip(rows, codats, strict=False))
        at = next((n for n, pair in pairs if pair[0] != pair[1]), min(len(rows), len(codats)))
        what = f"transaction {at} of {len(codats)}"
        yield Difference(row["sync_id"], what, rows[at : at + 1], codats[at : at + 1])


def compare_resolutions(url: str, truth: Json) -> list[Difference]:
    """Compare `resolved_by` of every failed transaction with what follows from the truth alone."""
    ours: dict[tuple[str, int], str | None] = {}
    cursor: str | None = None
    with reading(url) as connection:
        while True:
            page = list_push_errors(connection, PushErrorFilter(), cursor=cursor, limit=200)
            ours |= {(row.sync_id, row.position): row.resolved_by for row in page.items}
            cursor = page.next
            if cursor is None:
                break
    real = _resolutions(truth)
    return [
        Difference(key[0], f"what resolved row {key[1]}", ours.get(key, "no row"), real.get(key))
        for key in sorted(ours.keys() | real.keys())
        if key not in ours or key not in real or ours[key] != real[key]
    ]


def _resolutions(truth: Json) -> dict[tuple[str, int], str | None]:
    """By sync and position of every failed row: the first later sync that completed it."""
    resolved: dict[tuple[str, int], str | None] = {}
    open_rows: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    ended = (sync for sync in truth["syncs"] if not sync["running"])
    for sync in sorted(ended, key=lambda sync: str(sync["status"]["syncUtc"])):
        statuses: dict[str, set[str]] = defaultdict(set)
        for item in sync["items"]:
            statuses[item["transactionId"]].add(item["status"])
        for name, found in statuses.items():
            if found == {"Completed"}:
                rows = open_rows.pop((sync["company_id"], name), [])
                resolved |= dict.fromkeys(rows, sync["sync_id"])
        for position, item in enumerate(sync["items"]):
            if is_failed(item["status"]):
                row = (sync["sync_id"], position)
                resolved[row] = None
                open_rows[sync["company_id"], item["transactionId"]].append(row)
    return resolved


def acknowledged_lost(url: str, attempts: list[Json]) -> int:
    """How many events were acknowledged with a 2xx and are not stored."""
    acknowledged = {a["message_id"] for a in attempts if 200 <= (a.get("status") or 0) < 300}
    return len(acknowledged.difference(stored_message_ids(url)))


def unfinished(url: str) -> int:
    """How many events are not projected yet, and how many jobs wait or are in hand."""
    return count_where(url, IS_PENDING) + count_where(url, jobs.c.state == "pending")


def skip_backoff(url: str) -> None:
    """Make every job due now that waits for its next attempt; leases are left to take-over.

    Does nothing while the database is busy: it is called until nothing is left.
    """
    now = datetime.now(UTC)
    waiting = (jobs.c.state == "pending", jobs.c.lease_token.is_(None), jobs.c.run_at > now)
    database = open_database(url, pool_size=1)
    with suppress(DatabaseUnavailable), database.writing() as connection:  # SQLite may be busy
        connection.execute(update(jobs).where(*waiting).values(run_at=now))
    database.close()
