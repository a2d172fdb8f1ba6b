"""Codat's event types: every documented spelling, and the canonical name for each.

Names are compared folded (lower case, letters and digits only) and as a whole: "Sync Connection
Deleted" and "Data sync completed" are not about expense syncs.
"""

import re
from functools import lru_cache

from app.domain.models import (
    RATE_LIMIT_REACHED,
    RATE_LIMIT_RESET,
    SYNC_COMPLETED,
    SYNC_FAILED,
    SYNC_STARTED,
)

_SPELLINGS = {
    SYNC_STARTED: ("Sync Started",),
    SYNC_FAILED: ("Sync Failed", "expenses.sync.unsuccessful"),
    SYNC_COMPLETED: ("Sync Completed", "Sync Complete", "expenses.sync.successful"),
    RATE_LIMIT_REACHED: (RATE_LIMIT_REACHED, "Rate Limit Reached"),
    RATE_LIMIT_RESET: (RATE_LIMIT_RESET, "Rate Limit Reset"),
}

# Stored and shown under their own names: docs.codat.io/using-the-api/webhooks/event-types, and the
# older rules of docs.codat.io/using-the-api/webhooks/migrating-to-new-event-types.
_OTHER_TYPES = """
connection.created, connection.connected, connection.reconnected, connection.disconnected,
connection.failed, connection.deleted, company.created, company.updated, company.deleted,
company.product.added, company.product.removed, read.completed, read.completed.initial,
bankFeeds.sourceAccount.connected, bankFeeds.sourceAccount.disconnected,
report.categorizedBankStatement.generate.successful,
reports.spendAnalysis.generate.successful, reports.spendAnalysis.generate.unsuccessful,
DataConnectionStatusChanged, Sync Connection Deleted, Company Data Connection Status Changed,
Data sync completed, Data Sync Status Changed To Error, DatasetDataChanged,
DatasetStatusHasChanged, New company synchronised, NewCompanySynchronized,
Push Operation Status Changed, PushOperationStatusHasChanged, Push Operation Timed Out,
Account Categories Updated
"""
_WRITE_EVENT = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}\.write\.(un)?successful\Z")


def fold(name: str) -> str:
    """Lower case, letters and digits only."""
    return "".join(filter(str.isalnum, name.lower()))


_CANONICAL = {fold(name): name.strip() for name in _OTHER_TYPES.split(",")}
_CANONICAL |= {fold(name): event for event, names in _SPELLINGS.items() for name in names}


@lru_cache(maxsize=256)
def canonical(name: str) -> str | None:
    """The canonical name of an event type in any spelling; None for one in no catalog."""
    return _CANONICAL.get(fold(name)) or (name if _WRITE_EVENT.match(name) else None)
