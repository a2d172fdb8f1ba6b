"""Failure alerts: open failed transactions, by cause and company, and undelivered messages."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from app import logging as log
from app.db import alerts, outgoing
from app.db.alerts import FAILURE_PREFIX, UNDELIVERED, AlertChanges
from app.db.engine import Database
from app.domain.causes.classifier import Classifier
from app.domain.webhook_loss import Finding
from app.worker.threads import read, write

EVERY = timedelta(minutes=5)
LOOKBACK = timedelta(days=30)
ABANDON_AFTER = timedelta(days=4)  # longer than deliveries are retried

_log = log.get(__name__)


async def check_failures(database: Database, clock: Callable[[], datetime]) -> str:
    """Open and resolve one alert per cause and company; returns what changed, as text.

    Also abandons messages that no worker has an address for.
    """
    now = clock()
    failures = await read(database, alerts.open_failures, now - LOOKBACK)
    findings = [_failure_finding(database.classifier, *failure) for failure in failures]
    changes = await write(database, _update, findings, now)
    for (cause, text), companies in Counter((a.cause, a.text) for a in changes.opened).items():
        _log.warning("alerts opened", cause=cause, text=text, companies=companies)
    return f"{len(changes.opened)} alerts opened, {changes.resolved} resolved"


def _update(connection: Any, failures: Sequence[Finding], now: datetime) -> AlertChanges:
    outgoing.abandon(connection, before=now - ABANDON_AFTER, now=now)
    findings = [*failures, *_undelivered_findings(outgoing.dead_by_recipient(connection))]
    causes = {finding.cause for finding in findings} | {UNDELIVERED}
    causes |= alerts.open_causes(connection, FAILURE_PREFIX)
    return alerts.sync_alerts(connection, causes, findings, now)


def _failure_finding(classifier: Classifier, cause_key: str, company_id: str) -> Finding:
    cause = classifier.causes.get(cause_key)
    title = cause.title if cause else cause_key
    text = f"{title}: items not recorded"  # without their number, which changes all the time
    return Finding(f"{FAILURE_PREFIX}{cause_key}", company_id, text)


def _undelivered_findings(dead: Mapping[str, int]) -> list[Finding]:
    """One alert for all recipients: it is about this service, and about no company."""
    if not dead:
        return []
    counts = ", ".join(f"{count} to {recipient}" for recipient, count in dead.items())
    text = (
        f"Outgoing messages could not be delivered: {counts}. "
        "Fix the receiver, then run `python -m app redrive --messages`."
    )
    return [Finding(UNDELIVERED, "", text)]
