"""Converts syncs and transactions to rows, and rows to syncs. No other module does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from app.domain.causes.classifier import Classifier
from app.domain.causes.correlation import correlation_id
from app.domain.causes.fingerprint import fingerprint
from app.domain.models import Transaction
from app.domain.sync_state import Sync, day_of
from app.domain.transactions import TransactionCounts, is_failed

CAUSE_COLUMNS = ("cause_key", "fingerprint", "rules_version")
_COUNTS = tuple(column.name for column in fields(TransactionCounts))
Content = tuple[str | None, ...]
"""What a transaction says, besides which it is: its status, message and integration type."""
_PLAIN = tuple(name for name in Sync._fields if name != "counts")
"""The fields of a sync that are columns of the same name."""


@dataclass(frozen=True, slots=True)
class StoredSync:
    """A sync with what is stored beside it; `pk` is `syncs.id`, `cause` its CAUSE_COLUMNS."""

    pk: int
    sync: Sync
    updated_at: datetime
    announced_digest: str | None = None
    cause: Mapping[str, str | None] = field(default_factory=dict)


def to_sync(row: RowMapping) -> Sync:
    """The sync in a row of `syncs`."""
    counts = None
    if row["total"] is not None:
        counts = TransactionCounts(**{name: row[name] for name in _COUNTS})
    return Sync(**{name: row[name] for name in _PLAIN}, counts=counts)


def to_stored(row: RowMapping) -> StoredSync:
    """The sync in a row of `syncs`, with its key."""
    cause = {name: row[name] for name in CAUSE_COLUMNS}
    return StoredSync(row["id"], to_sync(row), row["updated_at"], row["announced_digest"], cause)


def sync_row(sync: Sync, *, updated_at: datetime, classifier: Classifier) -> dict[str, Any]:
    """The column values of a sync, with those that are derived for filters and sorting."""
    values = {name: getattr(sync, name) for name in _PLAIN}
    for name in _COUNTS:
        values[name] = getattr(sync.counts, name) if sync.counts else None
    occurred_at = sync.occurred_at or updated_at
    return (
        values
        | sync_cause(sync, classifier)
        | {
            "state": sync.state,
            "outcome": sync.outcome,
            "started_at": sync.started_at,
            "finished_at": sync.finished_at,
            "occurred_at": occurred_at,
            "day": day_of(occurred_at),
            "updated_at": updated_at,
        }
    )


def sync_cause(sync: Sync, classifier: Classifier) -> dict[str, str | None]:
    """Why a sync failed as a whole; nulls where it did not, or its failed transactions say so."""
    if sync.counts and sync.counts.failed:
        return cause_columns(None, None, classifier)
    key = classifier.classify_sync(sync.status_code, sync.error_message, sync.exception_message)
    return cause_columns(key, sync.error_message or sync.exception_message, classifier)


def cause_columns(
    key: str | None, message: str | None, classifier: Classifier
) -> dict[str, str | None]:
    """The columns of a cause, of a transaction or of a sync."""
    if key is None:
        return dict.fromkeys(CAUSE_COLUMNS)
    return dict(zip(CAUSE_COLUMNS, (key, fingerprint(message), classifier.version), strict=True))


class ContentValues(dict[Content, dict[str, Any]]):
    """The column values of a transaction list's rows, by what they say; all but the keys.

    Of thousands of transactions most say the same, which is worked out once. `status_code` is the
    sync's: it is the cause where no message says more.
    """

    def __init__(self, status_code: int | None, classifier: Classifier) -> None:
        self._status_code = status_code
        self._classifier = classifier

    def __missing__(self, content: Content) -> dict[str, Any]:
        status, message, integration_type = content
        key = self._classifier.classify_transaction(
            message,
            status=status,
            integration_type=integration_type,
            status_code=self._status_code,
        )
        values = {
            "integration_type": integration_type,
            "status": status,
            "message": message,
            "failed": is_failed(status),
            "correlation_id": correlation_id(message),
            **cause_columns(key, message, self._classifier),
        }
        self[content] = values
        return values


def transaction_rows(
    sync_pk: int, transactions: Sequence[Transaction], values: ContentValues
) -> Iterator[dict[str, Any]]:
    """The rows of a sync's transaction list, in Codat's order."""
    for position, transaction in enumerate(transactions):
        yield {
            "sync_pk": sync_pk,
            "position": position,
            "transaction_id": transaction.transaction_id,
            **values[transaction[1:]],
        }
