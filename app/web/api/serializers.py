"""From what storage reads to what our API answers."""

import base64
import json
from collections import Counter
from typing import Any, get_args

from app.db.change_feed import KeptChange
from app.db.queries.companies import KeptCompany, Stats
from app.db.queries.events import KeptEvent
from app.db.queries.syncs import KeptSync
from app.db.queries.transactions import KeptItem
from app.domain.causes.classifier import Rules
from app.domain.status_codes import seen_stage, status_text
from app.domain.sync_state import Outcome
from app.web.api.schemas import (
    CompanyAnswer,
    DayTotals,
    Errors,
    EventAnswer,
    EventWithBody,
    PastTransaction,
    Replayed,
    StatsAnswer,
    StatusCodeTotal,
    SyncAnswer,
    SyncTotals,
    TransactionAnswer,
    TransactionCounts,
    TransactionHistory,
)
from app.web.api.schemas_changes import ChangeAnswer, SyncState

_CAUSE_WORDS = ("who", "next_step", "customer", "send_again")


def sync_answer(kept: KeptSync) -> SyncAnswer:
    """A kept sync, as the contract words it."""
    sync = kept.sync
    same = {name: getattr(sync, name) for name in SyncAnswer.model_fields if hasattr(sync, name)}
    same["failure_stage"] = seen_stage(sync.state, sync.failure_stage)
    return SyncAnswer(
        **same,
        company_name=kept.company_name,
        status_text=status_text(sync.status_code),
        updated_at=kept.updated_at,
        source_platform=kept.source_platform,
        transactions=_counts(kept),
        errors=_errors(kept),
        cause=kept.cause,
    )


def _counts(kept: KeptSync) -> TransactionCounts:
    if kept.sync.counts is None:
        return TransactionCounts()
    counts = TransactionCounts.model_validate(kept.sync.counts)
    return counts.model_copy(update={"expected": kept.sync.expected})


def _errors(kept: KeptSync) -> Errors:
    fetch = kept.fetch
    return Errors(
        state=kept.errors_state,
        attempts=fetch.attempts if fetch else 0,
        next_attempt_at=fetch.next_attempt_at if fetch else None,
        fetched_at=kept.sync.fetched_at,
        last_error=fetch.last_error if fetch else None,
    )


def item_answer(item: KeptItem, rules: Rules) -> TransactionAnswer:
    """A kept row of a transaction list, its cause in words."""
    return TransactionAnswer(**_item(item, rules))


def _item(item: KeptItem, rules: Rules) -> dict[str, Any]:
    same = {name: getattr(item, name) for name in KeptItem.__slots__}
    return same | _cause(item.cause, rules)


def _cause(key: str | None, rules: Rules) -> dict[str, str | None]:
    """A cause's words; a key that no rule knows any more stands for itself."""
    cause = rules.causes.get(key or "")
    told = {f"cause_{name}": getattr(cause, name, None) for name in _CAUSE_WORDS}
    return told | {"cause_title": cause.title if cause else key}


def history_answer(items: list[KeptItem], rules: Rules) -> TransactionHistory:
    """A transaction's rows over all syncs, newest first, and what they add up to."""
    failures = [item for item in items if item.failed]
    newest = items[0]
    return TransactionHistory(
        company_id=newest.company_id,
        transaction_id=newest.transaction_id or "",
        current=newest.current,
        cured_by=failures[0].cured_by if failures else None,
        history=[PastTransaction(**_item(item, rules)) for item in items],
    )


def company_answer(company: KeptCompany) -> CompanyAnswer:
    """A company with its totals."""
    return CompanyAnswer(
        company_id=company.company_id,
        company_name=company.name,
        syncs=SyncTotals(**_totals(company.by_outcome)),
        open_failures=company.open_failures,
        last_sync=sync_answer(company.last_sync) if company.last_sync else None,
        connection_state=company.connection_state,
    )


def stats_answer(stats: Stats) -> StatsAnswer:
    """The statistics of a range, every outcome named even where there is none."""
    codes = sorted(stats.by_status_code.items(), key=lambda each: (each[0] is None, each[0] or 0))
    return StatsAnswer(
        total=stats.by_outcome.total(),
        by_outcome=SyncTotals(**_totals(stats.by_outcome)),
        by_status_code=[
            StatusCodeTotal(status_code=code, status_text=status_text(code), total=total)
            for code, total in codes
        ],
        by_day=[DayTotals(day=day, **_totals(count)) for day, count in stats.by_day.items()],
    )


def _totals(by_outcome: Counter[str]) -> dict[str, int]:
    return {"total": by_outcome.total()} | {name: by_outcome[name] for name in get_args(Outcome)}


def event_answer(event: KeptEvent) -> EventAnswer:
    """A kept webhook without its body."""
    return EventAnswer(**_told(event))


def event_with_body(event: KeptEvent) -> EventWithBody:
    """A kept webhook with its body: as text where it is UTF-8, else in base64."""
    if event.body is None:
        return EventWithBody(**_told(event), body=None, body_encoding=None)
    try:
        return EventWithBody(**_told(event), body=event.body.decode(), body_encoding="utf-8")
    except UnicodeDecodeError:
        coded = base64.b64encode(event.body).decode()
        return EventWithBody(**_told(event), body=coded, body_encoding="base64")


def change_answer(change: KeptChange) -> ChangeAnswer:
    """A change with the state it led to."""
    told = json.loads(change.told)
    return ChangeAnswer(
        cursor=change.cursor,
        kind=change.kind,
        company_id=change.company_id,
        sync_id=change.sync_id,
        transaction_id=change.transaction_id,
        at=change.at,
        sync=SyncState.model_validate(told) if change.kind == "sync" else None,
        rows=told["rows"] if change.kind == "transaction" else None,
    )


def replayed(event: KeptEvent, *, changed: bool, sync: KeptSync | None) -> Replayed:
    """A kept webhook that was read again, and what the sync has become."""
    told = sync_answer(sync) if sync else None
    return Replayed(**_told(event), changed=changed, sync=told)


def _told(event: KeptEvent) -> dict[str, Any]:
    same = {name: getattr(event, name) for name in EventAnswer.model_fields if name != "body_id"}
    return same | {"event_id": event.message_id, "body_id": event.event_id}
