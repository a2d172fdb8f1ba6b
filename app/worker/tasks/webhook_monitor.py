"""Webhook monitor: detects lost webhooks, and checks our endpoints at Codat."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

from app import logging as log
from app.codat.client import CodatClient
from app.db import alerts
from app.db.alerts import AlertChanges
from app.db.engine import Database
from app.domain.webhook_loss import AlertCause, Finding, check_endpoints, find_lost_webhooks
from app.worker.threads import read, write

LOOKBACK = timedelta(days=15)
_LOST: tuple[AlertCause, ...] = ("webhooks_lost",)
_ENDPOINT = tuple(cause for cause in get_args(AlertCause) if cause not in _LOST)

_log = log.get(__name__)


async def check_webhooks(
    database: Database,
    codat: CodatClient,
    clock: Callable[[], datetime],
    webhook_url: str | None = None,
) -> str:
    """Open and resolve alerts about webhooks; returns what changed, as text. Raises CodatError.

    Run it after a reconciliation. `webhook_url` is the address of our endpoint, if it is known.
    """
    now = clock()
    lost = await _update(database, _LOST, await read(database, _find_losses, now), now)
    findings = check_endpoints(await codat.list_consumers(), webhook_url)
    checked = await _update(database, _ENDPOINT, findings, clock())
    opened = len(lost.opened) + len(checked.opened)
    return f"{opened} alerts opened, {lost.resolved + checked.resolved} resolved"


def _find_losses(connection: Any, now: datetime) -> list[Finding]:
    found = [
        find_lost_webhooks(
            company_id, alerts.recent_finished_syncs(connection, company_id, now), now
        )
        for company_id in alerts.companies_with_unreported_syncs(connection, now - LOOKBACK)
    ]
    return [finding for finding in found if finding]


async def _update(
    database: Database, causes: Sequence[str], findings: Sequence[Finding], now: datetime
) -> AlertChanges:
    changes = await write(database, alerts.sync_alerts, causes, findings, now)
    by_cause: dict[str, list[Finding]] = {}
    for finding in changes.opened:
        by_cause.setdefault(finding.cause, []).append(finding)
    for cause, opened in by_cause.items():
        companies = [finding.company_id for finding in opened if finding.company_id]
        ids = log.listed(company_id=companies[: log.MAX_IDS])
        _log.warning("alerts opened", cause=cause, text=opened[0].text, count=len(opened), **ids)
    return changes
