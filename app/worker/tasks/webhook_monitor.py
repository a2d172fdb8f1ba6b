"""Silence watch: tells loss from quiet, and looks after our endpoints at Codat."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app import logging as log
from app.db import alerts
from app.db.alerts import Turned
from app.db.engine import Database
from app.domain.webhook_loss import Cause, Endpoint, Finding, endpoint_findings, lost_webhooks

LOOKS_BACK = timedelta(days=15)
_LOSS: tuple[Cause, ...] = ("webhooks_lost",)
_ENDPOINT: tuple[Cause, ...] = ("endpoint_missing", "endpoint_disabled", "event_types_missing")

_log = log.get(__name__)


class Consumer(Protocol):
    """A webhook endpoint as the client read it."""

    @property
    def url(self) -> str | None:
        """Where it posts to."""

    @property
    def disabled(self) -> bool:
        """True when Codat has stopped it."""

    @property
    def event_types(self) -> tuple[str, ...]:
        """What it listens to."""


class ListsConsumers(Protocol):
    """What the watch needs of the Codat client."""

    async def list_consumers(self) -> Sequence[Consumer]:
        """Our endpoints; raises CodatError."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Looks after a reconciliation has brought what Codat knows."""

    database: Database
    codat: "ListsConsumers"
    clock: Callable[[], datetime]

    async def run(self) -> str:
        """One look: opens and resolves alerts. Raises CodatError when Codat cannot be asked."""
        lost = await asyncio.to_thread(self._look_for_loss)
        told = [
            Endpoint(each.url or "", each.disabled, each.event_types)
            for each in await self.codat.list_consumers()
        ]
        endpoints = await asyncio.to_thread(self._turn, _ENDPOINT, endpoint_findings(told))
        opened = len(lost.opened) + len(endpoints.opened)
        return f"{opened} alerts opened, {lost.resolved + endpoints.resolved} resolved"

    def _look_for_loss(self) -> Turned:
        now = self.clock()
        findings = []
        with self.database.reading() as connection:
            for company_id in alerts.companies_untold(connection, now - LOOKS_BACK):
                recent = alerts.recent_syncs(connection, company_id, now)
                findings.append(lost_webhooks(company_id, recent, now))
        return self._turn(_LOSS, [each for each in findings if each])

    def _turn(self, causes: Sequence[Cause], findings: Sequence[Finding]) -> Turned:
        with self.database.writing() as connection:
            turned = alerts.turn(connection, causes, findings, self.clock())
        for each in turned.opened:
            _log.warning(each.text, alert=each.cause, company_id=each.company_id or None)
        return turned
