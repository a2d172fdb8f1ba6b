"""Webhook bodies: both payload generations and every spelling Codat has documented."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from simulator import answers, wording
from simulator.clock import Clock, plain_time
from simulator.outcomes import Item
from simulator.settings import SimulatorSettings
from simulator.world import Company, Sync

Json = dict[str, Any]

RULE_TYPES = {"started": "Sync Started", "failed": "Sync Failed", "completed": "Sync Completed"}
LEGACY_TYPES = {"started": "SyncStarted", "failed": "SyncFailed", "completed": "SyncCompleted"}
NEW_TYPES = {
    "failed": "expenses.sync.unsuccessful",
    "completed": "expenses.sync.successful",
}
_ENDINGS = {
    "started": "has started.",
    "failed": "has failed at step Pushing.",
    "completed": "completed successfully.",
}


def company_reference(company: Company) -> Json:
    """`referenceCompany` as new event bodies carry it."""
    portal = f"https://app.codat.io/companies/{company.company_id}/summary"
    return {
        "id": company.company_id,
        "name": company.name,
        "description": company.description,
        "links": {"portal": portal},
        "tags": company.tags,
    }


def inline_item(item: Item) -> Json:
    """A row as new bodies carry it: every failing status is `Failed` there."""
    return {
        "id": item.transaction_id,
        "status": "Failed" if item.failed else item.status,
        "errorMessage": item.message if item.failed else None,
    }


def _without_blank(body: Json) -> Json:
    return {**body, "RuleType": body["RuleType"].replace(" ", "")}


def _type_key(body: Json) -> Json:
    return {("Type" if key == "RuleType" else key): value for key, value in body.items()}


def _camel(body: Json) -> Json:
    def lower(name: str) -> str:
        return name[0].lower() + name[1:]

    small = {lower(key): value for key, value in body.items() if key not in ("RuleType", "Data")}
    data = {lower(key): value for key, value in body["Data"].items()}
    return {**small, "type": body["RuleType"], "data": data}


RESPELLINGS: dict[str, Callable[[Json], Json]] = {
    "ruletype-without-space": _without_blank,
    "type-key": _type_key,
    "camel": _camel,
}
SHAPES = ("legacy", "new", "new-without-transactions", "status", *RESPELLINGS)


class Scribe:
    """Writes the bodies, with ids from one generator and times from one clock."""

    def __init__(self, rng: random.Random, clock: Clock, settings: SimulatorSettings) -> None:
        """`settings` name the client that legacy bodies carry."""
        self._rng = rng
        self._clock = clock
        self._settings = settings

    def of_sync(self, sync: Sync, company: Company, event: str, shape: str) -> tuple[str, Json]:
        """(subscription's event type, body) for an event of a sync in one of SHAPES.

        KeyError when the shape has no such event (the newer generation knows no `started`).
        """
        if shape.startswith("new"):
            return NEW_TYPES[event], self._new(sync, company, event, shape == "new")
        if shape == "status":
            return LEGACY_TYPES[event], answers.status_body(sync)
        respell = RESPELLINGS.get(shape)
        plain = self._legacy(sync, event)
        return LEGACY_TYPES[event], respell(plain) if respell else plain

    def of_quota(
        self, event: str, limit: int, remaining: int, expiry: datetime
    ) -> tuple[str, Json]:
        """`client.rateLimit.reached` or `.reset`: about the whole client, no company in it."""
        return self.envelope(
            f"client.rateLimit.{event}",
            {"dailyQuota": limit, "quotaRemaining": remaining, "expiryDate": plain_time(expiry)},
        )

    def of_connection(self, event: str, company: Company) -> tuple[str, Json]:
        """`connection.connected`, `.disconnected` and so on for the accounting connection."""
        payload: Json = {"referenceCompany": company_reference(company)}
        if company.connections:
            link = answers.connection_body(company.company_id, company.connections[0])
            payload["connection"] = link
        return self.envelope(f"connection.{event}", payload)

    def envelope(self, event_type: str, payload: Json) -> tuple[str, Json]:
        """(event type, the newer generation's envelope around a payload)."""
        return event_type, {
            "id": wording.new_id(self._rng),
            "eventType": event_type,
            "generatedDate": plain_time(self._clock.now()),
            "payload": payload,
        }

    def _legacy(self, sync: Sync, event: str) -> Json:
        """The `RuleType` body of the older generation; it carries no time of its own."""
        data: Json = {"syncId": sync.sync_id, "syncType": "Expense"}
        if event == "failed":
            data["FailureStage"] = "Pushing"
        return {
            "ClientId": self._settings.client_id,
            "ClientName": self._settings.client_name,
            "CompanyId": sync.company_id,
            "RuleId": None,
            "RuleType": RULE_TYPES[event],
            "AlertId": wording.new_id(self._rng),
            "Message": f"Sync {sync.sync_id} for company {sync.company_id} of type Expense "
            f"{_ENDINGS[event]}",
            "Data": data,
        }

    def _new(self, sync: Sync, company: Company, event: str, transactions: bool) -> Json:
        payload: Json = {"referenceCompany": company_reference(company), "syncId": sync.sync_id}
        if transactions:
            payload["transactions"] = [inline_item(item) for item in sync.items]
        return self.envelope(NEW_TYPES[event], payload)[1]
