"""Webhook payloads in the shapes that Codat has documented.

A payload function returns the event type that subscriptions filter by, and the body.
"""

import random
from datetime import datetime
from typing import Literal

from simulator.clock import format_time
from simulator.outcomes import Transaction, random_uuid
from simulator.responses import status_json
from simulator.state import Company, Json, Sync

SyncEvent = Literal["started", "failed", "completed"]
Shape = Literal["legacy", "new", "new-without-transactions", "status"]

CLIENT_ID = "30e0f9d2-52c0-4c9f-a806-bcd98a3bcd7e"
CLIENT_NAME = "Expense Sync"
LEGACY_TYPES = {"started": "SyncStarted", "failed": "SyncFailed", "completed": "SyncCompleted"}
NEW_TYPES = {"failed": "expenses.sync.unsuccessful", "completed": "expenses.sync.successful"}
_RULE_TYPES = {"started": "Sync Started", "failed": "Sync Failed", "completed": "Sync Completed"}
_MESSAGE_ENDINGS = {
    "started": "has started.",
    "failed": "has failed at step Pushing.",
    "completed": "completed successfully.",
}


def sync_payload(
    sync: Sync, company: Company, event: SyncEvent, shape: Shape, rng: random.Random, now: datetime
) -> tuple[str, Json]:
    """Build a sync event: the legacy `RuleType` body, the new body, or the bare sync status.

    Raises ValueError for a `started` event in a new shape, which Codat does not have.
    """
    if shape == "status":
        return LEGACY_TYPES[event], status_json(sync)
    if shape == "legacy":
        return LEGACY_TYPES[event], _legacy_body(sync, event, rng)
    if event == "started":
        raise ValueError("the new event types have no started event")
    payload: Json = {"referenceCompany": reference_company(company), "syncId": sync.sync_id}
    if shape == "new":
        payload["transactions"] = [_new_transaction(row) for row in sync.transactions]
    return new_payload(NEW_TYPES[event], payload, rng, now)


def new_payload(
    event_type: str, payload: Json, rng: random.Random, now: datetime
) -> tuple[str, Json]:
    """Wrap a payload in the envelope of the new event types."""
    return event_type, {
        "id": random_uuid(rng),
        "eventType": event_type,
        "generatedDate": format_time(now),
        "payload": payload,
    }


def reference_company(company: Company) -> Json:
    """Build the `referenceCompany` of the new event types."""
    return {
        "id": company.company_id,
        "name": company.name,
        "description": company.description,
        "links": {"portal": f"https://app.codat.io/companies/{company.company_id}/summary"},
        "tags": company.tags,
    }


def _legacy_body(sync: Sync, event: SyncEvent, rng: random.Random) -> Json:
    data: Json = {"syncId": sync.sync_id, "syncType": "Expense"}
    if event == "failed":
        data["FailureStage"] = "Pushing"
    return {
        "ClientId": CLIENT_ID,
        "ClientName": CLIENT_NAME,
        "CompanyId": sync.company_id,
        "RuleId": None,
        "RuleType": _RULE_TYPES[event],
        "AlertId": random_uuid(rng),
        "Message": f"Sync {sync.sync_id} for company {sync.company_id} of type Expense "
        f"{_MESSAGE_ENDINGS[event]}",
        "Data": data,
    }


def _new_transaction(row: Transaction) -> Json:
    # The new event types have one status for every failure.
    return {
        "id": row.transaction_id,
        "status": "Failed" if row.failed else row.status,
        "errorMessage": row.message if row.failed else None,
    }
