"""The shapes of Codat's successful answers, and its paging, bent where a fault asks for it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from simulator.faults import Fault
from simulator.outcomes import Item
from simulator.refusals import RefusalError
from simulator.world import Company, Connection, Sync

Json = dict[str, Any]
MAX_PAGE_SIZE = 5000


@dataclass(frozen=True)
class Call:
    """One authenticated API call, with decoded path parameters."""

    params: dict[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    fault: Fault | None = None


@dataclass(frozen=True)
class Reply:
    """An answer: `body` is anything JSON can say."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


def status_body(sync: Sync) -> Json:
    """CompanySyncStatus; empty texts are "" and not null, as in Codat's samples."""
    return {
        "companyId": sync.company_id,
        "syncId": sync.sync_id,
        "syncStatusCode": sync.code,
        "syncStatus": sync.status,
        "errorMessage": sync.error_message,
        "syncExceptionMessage": sync.exception_message,
        "syncUtc": sync.sync_utc,
        "dataPushed": sync.data_pushed,
    }


def item_body(item: Item) -> Json:
    """One transaction row; `message` is absent, not null, where there is none."""
    row: Json = {"transactionId": item.transaction_id, "status": item.status}
    if item.message is not None:
        row["message"] = item.message
    row["integrationType"] = item.integration_type
    return row


def connection_body(company_id: str, connection: Connection) -> Json:
    """One data connection (docs.codat.io/platform-api, Connection)."""
    link = f"/companies/{company_id}/connections/{connection.connection_id}/start"
    return {
        "id": connection.connection_id,
        "integrationId": connection.integration_id,
        "integrationKey": connection.integration_key,
        "sourceId": connection.source_id,
        "platformName": connection.platform,
        "linkUrl": f"https://link-api.codat.io{link}",
        "status": connection.status,
        "lastSync": connection.created,
        "created": connection.created,
        "sourceType": connection.source_type,
    }


def company_body(company: Company) -> Json:
    """One company with its connections (docs.codat.io/platform-api, Company)."""
    return {
        "id": company.company_id,
        "name": company.name,
        "description": company.description,
        "platform": "",
        "redirect": f"https://link.codat.io/company/{company.company_id}",
        "lastSync": company.created,
        "dataConnections": [connection_body(company.company_id, c) for c in company.connections],
        "created": company.created,
        "createdByUserName": "Dan Tzabar",
        "products": ["expenses"],
        "tags": company.tags,
        "referenceSubsidiaryCompanies": [],
    }


def push_bodies(company: Company, sync: Sync) -> list[Json]:
    """The push operations of a sync, one per row; Codat gives no link back to the sync."""
    words: dict[str | None, tuple[str, int]] = {
        "Completed": ("Success", 200),
        "Pending": ("Pending", 202),
    }
    target = company.connections[0].connection_id if company.connections else str(uuid.UUID(int=0))
    return [
        {
            "changes": [],
            "dataType": "bankTransactions" if i.integration_type == "bankfeeds" else "directCosts",
            "companyId": company.company_id,
            "pushOperationKey": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{sync.sync_id}/{ordinal}")),
            "dataConnectionKey": target,
            "requestedOnUtc": sync.started_at,
            **({"completedOnUtc": sync.finished_at} if sync.finished_at else {}),
            "status": words.get(i.status, ("Failed", 400))[0],
            "errorMessage": i.message,
            "statusCode": words.get(i.status, ("Failed", 400))[1],
        }
        for ordinal, i in enumerate(sync.items)
    ]


def path_of(*segments: str) -> str:
    """A relative address of these segments, each percent-encoded."""
    return "".join("/" + quote(segment, safe="") for segment in segments)


def page_body(rows: list[Json], call: Call, href: str) -> Json:
    """One page of rows with Codat's paging members (docs.codat.io/using-the-api/paging).

    A page beyond the end is empty. 400 for a page below 1 or a size outside 1 to 5000.
    """
    page, size = _number(call, "page", 1), _number(call, "pageSize", 100)
    if size > MAX_PAGE_SIZE:
        raise RefusalError(400)
    shown, total = distorted(rows, page, size, call.fault)
    return {
        "results": shown,
        "pageNumber": page,
        "pageSize": size,
        "totalResults": total,
        "_links": _links(href, page, size, total),
    }


def distorted(
    rows: list[Json], page: int, size: int, fault: Fault | None
) -> tuple[list[Json], int]:
    """The rows and the total of a page, bent by the fault this call met."""
    kind, count = (fault.kind, fault.rows) if fault else ("", 0)
    start = (page - 1) * size
    if kind == "shifting_page" and page > 1:
        start = max(0, start - count)
    shown = rows[start : start + size]
    if kind == "truncated_list":
        shown = shown[: max(0, len(shown) - count)]
    if kind == "pending_left":
        shown = [_pending(row) if i < count else row for i, row in enumerate(shown)]
    moved = count * fault.fired if fault and kind == "moving_total" else 0
    return shown, len(rows) + moved


def _pending(row: Json) -> Json:
    left = {key: value for key, value in row.items() if key != "message"}
    return {**left, "status": "Pending"} if "transactionId" in row else row


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name) or str(default)
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise RefusalError(400)
    return int(text)


def _links(href: str, page: int, size: int, total: int) -> Json:
    def at(number: int) -> Json:
        return {"href": f"{href}?page={number}&pageSize={size}"}

    links: Json = {"current": at(page), "self": {"href": href}}
    if page * size < total:
        links["next"] = at(page + 1)
    if page > 1:
        links["previous"] = at(page - 1)
    return links
