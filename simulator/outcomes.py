"""How a sync can end: outcome names, status codes, and the items that fit them.

The codes are the table of docs.codat.io/expenses/sync-process/syncing-expenses.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from simulator import wording

OUTCOMES: dict[str, int] = {
    "in_progress": 1000,
    "long_running": 1010,
    "all_written": 2000,
    "nothing_to_write": 2040,
    "config_error": 4000,
    "deauthorised": 4040,
    "disconnected": 4220,
    "billing_expiry": 4260,
    "server_error": 5000,
    "duplicate_protection": 5080,
    "validation_error": 5120,
    "write_error": 5130,
    "partly_failed": 5130,
}

FAILING = frozenset({"PushError", "ValidationError", "Failed"})


@dataclass(frozen=True)
class Item:
    """One row of a sync: an expense and how it fared. Rows may repeat, as they do at Codat."""

    transaction_id: str
    status: str | None = "Pending"
    message: str | None = None
    integration_type: str | None = "expense"

    @property
    def failed(self) -> bool:
        """Whether the books do not have it because of an error."""
        return self.status in FAILING


def running(code: int) -> bool:
    """Whether a status code means that the sync has not ended."""
    return code < 2000


def status_word(code: int) -> str:
    """Codat's `syncStatus` text for a status code, as printed in its samples."""
    if running(code):
        return "Started"
    if code < 4000:
        return "Complete"
    return "PushError" if code in (5080, 5120, 5130) else "Failed"


def code_for(items: list[Item]) -> int:
    """The status code that rows speak of: any failure 5130, none at all 2040, else 2000."""
    if not items:
        return OUTCOMES["nothing_to_write"]
    return 5130 if any(item.failed for item in items) else OUTCOMES["all_written"]


def _completed(rng: random.Random, transaction_id: str) -> list[Item]:
    kind = rng.choice(("expense", "expense", "expenses"))
    rows = [Item(transaction_id, "Completed", None, kind)]
    if rng.random() < 0.25:
        rows.insert(0, Item(transaction_id, "Completed", None, "bankfeeds"))
    return rows


def _push_error(rng: random.Random, transaction_id: str) -> list[Item]:
    reason = rng.choice(wording.PUSH_REASONS)
    kind = "bankfeeds" if reason == wording.FEED_CONNECTED else "expense"
    row = Item(transaction_id, "PushError", wording.downstream(rng, reason), kind)
    return [row, row] if rng.random() < 0.15 else [row]


def _invalid(rng: random.Random, transaction_id: str) -> list[Item]:
    reason = rng.choice(wording.VALIDATION_REASONS)
    return [Item(transaction_id, "ValidationError", reason, "expense")]


def _known(rng: random.Random, transaction_id: str) -> list[Item]:
    text = wording.already_processed(transaction_id)
    return [Item(transaction_id, "PushError", text, rng.choice(("expense", "expenses")))]


def _broken(rng: random.Random, transaction_id: str) -> list[Item]:
    text = wording.downstream(rng, "There is a problem with our server. Please try again later.")
    return [Item(transaction_id, "PushError", text, "expense")]


def _pending(_: random.Random, transaction_id: str) -> list[Item]:
    return [Item(transaction_id)]


Making = Callable[[random.Random, str], list[Item]]

_MAKINGS: dict[str, Making] = {
    "in_progress": _pending,
    "long_running": _pending,
    "all_written": _completed,
    "server_error": _broken,
    "duplicate_protection": _known,
    "validation_error": _invalid,
    "write_error": _push_error,
}


def items_for(outcome: str, ids: list[str], rng: random.Random) -> list[Item]:
    """Rows for these transactions that fit the outcome, repeated now and then as at Codat.

    Outcomes that end before anything was written (configuration, connection, billing) have none.
    `partly_failed` and `validation_error` keep at least one failure; the former one success too.
    """
    if outcome == "partly_failed":
        return _mixed(ids, rng, (_push_error, _push_error, _invalid))
    if outcome == "validation_error":
        return _mixed(ids, rng, (_invalid,))
    making = _MAKINGS.get(outcome)
    return [row for one in ids for row in making(rng, one)] if making else []


def _mixed(ids: list[str], rng: random.Random, failures: tuple[Making, ...]) -> list[Item]:
    rows: list[Item] = []
    for position, one in enumerate(ids):
        fails = position == 0 or (position > 1 and rng.random() < 0.4)
        making = rng.choice(failures) if fails else _completed
        rows.extend(making(rng, one))
    return rows
