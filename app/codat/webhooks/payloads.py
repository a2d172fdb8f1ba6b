"""Bytes to an event. Never raises: what cannot be read is kept as unreadable, with the reason.

There are two generations of bodies and several spellings of each (Codat docs, "Migrating to new
event types", and its OpenAPI files): PascalCase with `RuleType`, `Type` or `type` and details in
`Data`; `eventType` or `type` with details in `payload`; and, once, a bare sync
status. So keys are looked up without regard to case, and names are compared folded.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from app.codat.times import read_time
from app.codat.webhooks.event_types import canonical
from app.domain.models import (
    SYNC_COMPLETED,
    SYNC_EVENTS,
    SYNC_FAILED,
    SYNC_STARTED,
    CodatStatus,
    Connection,
    Event,
    Item,
)
from app.domain.status_codes import phase_of

LONGEST_ID = 200
LONGEST_NAME = 200
_TYPE_KEYS = ("eventtype", "ruletype", "type")
_BY_PHASE = {"running": SYNC_STARTED, "completed": SYNC_COMPLETED, "failed": SYNC_FAILED}
_COMPANY_EVENTS = ("company.",)

Fields = Mapping[str, Any]


def read(body: bytes) -> Event:
    """The meaning of a webhook body."""
    try:
        told = _parsed(body)
    except (ValueError, RecursionError) as error:
        return Event(reading="unreadable", reason=f"not readable as JSON: {_first_line(error)}")
    if not isinstance(told, dict):
        return Event(reading="unreadable", reason="not a JSON object")
    return _read_object(_folded(told))


def _parsed(body: bytes) -> Any:
    """As the standard library reads JSON, in half of its time where the body is nothing odd.

    What pydantic's parser takes, it takes for the same; what it refuses (half characters, depth,
    another encoding than UTF-8) the standard library may still be able to read.
    """
    try:
        return from_json(body, cache_strings="keys")
    except ValueError:
        return json.loads(body)


def _read_object(envelope: Fields) -> Event:
    name = _type_of(envelope)
    if name is None:
        return _read_status(envelope)
    event = canonical(name)
    details = _details(envelope)
    company = _folded(details.get("referencecompany"))
    read = Event(
        event=event or "unknown",
        reading="ok" if event else "unknown",
        reason=None if event else "its type is in no catalog of Codat's",
        event_type=text(name, LONGEST_NAME),
        event_id=identifier(envelope.get("alertid")) or identifier(envelope.get("id")),
        company_id=_company_id(event, envelope, details, company),
        company_name=_company_name(event, details, company),
        sync_id=identifier(details.get("syncid")) if event in SYNC_EVENTS else None,
        generated_at=read_time(envelope.get("generateddate")),
        failure_stage=text(details.get("failurestage")),
        transactions=_items(details.get("transactions")) if event in SYNC_EVENTS else None,
        connection=_connection(details),
        quota_expires_at=read_time(details.get("expirydate") or details.get("expiresutc")),
    )
    return _checked(read)


def _type_of(envelope: Fields) -> str | None:
    """The event's type as it came: of the envelope's own keys the newest that is filled."""
    for key in _TYPE_KEYS:
        name = envelope.get(key)
        if isinstance(name, str) and name.strip():
            return name
    return None


def _details(envelope: Fields) -> Fields:
    return _folded(envelope.get("payload")) or _folded(envelope.get("data"))


def _read_status(envelope: Fields) -> Event:
    """A bare `CompanySyncStatus` as the body: its code says which event it is."""
    if "syncstatuscode" not in envelope:
        return Event(reading="unknown", reason="it names no event type")
    status = read_status(envelope)
    phase = phase_of(status.status_code)
    if phase is None:
        return Event(
            reading="unknown",
            reason="a sync status with an unknown code",
            company_id=status.company_id,
            status=status,
        )
    return _checked(
        Event(
            event=_BY_PHASE[phase],
            reading="ok",
            company_id=status.company_id,
            sync_id=status.sync_id,
            status=status,
        )
    )


def _checked(event: Event) -> Event:
    """A sync event is of use only with both its ids."""
    if event.event not in SYNC_EVENTS or (event.company_id and event.sync_id):
        return event
    missing = "company id" if not event.company_id else "sync id"
    return Event(
        event=event.event,
        reading="unreadable",
        reason=f"a sync event without a usable {missing}",
        event_type=event.event_type,
        event_id=event.event_id,
        company_id=event.company_id,
        sync_id=event.sync_id,
        generated_at=event.generated_at,
    )


def _company_id(
    event: str | None, envelope: Fields, details: Fields, company: Fields
) -> str | None:
    named = identifier(envelope.get("companyid")) or identifier(company.get("id"))
    is_company = event is not None and event.startswith(_COMPANY_EVENTS)
    return named or (identifier(details.get("id")) if is_company else None)


def _company_name(event: str | None, details: Fields, company: Fields) -> str | None:
    is_company = event is not None and event.startswith(_COMPANY_EVENTS)
    return text(company.get("name") or (details.get("name") if is_company else None), LONGEST_NAME)


def read_status(told: object) -> CodatStatus:
    """A `CompanySyncStatus`, member by member; a member that cannot be read is None."""
    fields = _folded(told)
    code = fields.get("syncstatuscode")
    if isinstance(code, str) and code.strip().isdecimal() and len(code) < 9:
        code = int(code)
    pushed = fields.get("datapushed")
    return CodatStatus(
        company_id=identifier(fields.get("companyid")),
        sync_id=identifier(fields.get("syncid")),
        status_code=code if _is_int32(code) else None,
        status=text(fields.get("syncstatus")),
        error_message=text(fields.get("errormessage")),
        exception_message=text(fields.get("syncexceptionmessage")),
        data_pushed=pushed if isinstance(pushed, bool) else None,
        sync_utc=read_time(fields.get("syncutc")),
    )


def read_item(told: object) -> Item | None:
    """One transaction, as a webhook (`id`, `errorMessage`) or the API spells it; None for junk."""
    fields = _folded(told)
    if not fields:
        return None
    return Item(
        transaction_id=identifier(fields.get("transactionid")) or identifier(fields.get("id")),
        status=text(fields.get("status"), LONGEST_NAME),
        message=text(fields.get("message")) or text(fields.get("errormessage")),
        integration_type=text(fields.get("integrationtype"), LONGEST_NAME),
    )


def _items(told: object) -> tuple[Item, ...] | None:
    """The transactions a body lists. Absent is not empty."""
    if not isinstance(told, list):
        return None
    return tuple(item for item in map(read_item, told) if item)


def _connection(details: Fields) -> Connection | None:
    """The connection a body tells of; the older generation tells its id and new status only."""
    fields = _folded(details.get("connection"))
    if not fields and "dataconnectionid" in details and "newstatus" in details:
        status = text(details["newstatus"], LONGEST_NAME)
        return Connection(identifier(details["dataconnectionid"]), None, None, status)
    if not fields:
        return None
    return Connection(
        connection_id=identifier(fields.get("id")),
        platform_name=text(fields.get("platformname"), LONGEST_NAME),
        source_type=text(fields.get("sourcetype"), LONGEST_NAME),
        status=text(fields.get("status"), LONGEST_NAME),
    )


def _folded(told: object) -> Fields:
    """An object with its keys in lower case; anything else is empty. The first spelling wins."""
    if not isinstance(told, dict):
        return {}
    return {key.lower(): value for key, value in reversed(told.items())}


def identifier(value: object) -> str | None:
    """An id as text: 1 to 200 printable characters. Numbers are accepted as their digits."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30:
        return str(value)
    if not isinstance(value, str):
        return None
    stripped = value.strip()
    fine = 1 <= len(stripped) <= LONGEST_ID and stripped.isprintable()
    return stripped if fine else None


def text(value: object, longest: int | None = None) -> str | None:
    """A text that both databases can keep: NUL and lone surrogates replaced; None for empty."""
    if not isinstance(value, str) or not value.strip():
        return None
    kept = (
        value
        if value.isascii()
        else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
    return kept.replace("\x00", "\ufffd")[:longest]


def _is_int32(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
