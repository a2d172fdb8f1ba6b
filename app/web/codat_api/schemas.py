"""Codat's response bodies, filled from stored data: statuses, transactions, companies, errors.

Codat's SDKs reject a whole page because of one enum member that they do not know. So statuses and
integration types are mapped to the documented members, and Codat's own spelling is in a field of
its own beside it.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app.db.queries.syncs import SyncRecord
from app.db.queries.transactions import TransactionRecord
from app.web.problems import Fault

LINK_URL = "https://link.codat.io/company/"
SERVICE = "CodatSyncReceiver"
STATUSES = {
    "unknown": "Unknown", "pending": "Pending", "validationerror": "ValidationError",
    "completed": "Completed", "pusherror": "PushError", "failed": "PushError",
}  # fmt: skip
INTEGRATION_TYPES = {
    "expense": "expenses", "expenses": "expenses", "bankfeed": "bankfeeds", "bankfeeds": "bankfeeds"
}  # fmt: skip


class CodatSchema(BaseModel):
    """A body whose fields have Codat's camelCase names in JSON."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class CompanySyncStatus(CodatSchema):
    """Codat's `CompanySyncStatus`. Fields are null until Codat's API has answered."""

    company_id: str
    sync_id: str
    sync_status_code: int | None
    sync_status: str | None
    error_message: str | None
    sync_exception_message: str | None
    sync_utc: datetime | None
    data_pushed: bool | None
    state: str = Field(description="Not Codat's: `started`, `completed` or `failed`.")


class CodatTransaction(CodatSchema):
    """Codat's `Transaction`. The `original…` fields are not Codat's; they have its own spelling."""

    transaction_id: str | None
    status: str | None
    message: str | None
    integration_type: str | None
    original_status: str | None
    original_integration_type: str | None


class Link(CodatSchema):
    """A relative address."""

    href: str


class Links(CodatSchema):
    """Codat's `_links`. `next` and `previous` are left out where there is no such page."""

    self: Link
    current: Link
    next: Link | None = None
    previous: Link | None = None


class CodatPage(CodatSchema):
    """The paging members of Codat's lists."""

    page_number: int
    page_size: int
    total_results: int
    links: Links = Field(alias="_links")


class TransactionsPage(CodatPage):
    """Codat's page of transactions."""

    results: list[CodatTransaction]


class CodatCompany(CodatSchema):
    """Codat's `Company`, as far as it is stored. A company without a name has its ID there."""

    id: str
    name: str
    redirect: str
    last_sync: datetime | None
    data_connections: list[Any] = []


class CompaniesPage(CodatPage):
    """Codat's page of companies."""

    results: list[CodatCompany]


class ErrorMessage(CodatSchema):
    """Codat's error body."""

    status_code: int
    service: str
    error: str
    correlation_id: str
    can_be_retried: str
    detailed_error_code: int


def status_schema(record: SyncRecord) -> CompanySyncStatus:
    """A sync as Codat's status."""
    sync = record.sync
    return CompanySyncStatus(
        company_id=sync.company_id,
        sync_id=sync.sync_id,
        sync_status_code=sync.status_code,
        sync_status=sync.status,
        error_message=sync.error_message,
        sync_exception_message=sync.exception_message,
        sync_utc=sync.sync_utc or sync.finished_at or sync.started_at,
        data_pushed=sync.data_pushed,
        state=sync.state,
    )


def transaction_schema(record: TransactionRecord) -> CodatTransaction:
    """A row as Codat's transaction."""
    status, kind = record.status, record.integration_type
    return CodatTransaction(
        transaction_id=record.transaction_id,
        status=None if status is None else STATUSES.get(status.strip().lower(), "Unknown"),
        message=record.message,
        integration_type=INTEGRATION_TYPES.get((kind or "").strip().lower()),
        original_status=status,
        original_integration_type=kind,
    )


def company_schema(company_id: str, name: str | None, last_sync: datetime | None) -> CodatCompany:
    """A company as Codat's."""
    return CodatCompany(
        id=company_id,
        name=name or company_id,
        redirect=LINK_URL + quote(company_id, safe=""),
        last_sync=last_sync,
    )


def paging(path: str, page: int, page_size: int, total: int) -> dict[str, Any]:
    """The members of CodatPage for one page of the list at `path`."""
    pages = {"current": page}
    if page * page_size < total:
        pages["next"] = page + 1
    if page > 1:
        pages["previous"] = page - 1
    links = {
        name: Link(href=f"{path}?page={number}&pageSize={page_size}")
        for name, number in pages.items()
    }
    return {
        "page_number": page,
        "page_size": page_size,
        "total_results": total,
        "links": Links(self=Link(href=path), **links),
    }


def error_response(_request: Request, fault: Fault) -> Response:
    """A fault as Codat's error body.

    An invalid parameter is a 400 (Codat's OpenAPI file); Codat's SDKs do not know 422.
    """
    status = 400 if fault.status == 422 else fault.status
    reasons = "; ".join(f"{parameter.name} {parameter.reason}" for parameter in fault.wrong)
    message = ErrorMessage(
        status_code=status,
        service=SERVICE,
        error=f"{fault.detail}: {reasons}" if reasons else fault.detail,
        correlation_id=uuid.uuid4().hex,
        can_be_retried="True" if status in (429, 503) else "False",
        detailed_error_code=0,
    )
    headers = {**fault.headers, "Cache-Control": "no-store"}
    return JSONResponse(message.model_dump(by_alias=True), status, headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors."""
    return {status: {"model": ErrorMessage} for status in statuses}


def freshness_headers(records: Sequence[SyncRecord], now: datetime) -> dict[str, str]:
    """How old an answer is: `Age` since Codat's API confirmed it, `Last-Modified` of its content.

    For several syncs, the greatest age; none if Codat has not confirmed one of them.
    """
    if not records:
        return {}
    updated_at = max(record.updated_at for record in records)
    headers = {"Last-Modified": updated_at.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    verified = [record.sync.verified_at for record in records if record.sync.verified_at]
    if len(verified) == len(records):
        headers["Age"] = str(max(0, int((now - min(verified)).total_seconds())))
    return headers
