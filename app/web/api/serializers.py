"""From the records of `app.db` to the responses of the API.

Fields of the same name are taken over as they are (`from_attributes`); only what differs is
written here.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from app.db.change_feed import StoredChange
from app.db.queries import causes as cause_queries
from app.db.queries import stats as stats_queries
from app.db.queries.companies import CompanyRecord
from app.db.queries.events import EventRecord
from app.db.queries.syncs import SyncRecord
from app.db.queries.transactions import TransactionRecord
from app.db.retries import LastRetry
from app.domain.causes import classifier
from app.domain.causes.fingerprint import mask
from app.domain.causes.innermost import innermost_text
from app.domain.outgoing import recipient_name
from app.domain.status_codes import status_text, visible_failure_stage
from app.domain.sync_state import Outcome
from app.web.api import schemas

Causes = Mapping[str, classifier.Cause]
"""The causes of the classifier in use, by key: `database.classifier.causes`."""

Model = TypeVar("Model", bound=BaseModel)


def _make(model: type[Model], *sources: object, **fields: Any) -> Model:
    """A model with these fields, and the attributes of the same names: the first source wins."""
    for source in sources:
        for name in model.model_fields.keys() - fields.keys():
            if hasattr(source, name):
                fields[name] = getattr(source, name)
    return model(**fields)


def serialize_cause(key: str | None, causes: Causes) -> schemas.Cause | None:
    """A cause by its key."""
    return None if key is None else _make(schemas.Cause, _cause(key, causes))


def _cause(key: str, causes: Causes) -> object:
    return SimpleNamespace(**classifier.describe_cause(key, causes))


def serialize_sync(record: SyncRecord, causes: Causes) -> schemas.Sync:
    """A sync."""
    return _sync(schemas.Sync, record, causes)


def serialize_sync_details(
    record: SyncRecord, retry: LastRetry | None, causes: Causes, retry_url: SecretStr | None
) -> schemas.SyncDetails:
    """A sync with the state of its latest retry; `retry_url` is the RETRY_WEBHOOK_URL."""
    if retry is not None:
        host = retry_host(retry_url, retry.recipient)
        last_retry = _make(schemas.LastRetry, retry, recipient_host=host)
    return _sync(schemas.SyncDetails, record, causes, last_retry=last_retry if retry else None)


def retry_host(retry_url: SecretStr | None, recipient: str | None = None) -> str | None:
    """The host of RETRY_WEBHOOK_URL; None if it is not set, or is not that of the recipient."""
    url = retry_url.get_secret_value() if retry_url else ""
    if not url or recipient not in (None, recipient_name("retry", url)):
        return None
    return urlsplit(url).hostname


def _sync(model: type[Model], record: SyncRecord, causes: Causes, **more: Any) -> Model:
    sync = record.sync
    return _make(
        model,
        record,
        sync,
        status_text=status_text(sync.status_code),
        failure_stage=visible_failure_stage(sync.state, sync.failure_stage),
        transactions=_make(schemas.TransactionCounts, sync.counts, expected=sync.expected),
        cause=serialize_cause(record.cause_key, causes),
        errors=_make(schemas.Errors, record.shown_job, sync, state=record.errors_state),
        **more,
    )


def serialize_transaction(record: TransactionRecord, causes: Causes) -> schemas.Transaction:
    """One row of a transaction list."""
    return _transaction(schemas.Transaction, record, causes)


def _transaction(model: type[Model], record: TransactionRecord, causes: Causes) -> Model:
    return _make(model, record, cause=serialize_cause(record.cause_key, causes))


def serialize_history(
    records: Sequence[TransactionRecord], causes: Causes
) -> schemas.TransactionHistory:
    """A transaction's rows over all syncs, newest first, at least one."""
    return _make(
        schemas.TransactionHistory,
        records[0],
        resolved_by=next((record.resolved_by for record in records if record.failed), None),
        history=[_transaction(schemas.TransactionAttempt, record, causes) for record in records],
    )


def serialize_company(record: CompanyRecord, causes: Causes) -> schemas.Company:
    """A company with its totals."""
    last_sync = serialize_sync(record.last_sync, causes) if record.last_sync else None
    totals = schemas.SyncTotals(**_totals(record.by_outcome))
    cannot_sync, state = None, "open_failures" if record.open_failures else "nothing_open"
    if record.cannot_sync:
        state, cause = "cannot_sync", _cause(record.cannot_sync.cause_key, causes)
        cannot_sync = _make(
            schemas.CannotSync, record.cannot_sync, cause=_make(schemas.Cause, cause)
        )
    return _make(
        schemas.Company,
        record,
        syncs=totals,
        last_sync=last_sync,
        cannot_sync=cannot_sync,
        state=state,
    )


def serialize_stats(stats: stats_queries.Stats) -> schemas.Stats:
    """Totals, with every outcome also where there are no syncs of it."""
    codes = sorted(stats.by_status_code.items(), key=lambda code: (code[0] is None, code[0] or 0))
    return schemas.Stats(
        total=stats.by_outcome.total(),
        by_outcome=schemas.SyncTotals(**_totals(stats.by_outcome)),
        by_status_code=[
            schemas.StatusCodeTotal(status_code=code, status_text=status_text(code), total=total)
            for code, total in codes
        ],
        by_day=[
            schemas.DayTotals(day=day, **_totals(totals)) for day, totals in stats.by_day.items()
        ],
    )


def _totals(by_outcome: Counter[str]) -> dict[str, int]:
    return {"total": by_outcome.total()} | {name: by_outcome[name] for name in get_args(Outcome)}


def serialize_cause_totals(
    totals: cause_queries.CauseTotals, causes: Causes, cannot_sync: int
) -> schemas.CauseTotals:
    """A cause, its failures, and how many companies cannot sync because of it."""
    cause = _cause(totals.cause_key, causes)
    return _make(schemas.CauseTotals, totals, cause, cannot_sync=cannot_sync)


def serialize_cause_details(
    details: cause_queries.CauseDetails, causes: Causes, cannot_sync: int
) -> schemas.CauseDetails:
    """A cause, its failures and its groups."""
    groups = [
        _make(
            schemas.CauseGroup,
            group,
            pattern=mask(group.example),
            example=innermost_text(group.example) or None,
        )
        for group in details.groups
    ]
    cause = _cause(details.totals.cause_key, causes)
    return _make(
        schemas.CauseDetails,
        details,
        details.totals,
        cause,
        groups=groups,
        cannot_sync=cannot_sync,
    )


def serialize_event_with_body(record: EventRecord) -> schemas.EventWithBody:
    """A webhook event with its body: as text if it is UTF-8, else in base64."""
    body: str | None = None
    encoding = None
    if record.body is not None:
        try:
            body, encoding = record.body.decode(), "utf-8"
        except UnicodeDecodeError:
            body, encoding = base64.b64encode(record.body).decode(), "base64"
    return _make(schemas.EventWithBody, record, body=body, body_encoding=encoding)


def serialize_change(change: StoredChange, causes: Causes) -> schemas.Change:
    """A change. A payload that was stored before a field was added has null there."""
    sync = rows = None
    if change.kind == "sync":
        cause = serialize_cause(change.payload.get("cause_key"), causes)
        sync = _from_payload(schemas.ChangedSync, {**change.payload, "cause": cause})
    else:
        rows = [_from_payload(schemas.ChangedTransaction, row) for row in change.payload["rows"]]
    return _make(schemas.Change, change, sync=sync, rows=rows)


def _from_payload(model: type[Model], payload: Mapping[str, Any]) -> Model:
    return model.model_validate({**dict.fromkeys(model.model_fields), **payload})
