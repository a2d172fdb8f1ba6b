"""The names of Codat's events: every documented spelling, and the one we use.

Names are compared folded (lower case, letters and digits only) and exactly: "Sync Connection
Deleted" and "Data sync completed" are no expense syncs.
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
    SYNC_STARTED: ("Sync Started", "sync-started"),
    SYNC_FAILED: ("Sync Failed", "sync-failed", "expenses.sync.unsuccessful"),
    SYNC_COMPLETED: (
        "Sync Completed",
        "Sync Complete",
        "sync-complete",
        "expenses.sync.successful",
    ),
    RATE_LIMIT_REACHED: (RATE_LIMIT_REACHED, "Rate Limit Reached", "ClientRateLimitReached"),
    RATE_LIMIT_RESET: (RATE_LIMIT_RESET, "Rate Limit Reset", "ClientRateLimitReset"),
}

# Kept and shown under their own names: docs.codat.io/using-the-api/webhooks/event-types, and the
# older rules of docs.codat.io/using-the-api/webhooks/migrating-to-new-event-types.
_OTHERS = (
    "connection.created",
    "connection.connected",
    "connection.reconnected",
    "connection.disconnected",
    "connection.failed",
    "connection.deleted",
    "company.created",
    "company.updated",
    "company.deleted",
    "company.product.added",
    "company.product.removed",
    "read.completed",
    "read.completed.initial",
    "bankFeeds.sourceAccount.connected",
    "bankFeeds.sourceAccount.disconnected",
    "report.categorizedBankStatement.generate.successful",
    "reports.spendAnalysis.generate.successful",
    "reports.spendAnalysis.generate.unsuccessful",
    "DataConnectionStatusChanged",
    "Data Connection Status Changed",
    "Sync Connection Deleted",
    "Company Data Connection Status Changed",
    "Data sync completed",
    "DataSyncCompleted",
    "Data Sync Status Changed To Error",
    "DatasetDataChanged",
    "Dataset data changed",
    "DatasetStatusHasChanged",
    "Dataset status has changed",
    "New company synchronised",
    "NewCompanySynchronized",
    "Push Operation Status Changed",
    "PushOperationStatusHasChanged",
    "Push Operation Timed Out",
    "Account Categories Updated",
)
_WRITE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}\.write\.(un)?successful\Z")


def fold(name: str) -> str:
    """Lower case, letters and digits only."""
    return "".join(filter(str.isalnum, name.lower()))


_KNOWN = {fold(name): event for event, names in _SPELLINGS.items() for name in names}
_KNOWN |= {fold(name): name for name in reversed(_OTHERS)}


@lru_cache(maxsize=256)
def canonical(name: str) -> str | None:
    """Our name for an event type as Codat may spell it; None for one in no catalog."""
    known = _KNOWN.get(fold(name))
    if known is not None:
        return known
    return name if _WRITE.match(name) else None
