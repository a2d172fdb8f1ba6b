"""Codat's shapes, filled from what is kept here: statuses, transactions, companies, errors.

Codat's SDKs refuse a whole page for one enum member they do not know; so statuses and integration
types are mapped into their sets, and what Codat really said is kept in an extra field beside it.
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

from app.db.queries.syncs import KeptSync
from app.db.queries.transactions import KeptItem
from app.web.problems import Fault

LINK = "https://link.codat.io/company/"
SERVICE = "CodatMirror"
STATUSES = {
    "unknown": "Unknown",
    "pending": "Pending",
    "validationerror": "ValidationError",
    "completed": "Completed",
    "pusherror": "PushError",
    "failed": "PushError",
}
INTEGRATION_TYPES = {
    "expense": "expenses",
    "expenses": "expenses",
    "bankfeed": "bankfeeds",
    "bankfeeds": "bankfeeds",
}


class _Codat(BaseModel):
    """A body whose fields have Codat's camelCase names outside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class CompanySyncStatus(_Codat):
    """Codat's `CompanySyncStatus`; null where Codat has not been asked yet."""

    company_id: str
    sync_id: str
    sync_status_code: int | None
    sync_status: str | None
    error_message: str | None
    sync_exception_message: str | None
    sync_utc: datetime | None
    data_pushed: bool | None
    state: str = Field(description="ours: started, completed or failed")


class MirroredTransaction(_Codat):
    """Codat's `Transaction`; the `original…` fields are ours and hold Codat's own words."""

    transaction_id: str | None
    status: str | None
    message: str | None
    integration_type: str | None
    original_status: str | None
    original_integration_type: str | None


class Link(_Codat):
    """A relative address."""

    href: str


class Links(_Codat):
    """Codat's `_links`; `next` and `previous` only where there is such a page."""

    self: Link
    current: Link
    next: Link | None = None
    previous: Link | None = None


class _Paged(_Codat):
    page_number: int
    page_size: int
    total_results: int
    links: Links = Field(alias="_links")


class Transactions(_Paged):
    """Codat's page of transactions."""

    results: list[MirroredTransaction]


class MirroredCompany(_Codat):
    """Codat's `Company`, as far as it is known here. A company without a name shows its id."""

    id: str
    name: str
    redirect: str
    last_sync: datetime | None
    data_connections: list[Any] = []


class Companies(_Paged):
    """Codat's page of companies."""

    results: list[MirroredCompany]


class ErrorMessage(_Codat):
    """Codat's error body."""

    status_code: int
    service: str
    error: str
    correlation_id: str
    can_be_retried: str
    detailed_error_code: int


def status(kept: KeptSync) -> CompanySyncStatus:
    """A sync as Codat's status."""
    sync = kept.sync
    return CompanySyncStatus(
        company_id=sync.company_id,
        sync_id=sync.sync_id,
        sync_status_code=sync.status_code,
        sync_status=sync.status,
        error_message=sync.error_message,
        sync_exception_message=sync.exception_message,
        sync_utc=sync.codat_utc or sync.finished_at or sync.started_at,
        data_pushed=sync.data_pushed,
        state=sync.state,
    )


def transaction(item: KeptItem) -> MirroredTransaction:
    """A row as Codat's transaction."""
    return MirroredTransaction(
        transaction_id=item.transaction_id,
        status=_member(item.status, STATUSES, "Unknown"),
        message=item.message,
        integration_type=_member(item.integration_type, INTEGRATION_TYPES, None),
        original_status=item.status,
        original_integration_type=item.integration_type,
    )


def _member(told: str | None, members: dict[str, str], otherwise: str | None) -> str | None:
    return None if told is None else members.get(told.strip().lower(), otherwise)


def company(company_id: str, name: str | None, newest: datetime | None) -> MirroredCompany:
    """A company as Codat's."""
    return MirroredCompany(
        id=company_id,
        name=name or company_id,
        redirect=LINK + quote(company_id, safe=""),
        last_sync=newest,
    )


def paging(path: str, page: int, size: int, total: int) -> dict[str, Any]:
    """Codat's paging members for one page of a list at `path`."""
    pages = {"current": page}
    if page * size < total:
        pages["next"] = page + 1
    if page > 1:
        pages["previous"] = page - 1
    links = {name: Link(href=f"{path}?page={n}&pageSize={size}") for name, n in pages.items()}
    return {
        "page_number": page,
        "page_size": size,
        "total_results": total,
        "links": Links(self=Link(href=path), **links),
    }


def error_message(_request: Request, fault: Fault) -> Response:
    """A fault in Codat's shape.

    A wrong parameter is 400 there (its OpenAPI file), and its SDKs do not know 422.
    """
    status = 400 if fault.status == 422 else fault.status
    said = "; ".join(f"{each.name} {each.reason}" for each in fault.wrong)
    told = ErrorMessage(
        status_code=status,
        service=SERVICE,
        error=f"{fault.detail}: {said}" if said else fault.detail,
        correlation_id=uuid.uuid4().hex,
        can_be_retried="True" if status in (429, 503) else "False",
        detailed_error_code=0,
    )
    headers = {**fault.headers, "Cache-Control": "no-store"}
    return JSONResponse(told.model_dump(by_alias=True), status, headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a mirrored route that may answer with these errors."""
    return {status: {"model": ErrorMessage} for status in statuses}


def freshness(kept: Sequence[KeptSync], now: datetime) -> dict[str, str]:
    """How old the answer is: `Age` since Codat was asked, `Last-Modified` when it last changed.

    Of several syncs, the age of the one asked about longest ago; none while one never was.
    """
    if not kept:
        return {}
    changed = max(each.updated_at for each in kept)
    headers = {"Last-Modified": changed.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    asked = [each.sync.asked_at for each in kept if each.sync.asked_at]
    if len(asked) == len(kept):
        headers["Age"] = str(max(0, int((now - min(asked)).total_seconds())))
    return headers
