"""Webhook monitor: detects lost webhooks, and checks our endpoints at Codat."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from app import logging as log
from app.codat.client import CodatClient
from app.db import alerts
from app.db.alerts import AlertChanges
from app.db.engine import Database
from app.domain.webhook_loss import AlertCause, Finding, check_endpoints, find_lost_webhooks

LOOKBACK = timedelta(days=15)
_LOST: tuple[AlertCause, ...] = ("webhooks_lost",)
_ENDPOINT = tuple(cause for cause in get_args(AlertCause) if cause not in _LOST)

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class WebhookMonitor:
    """Opens and resolves alerts about webhooks. Run it after a reconciliation."""

    database: Database
    codat: CodatClient
    clock: Callable[[], datetime]

    async def run(self) -> str:
        """One check; returns what it changed, as text. Raises CodatError."""
        lost = await asyncio.to_thread(self._check_for_loss)
        findings = check_endpoints(await self.codat.list_consumers())
        checked = await asyncio.to_thread(self._update, _ENDPOINT, findings)
        opened = len(lost.opened) + len(checked.opened)
        return f"{opened} alerts opened, {lost.resolved + checked.resolved} resolved"

    def _check_for_loss(self) -> AlertChanges:
        now = self.clock()
        findings = []
        with self.database.reading() as connection:
            since = now - LOOKBACK
            for company_id in alerts.companies_with_unreported_syncs(connection, since):
                recent = alerts.recent_finished_syncs(connection, company_id, now)
                findings.append(find_lost_webhooks(company_id, recent, now))
        return self._update(_LOST, [finding for finding in findings if finding])

    def _update(self, causes: Sequence[str], findings: Sequence[Finding]) -> AlertChanges:
        with self.database.writing() as connection:
            changes = alerts.sync_alerts(connection, causes, findings, self.clock())
        for finding in changes.opened:
            fields = {"cause": finding.cause, "text": finding.text}
            _log.warning("alert opened", **fields, company_id=finding.company_id or None)
        return changes
