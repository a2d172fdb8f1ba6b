"""Looks at what failed and stays so: transactions by cause and company, and our own messages."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import logging as log
from app.db import alerts, outgoing
from app.db.alerts import OpenFailures
from app.db.engine import Database
from app.domain.causes.classifier import Rules
from app.domain.webhook_loss import Finding

LOOK_EVERY = timedelta(minutes=5)
LOOKS_BACK = timedelta(days=30)
ADDRESS_MISSED_FOR = timedelta(days=4)  # longer than messages are tried
PREFIX = "push_error:"
UNDELIVERED = "messages_undelivered"

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Failures:
    """Opens and resolves one alert per cause and company; `names` are the addresses in use."""

    database: Database
    clock: Callable[[], datetime]
    names: Collection[str]

    async def run(self) -> str:
        """One look; says what it did."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> str:
        now = self.clock()
        with self.database.reading() as connection:
            open_now = alerts.open_failures(connection, now - LOOKS_BACK)
        found = [_failed(each, self.database.rules) for each in open_now]
        with self.database.writing() as connection:
            before = now - ADDRESS_MISSED_FOR
            outgoing.abandon(connection, self.names, before=before, now=now)
            found += _lost(outgoing.given_up(connection))
            causes = alerts.causes_open(connection, PREFIX) | {each.cause for each in found}
            turned = alerts.turn(connection, causes | {UNDELIVERED}, found, now)
        for each in turned.opened:
            _log.warning(each.text, alert=each.cause, company_id=each.company_id or None)
        return f"{len(turned.opened)} alerts opened, {turned.resolved} resolved"


def _failed(failures: OpenFailures, rules: Rules) -> Finding:
    cause = rules.causes.get(failures.cause)
    why = cause.title if cause else failures.cause
    text = f"transactions stay failed: {why}"  # no number: it changes all the time
    return Finding(f"{PREFIX}{failures.cause}", failures.company_id, text)


def _lost(given_up: Mapping[str, int]) -> list[Finding]:
    """One alert for all receivers: it is about us, and about no company."""
    if not given_up:
        return []
    said = ", ".join(f"{count} to {recipient}" for recipient, count in given_up.items())
    text = f"messages could not be delivered: {said}; mend the receiver, then redrive --messages"
    return [Finding(UNDELIVERED, "", text)]
