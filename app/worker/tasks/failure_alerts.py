"""Failure alerts: transactions that stay failed, by cause and company, and undelivered messages."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import logging as log
from app.db import alerts, outgoing
from app.db.alerts import FAILURE_PREFIX
from app.db.engine import Database
from app.domain.webhook_loss import Finding

EVERY = timedelta(minutes=5)
LOOKBACK = timedelta(days=30)
ABANDON_AFTER = timedelta(days=4)  # longer than deliveries are retried
UNDELIVERED = "messages_undelivered"

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class FailureAlerts:
    """Opens and resolves one alert per cause and company.

    `recipients` are the names of those that messages are sent to; messages to others are abandoned.
    """

    database: Database
    clock: Callable[[], datetime]
    recipients: Collection[str]

    async def run(self) -> str:
        """One check; returns what it changed, as text."""
        return await asyncio.to_thread(self._check)

    def _check(self) -> str:
        now = self.clock()
        with self.database.reading() as connection:
            failures = alerts.open_failures(connection, now - LOOKBACK)
        findings = [self._failure_finding(*each) for each in failures]
        with self.database.writing() as connection:
            before = now - ABANDON_AFTER
            outgoing.abandon(connection, self.recipients, before=before, now=now)
            findings += _undelivered_findings(outgoing.dead_by_recipient(connection))
            causes = {finding.cause for finding in findings} | {UNDELIVERED}
            causes |= alerts.open_causes(connection, FAILURE_PREFIX)
            changes = alerts.sync_alerts(connection, causes, findings, now)
        for (cause, text), companies in Counter((a.cause, a.text) for a in changes.opened).items():
            _log.warning("alerts opened", cause=cause, text=text, companies=companies)
        return f"{len(changes.opened)} alerts opened, {changes.resolved} resolved"

    def _failure_finding(self, cause_key: str, company_id: str) -> Finding:
        cause = self.database.classifier.causes.get(cause_key)
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
