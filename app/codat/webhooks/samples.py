"""A signed sample event, as Codat would post it: to try a receiver out.

Bodies follow Codat's published webhook schemas, in the older shape (`RuleType`) and in the newer
one (`eventType`). The signature is made by the svix library.
"""

import json
import uuid
from datetime import datetime
from typing import Any, Literal

from svix.webhooks import Webhook

Shape = Literal["legacy", "new"]

_LEGACY = {"started": "Sync Started", "failed": "Sync Failed", "completed": "Sync Completed"}
_NEW = {"failed": "expenses.sync.unsuccessful", "completed": "expenses.sync.successful"}
_MEANINGS = {
    "syncstarted": "started",
    "syncfailed": "failed",
    "expensessyncunsuccessful": "failed",
    "synccompleted": "completed",
    "synccomplete": "completed",
    "expensessyncsuccessful": "completed",
}
_STEPS = {
    "started": "has started",
    "failed": "has failed at step Pushing",
    "completed": "completed successfully",
}


def meaning(name: str) -> str | None:
    """`started`, `failed` or `completed` for any spelling of a sync event; else None."""
    folded = "".join(c for c in name.lower() if c.isalnum())
    return _MEANINGS.get(folded) or (folded if folded in _LEGACY else None)


def sample(
    event: str, *, company_id: str, sync_id: str, now: datetime, shape: Shape | None = None
) -> dict[str, Any]:
    """The body of one sync event (`event` as `meaning` gives it).

    Without a shape the newer one, except for a start, of which only the older exists. Raises
    ValueError for a start in the newer shape.
    """
    if shape == "new" and event not in _NEW:
        raise ValueError("there is no started event in the new shape")
    if shape == "legacy" or event not in _NEW:
        return _legacy(event, company_id, sync_id)
    return {
        "id": str(uuid.uuid4()),
        "eventType": _NEW[event],
        "generatedDate": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "payload": {
            "referenceCompany": {"id": company_id, "name": "Sample company"},
            "syncId": sync_id,
        },
    }


def _legacy(event: str, company_id: str, sync_id: str) -> dict[str, Any]:
    details = {"syncId": sync_id, "syncType": "Expense"}
    if event == "failed":
        details["FailureStage"] = "Pushing"
    about = f"Sync {sync_id} for company {company_id} of type Expense"
    return {
        "AlertId": str(uuid.uuid4()),
        "RuleType": _LEGACY[event],
        "CompanyId": company_id,
        "Message": f"{about} {_STEPS[event]}.",
        "Data": details,
    }


def signed(body: dict[str, Any], secret: str, now: datetime) -> tuple[bytes, dict[str, str]]:
    """The bytes and the headers of one delivery. Raises svix's errors for a bad secret."""
    text = json.dumps(body)
    message_id = f"msg_{uuid.uuid4().hex}"
    return text.encode(), {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, text),
    }
