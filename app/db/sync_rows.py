"""A sync as a row, and a row as a sync. The one place that knows both shapes."""

from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import RowMapping

from app.db.why import because
from app.domain.causes.classifier import Rules
from app.domain.sync_state import Sync, day_of
from app.domain.transactions import Counts

_SAME = (
    "company_id",
    "sync_id",
    "failure_stage",
    "started_at",
    "ended_at",
    "first_seen_at",
    "status_code",
    "status",
    "error_message",
    "exception_message",
    "data_pushed",
    "codat_utc",
    "asked_at",
    "items_from",
    "items_key",
    "items_complete",
    "expected",
    "fetched_at",
)
_COUNTED = ("total", "completed", "failed", "pending", "other")
_UNCOUNTED = (None,) * len(_COUNTED)
_same = attrgetter(*_SAME)
_counted = attrgetter(*_COUNTED)


def to_sync(row: RowMapping) -> Sync:
    """The sync a row of `syncs` stands for."""
    counted = row["total"] is not None
    return Sync(
        **{name: row[name] for name in _SAME},
        heard=row["heard"],
        unsettled=row["unsettled"],
        counts=Counts(**{name: row[name] for name in _COUNTED}) if counted else None,
    )


def to_row(sync: Sync, *, updated_at: datetime, rules: Rules) -> dict[str, Any]:
    """The column values of a sync, with what is derived from them for filters and sorting."""
    values = dict(zip(_SAME, _same(sync), strict=True))
    counted = _counted(sync.counts) if sync.counts else _UNCOUNTED
    values |= zip(_COUNTED, counted, strict=True)
    occurred_at = sync.occurred_at
    return (
        values
        | why_as_a_whole(rules, sync)
        | {
            "heard": sync.heard,
            "unsettled": sync.unsettled,
            "state": sync.state,
            "outcome": sync.outcome,
            "finished_at": sync.finished_at,
            "occurred_at": occurred_at,
            "day": day_of(occurred_at) or "",
            "updated_at": updated_at,
        }
    )


def why_as_a_whole(rules: Rules, sync: Sync) -> dict[str, str | None]:
    """The columns that say why a sync failed, where none of its transactions does."""
    if sync.counts and sync.counts.failed:
        return because(rules, None, None)
    cause = rules.of_sync(sync.status_code, sync.error_message, sync.exception_message)
    return because(rules, cause, sync.error_message or sync.exception_message)
