"""Failure alerts: open failed transactions by cause and company, companies that cannot sync, and
messages that do not arrive.

A pass reads, and writes only what differs from the open alerts. One that cannot finish says so in
an alert of its own.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from app import logging as log
from app.db import alerts, outgoing
from app.db.alerts import (
    CANNOT_SYNC_PREFIX,
    FAILURE_PREFIX,
    OUTDATED,
    RETRIES_UNDELIVERED,
    UNDELIVERED,
)
from app.db.engine import Database
from app.domain.causes.classifier import Classifier
from app.domain.webhook_loss import Finding
from app.errors import DatabaseUnavailable
from app.worker.threads import read, write

EVERY = timedelta(minutes=1)
LOOKBACK = timedelta(days=30)
ABANDON_AFTER = timedelta(days=4)  # longer than deliveries are retried
_OWNED = (FAILURE_PREFIX, CANNOT_SYNC_PREFIX, UNDELIVERED, RETRIES_UNDELIVERED, OUTDATED)
_OUTDATED = Finding(
    OUTDATED,
    "",
    "Alerts about failures may be out of date: the database did not answer in time.",
)

_log = log.get(__name__)


async def check_failures(
    database: Database,
    clock: Callable[[], datetime],
    hosts: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Open and resolve one alert per cause and company; returns what changed, as text.

    Also abandons messages that no worker has an address for. `hosts` are those of the recipients,
    by their names. Raises DatabaseUnavailable.
    """
    now = clock()
    before = now - ABANDON_AFTER
    if await read(database, outgoing.has_abandoned, before=before):
        await write(database, outgoing.abandon, before=before, now=now)
    try:
        differences = await read(database, _compare, database.classifier, hosts, now)
    except DatabaseUnavailable as error:
        _log.error("failure alerts are out of date", reason=str(error))
        await write(database, _open_outdated, now)
        raise
    if not any(differences):
        return "0 alerts opened, 0 resolved"
    changes = await write(database, alerts.apply, differences, now)
    for (cause, text), companies in Counter((a.cause, a.text) for a in changes.opened).items():
        _log.warning("alerts opened", cause=cause, text=text, companies=companies)
    return f"{len(changes.opened)} alerts opened, {changes.resolved} resolved"


def _compare(
    connection: Any, classifier: Classifier, hosts: Mapping[str, str], now: datetime
) -> alerts.Differences:
    findings = [
        alerts.failure_finding(classifier, FAILURE_PREFIX, *failure)
        for failure in alerts.open_failures(connection, now - LOOKBACK)
    ]
    findings += [
        alerts.failure_finding(classifier, CANNOT_SYNC_PREFIX, *company)
        for company in alerts.companies_that_cannot_sync(connection)
    ]
    findings += _undelivered(outgoing.dead_by_recipient(connection), hosts)
    findings += _failing_retries(outgoing.failing_retries(connection), hosts)
    return alerts.compare(connection, _OWNED, findings)


def _open_outdated(connection: Any, now: datetime) -> None:
    differences = alerts.compare(connection, [OUTDATED], [_OUTDATED])
    alerts.apply(connection, differences, now)


def _undelivered(dead: Mapping[str, int], hosts: Mapping[str, str]) -> list[Finding]:
    """One alert for all recipients: it is about this service, and about no company."""
    if not dead:
        return []
    counts = ", ".join(f"{count} to {hosts.get(name, name)}" for name, count in dead.items())
    text = (
        f"Outgoing messages could not be delivered: {counts}. "
        "Fix the receiver, then run `python -m app redrive --messages`."
    )
    return [Finding(UNDELIVERED, "", text)]


def _failing_retries(errors: Mapping[str, str | None], hosts: Mapping[str, str]) -> list[Finding]:
    if not errors:
        return []
    where = ", ".join(f"{hosts.get(name, name)} ({error})" for name, error in errors.items())
    text = f"Retry requests are not delivered to {where}. They are sent again for three days."
    return [Finding(RETRIES_UNDELIVERED, "", text)]
