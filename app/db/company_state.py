"""Companies that cannot sync: their syncs have failed as a whole since the last one that did not.

A sync fails as a whole when Codat says that it failed and lists no transaction: the accounting
software is disconnected, the subscription has ended, the configuration is incomplete. The state is
stored with the company, so that lists begin with these companies without a search. It is recomputed
whenever such a sync is written, or a sync of such a company (`sync_writer`).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, or_, select, tuple_, update

from app.db.many_rows import is_any_of
from app.db.tables import companies, syncs

_CAN_SYNC = ("all_written", "nothing_to_write", "partly_failed")
_TIME = (syncs.c.occurred_at, syncs.c.id)
_NEWEST_FIRST = tuple(column.desc() for column in _TIME)
_IS_WHOLE_FAILURE = and_(
    syncs.c.outcome == "failed",
    syncs.c.verified_at.is_not(None),
    or_(syncs.c.total.is_(None), and_(syncs.c.total == 0, syncs.c.transactions_complete)),
)
_WROTE_OR_LISTED = or_(
    syncs.c.outcome.in_(_CAN_SYNC), and_(syncs.c.outcome == "failed", syncs.c.total > 0)
)


class CannotSync(NamedTuple):
    """Since when the syncs of a company fail as a whole, and the key of the latest one."""

    since: datetime | None
    sync_pk: int | None


def may_change(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """True when the row of a sync, before and after, may change the state of any company."""
    return _is_whole_failure(after) or (before is not None and _is_whole_failure(before))


def _is_whole_failure(row: Mapping[str, Any]) -> bool:
    is_empty = row["total"] is None or (row["total"] == 0 and row["transactions_complete"])
    return row["outcome"] == "failed" and row["verified_at"] is not None and is_empty


def among(connection: Connection, company_ids: Iterable[str]) -> set[str]:
    """Those of these companies that cannot sync, as it is stored."""
    stored = select(companies.c.company_id).where(
        is_any_of(connection, companies.c.company_id, set(company_ids)),
        companies.c.cannot_sync_since.is_not(None),
    )
    return set(connection.execute(stored).scalars())


def recompute(connection: Connection, company_ids: Iterable[str]) -> int:
    """Bring the state of these companies up to date; returns how many differed.

    The caller has locked the companies.
    """
    changed = 0
    for company_id in sorted(set(company_ids)):
        since, sync_pk = _find(connection, company_id)
        differs = or_(
            companies.c.cannot_sync_since.is_distinct_from(since),
            companies.c.cannot_sync_pk.is_distinct_from(sync_pk),
        )
        mine = update(companies).where(companies.c.company_id == company_id, differs)
        values = {"cannot_sync_since": since, "cannot_sync_pk": sync_pk}
        changed += connection.execute(mine.values(values)).rowcount
    return changed


def _find(connection: Connection, company_id: str) -> CannotSync:
    mine = select(*_TIME).where(syncs.c.company_id == company_id)
    last = mine.where(_WROTE_OR_LISTED).order_by(*_NEWEST_FIRST).limit(1)
    failed = mine.where(_IS_WHOLE_FAILURE)
    if could := connection.execute(last).first():
        failed = failed.where(tuple_(*_TIME) > tuple_(*could))
    first = connection.execute(failed.order_by(*_TIME).limit(1)).first()
    newest = connection.execute(failed.order_by(*_NEWEST_FIRST).limit(1)).first()
    return CannotSync(first.occurred_at if first else None, newest.id if newest else None)
