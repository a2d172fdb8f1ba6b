"""Sync outcomes: their status codes, the transactions that fit them, and error messages.

The codes are the table of docs.codat.io/expenses/sync-process/syncing-expenses. The messages have
the wording of accounting software and of Codat, so that a receiver can classify them.
"""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass

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
FAILED_STATUSES = frozenset({"PushError", "ValidationError", "Failed"})

FEED_ALREADY_CONNECTED = (
    "Feed Connection failed(409): The AccountToken, AccountId or AccountNumber is already "
    "connected to another Xero Bank Account in the selected Xero Organization."
)
PUSH_ERRORS = (
    FEED_ALREADY_CONNECTED,
    "The document date cannot be before the period lock date: the period 2026-09 is closed.",
    "Account code '429' is not active and cannot be used for new transactions.",
    "Business Validation Error: Invalid Tax Rate specified. A tax rate is required for this line.",
    "Duplicate Document Number Error: You must specify a different number. This reference has "
    "already been used.",
    "Invalid Reference Id: Vendor assigned to this transaction has been deleted.",
    "The request timed out while waiting for the accounting software (504).",
)
VALIDATION_ERRORS = (
    "The line item total -208.10((-195.01 + -1.09) + (-10.01 + -1.99)) must equal the transaction "
    "total -1.1",
    "Account 'b0d5ba3d-0c3c-4c9b-b5d3-56b4a43b62e4' could not be found in the chart of accounts.",
    "Tax rate 'STANDARD-20' could not be found. Choose one of the tax rates of the company.",
    "Currency rate is required because the currency EUR differs from the base currency GBP.",
    "Issue date 2019-04-01 is earlier than the start date of the sync configuration.",
)
SERVER_ERROR = "There is a problem with our server. Please try again later."


@dataclass(frozen=True)
class Transaction:
    """One row of a sync's transaction list. A sync may have equal rows, as at Codat."""

    transaction_id: str
    status: str | None = "Pending"
    message: str | None = None
    integration_type: str | None = "expense"

    @property
    def failed(self) -> bool:
        """Whether it was not written because of an error."""
        return self.status in FAILED_STATUSES


def random_uuid(rng: random.Random) -> str:
    """Return a version 4 UUID drawn from `rng`."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def status_text(code: int) -> str:
    """Return Codat's `syncStatus` for a status code, as in its samples."""
    if code < 2000:
        return "Started"
    if code < 4000:
        return "Complete"
    return "PushError" if code in (5080, 5120, 5130) else "Failed"


def make_transactions(outcome: str, ids: list[str], rng: random.Random) -> list[Transaction]:
    """Make rows for these transaction ids that fit the outcome; some ids get two rows.

    Outcomes that end before anything is written (configuration, connection, billing) have none.
    `partly_failed` and `validation_error` have at least one failure, and from two ids on also one
    success.
    """
    if outcome == "partly_failed":
        return _mix(ids, rng, (_push_error, _push_error, _validation_error))
    if outcome == "validation_error":
        return _mix(ids, rng, (_validation_error,))
    make = _MAKERS.get(outcome)
    return [row for transaction_id in ids for row in make(rng, transaction_id)] if make else []


def sync_error_message(
    code: int, company_id: str, platform: str, reason: str, rng: random.Random
) -> str:
    """Return the `errorMessage` of a sync with this status code; "" unless it failed.

    `reason` is the platform's own error, for the codes that pass it on.
    """
    texts = {
        4000: "Configuration error: the bank account of the company's sync configuration was not "
        f"found in {platform}. Save the configuration again.",
        4040: f"Company {company_id} was deleted or its connection to {platform} de-authorized.",
        4220: f"No valid set of connections for company {company_id}: reconnect {platform}.",
        4260: f"The {platform} subscription has ended or there was a billing problem.",
        5000: "An unexpected error occurred while syncing. "
        f"Correlation ID: {random_uuid(rng)}. Please try again later.",
        5080: reason,
        5120: f"One or more transactions could not be processed. {reason}",
    }
    if code < 4000:
        return ""
    return texts[code] if code in texts else _downstream_error(rng, reason)


def _downstream_error(rng: random.Random, reason: str) -> str:
    """Wrap a platform's error as Codat does; older samples have two blanks after `Message:`."""
    blanks = rng.choice(("  ", " "))
    return (
        f"An error occurred in a downstream service. Correlation ID: {random_uuid(rng)}. "
        f"Message:{blanks}{reason}"
    )


def _pending(_: random.Random, transaction_id: str) -> list[Transaction]:
    return [Transaction(transaction_id)]


def _completed(rng: random.Random, transaction_id: str) -> list[Transaction]:
    kind = rng.choice(("expense", "expense", "expenses"))
    rows = [Transaction(transaction_id, "Completed", None, kind)]
    if rng.random() < 0.25:
        rows.insert(0, Transaction(transaction_id, "Completed", None, "bankfeeds"))
    return rows


def _push_error(rng: random.Random, transaction_id: str) -> list[Transaction]:
    reason = rng.choice(PUSH_ERRORS)
    kind = "bankfeeds" if reason == FEED_ALREADY_CONNECTED else "expense"
    row = Transaction(transaction_id, "PushError", _downstream_error(rng, reason), kind)
    return [row, row] if rng.random() < 0.15 else [row]


def _validation_error(rng: random.Random, transaction_id: str) -> list[Transaction]:
    return [Transaction(transaction_id, "ValidationError", rng.choice(VALIDATION_ERRORS))]


def _already_processed(rng: random.Random, transaction_id: str) -> list[Transaction]:
    # docs.codat.io/expenses/faq
    text = f"One or more transactions have previously been processed: {transaction_id}"
    return [Transaction(transaction_id, "PushError", text, rng.choice(("expense", "expenses")))]


def _server_error(rng: random.Random, transaction_id: str) -> list[Transaction]:
    return [Transaction(transaction_id, "PushError", _downstream_error(rng, SERVER_ERROR))]


Maker = Callable[[random.Random, str], list[Transaction]]

_MAKERS: dict[str, Maker] = {
    "in_progress": _pending,
    "long_running": _pending,
    "all_written": _completed,
    "server_error": _server_error,
    "duplicate_protection": _already_processed,
    "write_error": _push_error,
}


def _mix(ids: list[str], rng: random.Random, failures: tuple[Maker, ...]) -> list[Transaction]:
    """The first transaction fails, the second succeeds, two in five of the others fail."""
    rows: list[Transaction] = []
    for position, transaction_id in enumerate(ids):
        fails = position == 0 or (position > 1 and rng.random() < 0.4)
        make = rng.choice(failures) if fails else _completed
        rows.extend(make(rng, transaction_id))
    return rows
