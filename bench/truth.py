"""Compares our whole database with the simulator's truth."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update

from app.db.engine import Database, open_database
from app.db.queries.transactions import ErrorFilter, list_errors
from app.db.tables import events, fetches, syncs, transactions
from app.domain.status_codes import phase_of
from app.errors import StorageUnavailable

FAILED = frozenset({"PushError", "ValidationError", "Failed"})
STATES = {"running": "started", "completed": "completed", "failed": "failed"}
TRIES = 10


@dataclass(frozen=True)
class Difference:
    """One thing that is not as Codat has it."""

    sync_id: str
    what: str
    ours: object
    codats: object

    def __str__(self) -> str:
        return f"{self.sync_id}: {self.what} is {self.ours!r}, Codat has {self.codats!r}"


def compare(url: str, truth: dict[str, Any]) -> list[Difference]:
    """Every sync's state, code and messages, and every item, in order."""
    database = open_database(url)
    found: list[Difference] = []
    ours = _all_syncs(database)
    for real in truth["syncs"]:
        row = ours.pop((real["company_id"], real["sync_id"]), None)
        if row is None:
            found.append(Difference(real["sync_id"], "the sync", None, "there"))
            continue
        found += _sync_differences(row, real["status"])
        if not real["running"]:
            found += _item_differences(database, row["id"], real)
    found += [Difference(key[1], "the sync", "there", None) for key in ours]
    database.close()
    return found


def _all_syncs(database: Database) -> dict[tuple[str, str], Any]:
    with database.reading() as connection:
        rows = connection.execute(select(syncs)).mappings()
        return {(row["company_id"], row["sync_id"]): row for row in rows}


def _sync_differences(row: Any, told: dict[str, Any]) -> list[Difference]:
    code = told["syncStatusCode"]
    running = phase_of(code) == "running"
    pairs: list[tuple[str, object, object]] = [
        ("state", row["state"], STATES[phase_of(code) or "running"])
    ]
    if not running:
        pairs += [
            ("status code", row["status_code"], code),
            ("error message", row["error_message"], told["errorMessage"] or None),
            ("exception message", row["exception_message"], told["syncExceptionMessage"] or None),
        ]
    return [
        Difference(row["sync_id"], what, ours, codats)
        for what, ours, codats in pairs
        if ours != codats
    ]


def _item_differences(database: Database, number: int, real: dict[str, Any]) -> list[Difference]:
    names = ("transaction_id", "status", "message", "integration_type")
    with database.reading() as connection:
        rows = connection.execute(
            select(*(transactions.c[name] for name in names))
            .where(transactions.c.sync == number)
            .order_by(transactions.c.position)
        ).all()
    ours = [tuple(row) for row in rows]
    told = [
        (i["transactionId"], i["status"], i.get("message") or None, i.get("integrationType"))
        for i in real["items"]
    ]
    if ours == told:
        return []
    first = next((n for n, pair in enumerate(zip(ours, told, strict=False)) if pair[0] != pair[1]),
                 min(len(ours), len(told)))  # fmt: skip
    return [
        Difference(real["sync_id"], f"item {first} of {len(told)}", ours[first : first + 1],
                   told[first : first + 1])
    ]  # fmt: skip


def compare_cures(url: str, truth: dict[str, Any]) -> list[Difference]:
    """Of every failed item: the first later sync of the company in which it was completed.

    Worked out here from the truth alone, and compared with what our own query says.
    """
    database = open_database(url)
    ours: dict[tuple[str, int], str | None] = {}
    cursor: str | None = None
    with database.reading() as connection:
        while True:
            page = list_errors(connection, ErrorFilter(), cursor=cursor, limit=200)
            ours |= {(item.sync_id, item.position): item.cured_by for item in page.items}
            cursor = page.next
            if cursor is None:
                break
    database.close()
    real = _cures(truth)
    return [
        Difference(key[0], f"the cure of item {key[1]}", ours.get(key, "no such item"), real[key])
        for key in sorted(ours.keys() | real.keys())
        if key not in ours or key not in real or ours[key] != real[key]
    ]


def _cures(truth: dict[str, Any]) -> dict[tuple[str, int], str | None]:
    by_time = sorted(truth["syncs"], key=lambda sync: str(sync["status"]["syncUtc"]))
    ended = [sync for sync in by_time if not sync["running"]]
    completed: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for turn, sync in enumerate(ended):
        statuses: dict[str, set[str]] = {}
        for item in sync["items"]:
            statuses.setdefault(item["transactionId"], set()).add(item["status"])
        for name in (each for each, found in statuses.items() if found == {"Completed"}):
            completed.setdefault((sync["company_id"], name), []).append((turn, sync["sync_id"]))
    return {
        (sync["sync_id"], position): next(
            (
                cure
                for later, cure in completed.get((sync["company_id"], item["transactionId"]), ())
                if later > turn
            ),
            None,
        )
        for turn, sync in enumerate(ended)
        for position, item in enumerate(sync["items"])
        if item["status"] in FAILED
    }


def acknowledged_lost(url: str, attempts: list[dict[str, Any]]) -> int:
    """How many deliveries we answered with a 2xx and do not have."""
    database = open_database(url)
    with database.reading() as connection:
        kept = set(connection.execute(select(events.c.message_id)).scalars())
    database.close()
    acknowledged = {
        each["message_id"] for each in attempts if 200 <= (each.get("status") or 0) < 300
    }
    return len(acknowledged - kept)


def owed_fetches(url: str) -> int:
    """How many fetches are still owed."""
    database = open_database(url)
    with database.reading() as connection:
        owed = select(func.count()).select_from(fetches).where(fetches.c.state == "owed")
        count = connection.execute(owed).scalar_one()
    database.close()
    return count


def end_pauses(url: str, now: datetime) -> None:
    """What waits for its next attempt is due now: it waits for nothing but the clock."""
    _due_now(url, now, held=False)


def end_leases(url: str, now: datetime) -> None:
    """What a killed worker held is due now. Once: a live worker's work is taken over too."""
    _due_now(url, now, held=True)


def _due_now(url: str, now: datetime, *, held: bool) -> None:
    database = open_database(url)
    whose = fetches.c.token.is_not(None) if held else fetches.c.token.is_(None)
    later = update(fetches).where(whose, fetches.c.due > now).values(due=now)
    for tries_left in reversed(range(TRIES)):
        try:
            with database.writing() as connection:
                connection.execute(later)
            break
        except StorageUnavailable:  # SQLite, while a worker writes and writes
            if not tries_left:
                raise
    database.close()
