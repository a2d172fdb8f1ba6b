"""From the records of `app.db` to the responses of the API.

Fields of the same name are taken over as they are (`from_attributes`); only what differs is
written here.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from app.db.change_feed import StoredChange
from app.db.queries import causes as cause_queries
from app.db.queries import stats as stats_queries
from app.db.queries.companies import CompanyRecord
from app.db.queries.events import EventRecord
from app.db.queries.syncs import SyncRecord
from app.db.queries.transactions import TransactionRecord
from app.domain.causes import classifier
from app.domain.causes.fingerprint import mask
from app.domain.status_codes import status_text, visible_failure_stage
from app.domain.sync_state import Outcome
from app.web.api import schemas

Causes = Mapping[str, classifier.Cause]
"""The causes of the classifier in use, by key: `database.classifier.causes`."""

Model = TypeVar("Model", bound=BaseModel)


def serialize_cause(key: str | None, causes: Causes) -> schemas.Cause | None:
    """A cause by its key. For a key that the classifier no longer has, the key is the title."""
    if key is None:
        return None
    return schemas.Cause(**_cause_fields(schemas.Cause, key, causes))


def _cause_fields(model: type[BaseModel], key: str, causes: Causes) -> dict[str, Any]:
    cause = causes.get(key)
    if cause is None:
        names = (*schemas.Cause.model_fields, "text")
        fields = {name: None for name in names if name in model.model_fields}
        return fields | {"key": key, "title": key}
    return _same_fields(model, cause)


def _same_fields(model: type[BaseModel], *sources: object) -> dict[str, Any]:
    """The fields of the model that a source has an attribute for; the first source wins."""
    return {
        name: getattr(source, name)
        for source in reversed(sources)
        for name in model.model_fields
        if hasattr(source, name)
    }


def serialize_sync(record: SyncRecord, causes: Causes) -> schemas.Sync:
    """A sync."""
    sync, job = record.sync, record.job
    counts = schemas.TransactionCounts(expected=sync.expected)
    if sync.counts is not None:
        counts = schemas.TransactionCounts.model_validate(sync.counts).model_copy(
            update={"expected": sync.expected}
        )
    return schemas.Sync(
        **_same_fields(schemas.Sync, record, sync)
        | {
            "status_text": status_text(sync.status_code),
            "failure_stage": visible_failure_stage(sync.state, sync.failure_stage),
            "transactions": counts,
            "cause": serialize_cause(record.cause_key, causes),
            "errors": schemas.Errors(
                state=record.errors_state,
                attempts=job.attempts if job else 0,
                next_attempt_at=job.next_attempt_at if job else None,
                fetched_at=sync.fetched_at,
                last_error=job.last_error if job else None,
            ),
        }
    )


def serialize_transaction(record: TransactionRecord, causes: Causes) -> schemas.Transaction:
    """One row of a transaction list."""
    return _transaction(schemas.Transaction, record, causes)


def _transaction(model: type[Model], record: TransactionRecord, causes: Causes) -> Model:
    cause = serialize_cause(record.cause_key, causes)
    return model(**_same_fields(model, record) | {"cause": cause})


def serialize_history(
    records: Sequence[TransactionRecord], causes: Causes
) -> schemas.TransactionHistory:
    """A transaction's rows over all syncs, newest first, at least one."""
    newest = records[0]
    failures = [record for record in records if record.failed]
    return schemas.TransactionHistory(
        company_id=newest.company_id,
        transaction_id=newest.transaction_id or "",
        current_status=newest.current_status,
        resolved_by=failures[0].resolved_by if failures else None,
        history=[_transaction(schemas.TransactionAttempt, record, causes) for record in records],
    )


def serialize_company(record: CompanyRecord, causes: Causes) -> schemas.Company:
    """A company with its totals."""
    return schemas.Company(
        **_same_fields(schemas.Company, record)
        | {
            "syncs": schemas.SyncTotals(**_totals(record.by_outcome)),
            "last_sync": serialize_sync(record.last_sync, causes) if record.last_sync else None,
        }
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
    totals: cause_queries.CauseTotals, causes: Causes
) -> schemas.CauseTotals:
    """A cause and its failures."""
    model = schemas.CauseTotals
    cause_fields = _cause_fields(model, totals.cause_key, causes)
    return model(**_same_fields(model, totals) | cause_fields)


def serialize_cause_details(
    details: cause_queries.CauseDetails, causes: Causes
) -> schemas.CauseDetails:
    """A cause, its failures and its groups."""
    totals = serialize_cause_totals(details.totals, causes)
    groups = [
        schemas.CauseGroup(**_same_fields(schemas.CauseGroup, group), pattern=mask(group.example))
        for group in details.groups
    ]
    return schemas.CauseDetails(
        **totals.model_dump(), group_count=details.group_count, groups=groups
    )


def serialize_event(record: EventRecord) -> schemas.Event:
    """A webhook event without its body."""
    return schemas.Event.model_validate(record)


def serialize_event_with_body(record: EventRecord) -> schemas.EventWithBody:
    """A webhook event with its body: as text if it is UTF-8, else in base64."""
    body: str | None = None
    encoding = None
    if record.body is not None:
        try:
            body, encoding = record.body.decode(), "utf-8"
        except UnicodeDecodeError:
            body, encoding = base64.b64encode(record.body).decode(), "base64"
    fields = _same_fields(schemas.EventWithBody, record)
    return schemas.EventWithBody(**fields | {"body": body, "body_encoding": encoding})


def serialize_change(change: StoredChange, causes: Causes) -> schemas.Change:
    """A change. A payload that was stored before a field was added has null there."""
    sync = rows = None
    if change.kind == "sync":
        cause = serialize_cause(change.payload.get("cause_key"), causes)
        sync = _from_payload(schemas.SyncState, {**change.payload, "cause": cause})
    else:
        rows = [_from_payload(schemas.TransactionState, row) for row in change.payload["rows"]]
    fields = _same_fields(schemas.Change, change)
    return schemas.Change(**fields | {"sync": sync, "rows": rows})


def _from_payload(model: type[Model], payload: Mapping[str, Any]) -> Model:
    return model.model_validate({**dict.fromkeys(model.model_fields), **payload})
