"""The addresses of the pages: links, parameters that have a value, and errors in them."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode
from zoneinfo import ZoneInfo

from fastapi import Request
from pydantic import BaseModel, Field

from app.db.pagination import MAX_CURSOR_LENGTH
from app.web.pages.labels import COLUMNS, DELIVERIES, OUTCOMES, STATES

ITEM_FILTERS = ("q", "status", "failed", "cause")
_DATE = "use a date such as 2026-01-31, or a time such as 2026-01-31T09:00:00Z"
_FIRST_PAGE = "start again from the first page"
_FIELDS: dict[str, tuple[str, str]] = {
    "q": ("Search", "use at most 1,000 characters"),
    "from": ("From", _DATE),
    "to": ("To", _DATE),
    "outcome": ("Outcome", f"use {', '.join(OUTCOMES)}"),
    "state": ("State", f"use {', '.join((*STATES, *DELIVERIES))}"),
    "status_code": ("Status code", "use numbers such as 5130, at most 50"),
    "status": ("Status", "use statuses such as PushError, at most 20"),
    "failed": ("Failed only", "use true or false"),
    "cause": ("Cause", "use the key of a cause"),
    "owner": ("Who acts", "use customer, us, accounting_software, or codat"),
    "cannot_sync": ("Cannot sync", "use true or false"),
    "company_id": ("Company", "use at most 1,000 characters"),
    "sort": ("Sort", "use started_at, finished_at, updated_at, company_id, or status_code, "
             "with - before it for descending order"),
    "limit": ("Rows per page", "use a number from 1 to 200"),
    "cursor": ("Page", _FIRST_PAGE),
    "before": ("Page", _FIRST_PAGE),
    "timeline": ("Timeline page", _FIRST_PAGE),
    "show": ("Webhooks", "use unreadable, unknown, ok, or all"),
    "format": ("Format", "use csv or json"),
    "separator": ("Separator", "use , or ;"),
    "spreadsheet": ("Spreadsheet", "use true or false"),
    "column": ("Columns", f"use {', '.join(COLUMNS)}"),
    "tz": ("Time zone", "use a name such as Australia/Sydney"),
}  # fmt: skip
"""The parameters of all pages: the name on the page, and which values are allowed."""


def describe_error(name: str, reason: str) -> str:
    """What is wrong with a parameter, and which values are allowed."""
    if name not in _FIELDS or ("not a parameter" in reason and name != "tz"):
        return f"Unknown parameter: {name}"
    if name == "to" and "after from" in reason:
        return "“To” must not be before “From”."
    title, allowed = _FIELDS[name]
    return f"{title}: {allowed}."


def path(*segments: str, **params: str | None) -> str:
    """A path of these segments, with the parameters that have a value."""
    place = "/" + "/".join(quote(segment, safe="") for segment in segments)
    with_value = {name: value for name, value in params.items() if value}
    return f"{place}?{urlencode(with_value)}" if with_value else place


class BackwardParams(BaseModel):
    """Which previous page of a list; `cursor` names a following one."""

    before: str | None = Field(None, min_length=1, max_length=MAX_CURSOR_LENGTH)


@dataclass(frozen=True, slots=True)
class PageAddress:
    """The address of a page, from which links to its variants are made."""

    path: str
    params: dict[str, list[str]]

    def change(self, changes: Mapping[str, Any], path: str | None = None) -> str:
        """The same address with other values for these parameters; None removes one.

        Another filter or sort order starts at the first page, so `cursor` and `before` are removed
        unless given.
        """
        changed = {**self.params, "cursor": None, "before": None, **changes}
        params = {name: value for name, value in changed.items() if value not in (None, "", [])}
        place = self.path if path is None else path
        return f"{place}?{urlencode(params, doseq=True)}" if params else place

    def without(self, name: str, value: str) -> str:
        """The same address without one value of a parameter."""
        return self.change({name: [other for other in self.params[name] if other != value]})

    def filter_items(self, filters: Mapping[str, str]) -> str:
        """The items of the same sync, with these filters alone."""
        return self.change(dict.fromkeys(ITEM_FILTERS) | dict(filters)) + "#items"

    def get(self, name: str) -> str:
        """A parameter as it was given, or an empty text."""
        return self.params.get(name, [""])[0]

    def has(self, *names: str) -> bool:
        """True if one of these parameters is given."""
        return not self.params.keys().isdisjoint(names)


def _has_value(part: bytes) -> bool:
    """True unless a part of a query string is empty: forms send their empty fields too."""
    return bool(unquote_to_bytes(part.partition(b"=")[2].replace(b"+", b" ")).strip())


def without_empty_params(request: Request) -> str | None:
    """The address without the empty fields of a form; None if it has none."""
    query: bytes = request.scope["query_string"]
    parts = query.split(b"&")
    filled = [part for part in parts if _has_value(part)]
    if request.method != "GET" or not query or filled == parts:
        return None
    return page_address(request).path + (
        f"?{b'&'.join(filled).decode('latin-1')}" if filled else ""
    )


def prepare_query(request: Request) -> None:
    """Turn the days in the query of a page into times.

    `tz` is the time zone of the days in `from` and `to`. No route has to know it: the days become
    UTC times and `tz` is removed. An unknown zone stays, as an unknown parameter.
    """
    params = request.query_params
    request.scope["page_params"] = params.multi_items()
    zone = _zone(params.get("tz", ""))
    if zone:
        pairs = [
            (name, _start_of_day(value, zone, 1 if name == "to" else 0))
            if name in ("from", "to")
            else (name, value)
            for name, value in params.multi_items()
            if name != "tz"
        ]
        request.scope["query_string"] = urlencode(pairs).encode()


def _zone(name: str) -> tzinfo | None:
    """The time zone with this name; None if there is none."""
    if name == "UTC":
        return UTC
    with suppress(ValueError, OSError):  # a key error of zoneinfo is a KeyError
        if re.fullmatch(r"[A-Za-z][\w+/-]{1,60}", name):
            with suppress(KeyError):
                return ZoneInfo(name)
    return None


def _start_of_day(text: str, zone: tzinfo, days: int) -> str:
    """The UTC time at which this day begins in the zone, or `days` later; other text as it is."""
    with suppress(ValueError, OverflowError):
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = date.fromisoformat(text) + timedelta(days=days)
            at = datetime.combine(day, time.min, zone).astimezone(UTC)
            return at.isoformat().replace("+00:00", "Z")
    return text


def page_zone(request: Request) -> tzinfo:
    """The time zone of a page: that of its address, else UTC."""
    params = dict(request.scope.get("page_params", ()))
    return _zone(params.get("tz", "")) or UTC


def page_address(request: Request) -> PageAddress:
    """The address of this request, without empty parameters."""
    raw = (request.scope.get("raw_path") or b"/").split(b"?")[0].decode("latin-1")
    params: dict[str, list[str]] = {}
    for name, value in request.scope.get("page_params", request.query_params.multi_items()):
        if value.strip():
            params.setdefault(name, []).append(value)
    return PageAddress(raw, params)
