"""Deliveries as Codat sends them, signed by svix ahead of time: finished bytes, each one unique.

Four documented bodies take turns (both generations, failed and completed). Every delivery speaks of
a sync of its own; with its headers each is about one kilobyte.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from svix.webhooks import Webhook

COMPANIES = 200


@dataclass(frozen=True, slots=True)
class Signed:
    """One delivery: its message id, and the bytes of the whole request."""

    message_id: str
    request: bytes


def signed(count: int, secret: str, path: str) -> list[Signed]:
    """Unique deliveries, as many as asked for, signed now; they verify for five minutes."""
    webhook = Webhook(secret)
    now = datetime.now(UTC)
    return [_one(webhook, number, now, path) for number in range(count)]


def _one(webhook: Webhook, number: int, now: datetime, path: str) -> Signed:
    message_id = f"msg_{uuid.uuid4().hex}"
    body = json.dumps(_body(number, now))
    signature = webhook.sign(message_id, now, body)
    head = (
        f"POST {path} HTTP/1.1\r\n"
        "host: 127.0.0.1\r\n"
        "user-agent: Svix-Webhooks/1.90.0 (sender-9YMgn; +https://www.svix.com/http-sender/)\r\n"
        "accept: */*\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        f"webhook-id: {message_id}\r\n"
        f"webhook-timestamp: {int(now.timestamp())}\r\n"
        f"webhook-signature: {signature}\r\n\r\n"
    )
    return Signed(message_id, (head + body).encode())


def _body(number: int, now: datetime) -> dict[str, Any]:
    company = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number % COMPANIES)))
    failed = number % 4 < 2
    return _new(company, now, failed=failed) if number % 2 else _legacy(company, failed=failed)


def _legacy(company: str, *, failed: bool) -> dict[str, Any]:
    sync = str(uuid.uuid4())
    about = f"Sync {sync} for company {company} of type Expense"
    return {
        "ClientId": "30e0f9d2-52c0-4c9f-a806-bcd98a3bcd7e",
        "ClientName": "Expense Sync",
        "CompanyId": company,
        "RuleId": "289c80dc-2aee-4b71-afff-9acd8d051080",
        "RuleType": "Sync Failed" if failed else "Sync Completed",
        "AlertId": str(uuid.uuid4()),
        "Message": about + (" has failed at step Pushing." if failed else " completed."),
        "Data": {"syncId": sync, "syncType": "Expense"} | _stage(failed),
    }


def _stage(failed: bool) -> dict[str, str]:
    return {"FailureStage": "Pushing"} if failed else {}


def _new(company: str, now: datetime, *, failed: bool) -> dict[str, Any]:
    items = [_item("Completed", None)] + ([_item("Failed", "Insufficient funds")] * failed)
    return {
        "id": str(uuid.uuid4()),
        "eventType": "expenses.sync." + ("unsuccessful" if failed else "successful"),
        "generatedDate": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "payload": {
            "referenceCompany": {
                "id": company,
                "name": f"Company {company[:8]}",
                "description": "Syncing expenses",
            },
            "syncId": str(uuid.uuid4()),
            "transactions": items,
        },
    }


def _item(status: str, message: str | None) -> dict[str, str | None]:
    return {"id": str(uuid.uuid4()), "status": status, "errorMessage": message}
