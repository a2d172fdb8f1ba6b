"""The addresses of the pages: links, parameters that have a value, and errors in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode

from fastapi import Request

from app.web.pages.labels import OUTCOMES, STATES

ITEM_FILTERS = ("q", "status", "failed", "cause")
_DATE = "use a date such as 2026-01-31, or a time such as 2026-01-31T09:00:00Z"
_FIRST_PAGE = "start again from the first page"
_FIELDS: dict[str, tuple[str, str]] = {
    "q": ("Search", "use at most 1,000 characters"),
    "from": ("From", _DATE),
    "to": ("To", _DATE),
    "outcome": ("Outcome", f"use {', '.join(OUTCOMES)}"),
    "state": ("State", f"use {', '.join(STATES)}"),
    "status_code": ("Status code", "use numbers such as 5130, at most 50"),
    "status": ("Status", "use statuses such as PushError, at most 20"),
    "failed": ("Failed only", "use true or false"),
    "cause": ("Cause", "use the key of a cause"),
    "company_id": ("Company", "use at most 1,000 characters"),
    "sort": ("Sort", "use started_at, finished_at, updated_at, company_id, or status_code, "
             "with - before it for descending order"),
    "limit": ("Rows per page", "use a number from 1 to 200"),
    "cursor": ("Page", _FIRST_PAGE),
    "timeline": ("Timeline page", _FIRST_PAGE),
    "show": ("Webhooks", "use unreadable, unknown, ok, or all"),
    "format": ("Format", "use csv or json"),
}  # fmt: skip
"""The parameters of all pages: the name on the page, and which values are allowed."""


def describe_error(name: str, reason: str) -> str:
    """What is wrong with a parameter, and which values are allowed."""
    if name not in _FIELDS or "not a parameter" in reason:
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


@dataclass(frozen=True, slots=True)
class PageAddress:
    """The address of a page, from which links to its variants are made."""

    path: str
    params: dict[str, list[str]]

    def change(self, changes: Mapping[str, Any], path: str | None = None) -> str:
        """The same address with other values for these parameters; None removes one.

        Another filter or sort order starts at the first page, so `cursor` is removed unless given.
        """
        changed = {**self.params, "cursor": None, **changes}
        params = {name: value for name, value in changed.items() if value not in (None, "")}
        place = self.path if path is None else path
        return f"{place}?{urlencode(params, doseq=True)}" if params else place

    def filter_items(self, filters: Mapping[str, str]) -> str:
        """The items of the same sync, with these filters alone."""
        return self.change(dict.fromkeys(ITEM_FILTERS) | dict(filters)) + "#items"

    def get(self, name: str) -> str:
        """A parameter as it was given, or an empty text."""
        return self.params.get(name, [""])[0]

    def has(self, *names: str) -> bool:
        """True if one of these parameters is given."""
        return not self.params.keys().isdisjoint(names)


def has_value(part: bytes) -> bool:
    """True unless a part of a query string is empty: forms send their empty fields too."""
    return bool(unquote_to_bytes(part.partition(b"=")[2].replace(b"+", b" ")).strip())


def page_address(request: Request) -> PageAddress:
    """The address of this request, without empty parameters."""
    raw = (request.scope.get("raw_path") or b"/").split(b"?")[0].decode("latin-1")
    params: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if value.strip():
            params.setdefault(name, []).append(value)
    return PageAddress(raw, params)
