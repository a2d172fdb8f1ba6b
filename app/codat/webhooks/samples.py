"""Signed sample events, as Codat would post them: to try out a webhook endpoint.

Bodies follow Codat's published webhook schemas, in the legacy shape (`RuleType`) and in the new one
(`eventType`). The svix library signs them.
"""

import json
import uuid
from datetime import datetime
from typing import Any, Literal

from app.codat.webhooks.event_types import canonical
from app.domain.models import SYNC_COMPLETED, SYNC_FAILED, SYNC_STARTED

SampleEvent = Literal["started", "failed", "completed"]
Shape = Literal["legacy", "new"]

EVENT_NAMES = (
    "SyncStarted",
    "SyncFailed",
    "SyncCompleted",
    "expenses.sync.unsuccessful",
    "expenses.sync.successful",
)
"""The event names to offer; every other spelling of Codat's is accepted too."""

_EVENTS: dict[str, SampleEvent] = {
    SYNC_STARTED: "started",
    SYNC_FAILED: "failed",
    SYNC_COMPLETED: "completed",
}
_NEW_TYPES = {"failed": "expenses.sync.unsuccessful", "completed": "expenses.sync.successful"}
_MESSAGES = {
    "started": "has started",
    "failed": "has failed at step Pushing",
    "completed": "completed successfully",
}


def sync_event_of(name: str) -> SampleEvent | None:
    """The sync event that a name means, in any spelling; None for other names."""
    event = canonical(name) or f"sync.{name.strip().lower()}"
    return _EVENTS.get(event)


def sample_body(
    event: SampleEvent,
    *,
    company_id: str,
    sync_id: str,
    now: datetime,
    shape: Shape | None = None,
) -> dict[str, Any]:
    """The body of one sync event.

    The default shape is the new one, except for a start, which exists only in the legacy shape.
    Raises ValueError for a start in the new shape.
    """
    if shape == "legacy" or (shape is None and event == "started"):
        failed = {"FailureStage": "Pushing"} if event == "failed" else {}
        text = f"Sync {sync_id} for company {company_id} of type Expense {_MESSAGES[event]}."
        return {
            "AlertId": str(uuid.uuid4()),
            "RuleType": f"Sync {event.capitalize()}",
            "CompanyId": company_id,
            "Message": text,
            "Data": {"syncId": sync_id, "syncType": "Expense", **failed},
        }
    if event == "started":
        raise ValueError("The new shape has no event for a started sync.")
    company = {"id": company_id, "name": "Sample company"}
    return {
        "id": str(uuid.uuid4()),
        "eventType": _NEW_TYPES[event],
        "generatedDate": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "payload": {"referenceCompany": company, "syncId": sync_id},
    }


def sign(body: dict[str, Any], secret: str, now: datetime) -> tuple[bytes, dict[str, str]]:
    """The bytes and headers of one delivery. Raises svix's errors for an invalid secret."""
    from svix.webhooks import Webhook  # slow to import

    text = json.dumps(body)
    message_id = f"msg_{uuid.uuid4().hex}"
    return text.encode(), {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, text),
    }
