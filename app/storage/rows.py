"""A sync as a row, and a row as a sync. The one place that knows both shapes."""

from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from app.rules.items import Counts
from app.rules.sync import Heard, Sync

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


def to_sync(row: RowMapping) -> Sync:
    """The sync a row of `syncs` stands for."""
    counted = row["total"] is not None
    return Sync(
        **{name: row[name] for name in _SAME},
        heard=Heard(row["heard"]),
        unsettled=Heard(row["unsettled"]),
        counts=Counts(**{name: row[name] for name in _COUNTED}) if counted else None,
    )


def to_row(sync: Sync, *, updated_at: datetime) -> dict[str, Any]:
    """The column values of a sync, with what is derived from them for filters and sorting."""
    values: dict[str, Any] = {name: getattr(sync, name) for name in _SAME}
    values |= {name: getattr(sync.counts, name, None) for name in _COUNTED}
    return values | {
        "heard": int(sync.heard),
        "unsettled": int(sync.unsettled),
        "state": sync.state,
        "outcome": sync.outcome,
        "finished_at": sync.finished_at,
        "occurred_at": sync.occurred_at,
        "day": sync.day or "",
        "updated_at": updated_at,
    }
