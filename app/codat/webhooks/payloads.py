"""Parse webhook bodies. Never raises: what cannot be parsed is `unreadable`, with the reason.

There are two generations of bodies and several spellings of each (Codat docs, "Migrating to new
event types", and its OpenAPI files): PascalCase with `RuleType`, `Type` or `type` and details in
`Data`; `eventType` or `type` with details in `payload`; and, in one example, a bare sync status.
So keys are looked up in any case, and names are compared without case and punctuation.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.codat.webhooks.event_types import canonical
from app.domain.models import (
    SYNC_COMPLETED,
    SYNC_EVENTS,
    SYNC_FAILED,
    SYNC_STARTED,
    PlatformConnection,
    SyncStatus,
    Transaction,
    WebhookPayload,
)
from app.domain.status_codes import phase_of

LONGEST_ID = 200
LONGEST_NAME = 200
_TYPE_KEYS = ("eventtype", "ruletype", "type")
_BY_PHASE = {"running": SYNC_STARTED, "completed": SYNC_COMPLETED, "failed": SYNC_FAILED}
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MORE_THAN_MICROSECONDS = re.compile(r"(\.\d{6})\d+")
_EARLIEST_YEAR, _LATEST_YEAR = 1900, 9998

Fields = Mapping[str, Any]


def parse(body: bytes) -> WebhookPayload:
    """The payload of a webhook body."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0][:200]
        return WebhookPayload(parse_status="unreadable", parse_error=f"Invalid JSON: {first_line}")
    if not isinstance(parsed, dict):
        return WebhookPayload(parse_status="unreadable", parse_error="Not a JSON object")
    envelope = _fold_keys(parsed)
    values = map(envelope.get, _TYPE_KEYS)
    name = next((value for value in values if isinstance(value, str) and value.strip()), None)
    payload = _parse_event(name, envelope) if name else _parse_bare_status(envelope)
    if payload.event_type not in SYNC_EVENTS or (payload.company_id and payload.sync_id):
        return payload
    missing = "Sync ID" if payload.company_id else "Company ID"
    reason = f"{missing} missing or invalid"
    return replace(payload, parse_status="unreadable", parse_error=reason)


def _parse_event(name: str, envelope: Fields) -> WebhookPayload:
    event = canonical(name)
    details = _fold_keys(envelope.get("payload")) or _fold_keys(envelope.get("data"))
    company = _fold_keys(details.get("referencecompany"))
    company_id = identifier(envelope.get("companyid")) or identifier(company.get("id"))
    company_name = company.get("name")
    if event and event.startswith("company."):
        company_id = company_id or identifier(details.get("id"))
        company_name = company_name or details.get("name")
    is_sync_event = event in SYNC_EVENTS
    transactions = details.get("transactions") if is_sync_event else None
    return WebhookPayload(
        event_type=event or "unknown",
        parse_status="ok" if event else "unknown",
        parse_error=None if event else "Event type not in Codat's catalog",
        raw_type=text(name, LONGEST_NAME),
        body_id=identifier(envelope.get("alertid")) or identifier(envelope.get("id")),
        company_id=company_id,
        company_name=text(company_name, LONGEST_NAME),
        sync_id=identifier(details.get("syncid")) if is_sync_event else None,
        generated_at=read_time(envelope.get("generateddate")),
        failure_stage=text(details.get("failurestage")),
        transactions=tuple(filter(None, map(read_transaction, transactions)))
        if isinstance(transactions, list)
        else None,
        connection=_read_reported_connection(details),
        quota_expires_at=read_time(details.get("expirydate") or details.get("expiresutc")),
    )


def _parse_bare_status(envelope: Fields) -> WebhookPayload:
    """A bare `CompanySyncStatus` as the body: its code says which event it is."""
    if "syncstatuscode" not in envelope:
        return WebhookPayload(parse_error="No event type")
    status = read_status(envelope)
    phase = phase_of(status.status_code)
    if phase is None:
        error = "Sync status with an unknown code"
        return WebhookPayload(parse_error=error, company_id=status.company_id, status=status)
    return WebhookPayload(
        event_type=_BY_PHASE[phase],
        parse_status="ok",
        company_id=status.company_id,
        sync_id=status.sync_id,
        status=status,
    )


def read_status(value: object) -> SyncStatus:
    """A `CompanySyncStatus`, member by member; a member that cannot be read is None."""
    fields = _fold_keys(value)
    code = fields.get("syncstatuscode")
    if isinstance(code, str) and code.strip().isdecimal() and len(code) < 9:
        code = int(code)
    pushed = fields.get("datapushed")
    return SyncStatus(
        company_id=identifier(fields.get("companyid")),
        sync_id=identifier(fields.get("syncid")),
        status_code=code if _is_int32(code) else None,
        status=text(fields.get("syncstatus")),
        error_message=text(fields.get("errormessage")),
        exception_message=text(fields.get("syncexceptionmessage")),
        data_pushed=pushed if isinstance(pushed, bool) else None,
        sync_utc=read_time(fields.get("syncutc")),
    )


def read_transaction(value: object) -> Transaction | None:
    """One transaction, as a webhook (`id`, `errorMessage`) or the API spells it; None for junk.

    All members may be absent: then it is a transaction of which nothing is known.
    """
    if not isinstance(value, dict):
        return None
    fields = _fold_keys(value)
    return Transaction(
        transaction_id=identifier(fields.get("transactionid")) or identifier(fields.get("id")),
        status=text(fields.get("status"), LONGEST_NAME),
        message=text(fields.get("message")) or text(fields.get("errormessage")),
        integration_type=text(fields.get("integrationtype"), LONGEST_NAME),
    )


def read_connection(value: object) -> PlatformConnection:
    """A connection, as a webhook or the companies list has it."""
    fields = _fold_keys(value)
    return PlatformConnection(
        connection_id=identifier(fields.get("id")),
        platform_name=text(fields.get("platformname"), LONGEST_NAME),
        source_type=text(fields.get("sourcetype"), LONGEST_NAME),
        status=text(fields.get("status"), LONGEST_NAME),
    )


def _read_reported_connection(details: Fields) -> PlatformConnection | None:
    """The connection in a body; the older generation has only its id and new status."""
    if connection := _fold_keys(details.get("connection")):
        return read_connection(connection)
    if "dataconnectionid" in details and "newstatus" in details:
        status = text(details["newstatus"], LONGEST_NAME)
        return PlatformConnection(identifier(details["dataconnectionid"]), None, None, status)
    return None


def _fold_keys(value: object) -> Fields:
    """An object with its keys in lower case; anything else is empty. The first spelling wins."""
    if not isinstance(value, dict):
        return {}
    return {key.lower(): value for key, value in reversed(value.items())}


def identifier(value: object) -> str | None:
    """An id as text: exactly as it is, because customers choose ids; up to 200 characters.

    None for control characters, lone surrogates and blanks. Numbers are accepted as their digits.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30:
        return str(value)
    if not isinstance(value, str):
        return None
    value = value.strip("\t\n\v\f\r")
    is_valid = value.strip() and len(value) <= LONGEST_ID and not _UNUSABLE.search(value)
    return value if is_valid else None


def text(value: object, longest: int | None = None) -> str | None:
    """A text that both databases can store: NUL and lone surrogates replaced; None for empty."""
    if not isinstance(value, str) or not value.strip():
        return None
    if not value.isascii():
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value.replace("\x00", "\ufffd")[:longest]


def read_time(value: object) -> datetime | None:
    """The UTC time of an ISO 8601 text, to the microsecond; None when it is not a time.

    Codat's `DateTime` may be in UTC, with an offset, or without a zone; a date only; with up to
    nine digits of a second. One documented example is not a valid time (23:59:99). Without a zone
    it is taken as UTC, as the name `syncUtc` says.
    """
    if not isinstance(value, str) or not 8 <= len(value) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(_MORE_THAN_MICROSECONDS.sub(r"\1", value.strip()))
        if not _EARLIEST_YEAR < moment.year < _LATEST_YEAR:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _is_int32(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
