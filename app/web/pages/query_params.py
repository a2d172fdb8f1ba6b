"""What a page is asked for: its query string, read as the API reads it, and addresses made of it.

A form without script sends its empty fields too; they count as not given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_origin
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from app.db.queries.transactions import ItemFilter
from app.web.api.query_params import LONGEST_CURSOR, ItemQuery, Paged, Word

USUAL_DAYS = 30  # that a page goes back where no range is asked for
ITEM_FILTERS = ("q", "status", "failed", "cause")

Query = TypeVar("Query", bound=BaseModel)


class SyncPageQuery(ItemQuery):
    """The filters of a sync's items, and which page of its timeline."""

    cause: Word | None = None
    steps: str | None = Field(None, min_length=1, max_length=LONGEST_CURSOR)

    def wanted(self) -> ItemFilter:
        """The filter for storage."""
        return replace(super().wanted(), cause=self.cause)


class KeptQuery(Paged):
    """Which of the kept webhooks; nothing given means those that were not understood."""

    reading: Literal["ok", "unknown", "unreadable", "any"] | None = None


def asked(request: Request, model: type[Query]) -> Query:
    """The query string as a model. Raises RequestValidationError that names what is wrong."""
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if value.strip():
            given.setdefault(name, []).append(value)
    several = _several(model)
    values = {name: each if name in several else each[-1] for name, each in given.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        told = [dict(each) | {"loc": ("query", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(told) from None


def _several(model: type[BaseModel]) -> set[str]:
    fields = model.model_fields.items()
    return {name for name, field in fields if get_origin(field.annotation) is list}


def segment(text: str) -> str:
    """An id as one segment of a path."""
    return quote(text, safe="")


def path(*segments: str, **params: str | None) -> str:
    """A path of these segments, with the parameters that are given."""
    told = {name: value for name, value in params.items() if value}
    place = "/" + "/".join(map(segment, segments))
    return f"{place}?{urlencode(told)}" if told else place


@dataclass(frozen=True, slots=True)
class Here:
    """The address of the page that was asked for, to make its neighbours' from."""

    path: str
    params: tuple[tuple[str, str], ...]

    def but(self, changes: Mapping[str, Any], path: str | None = None) -> str:
        """The same address with these parameters instead; None takes one away.

        Another filter or sort begins at the first page, so the cursor goes unless it is given.
        """
        changes = {"cursor": None} | dict(changes)
        kept = [(name, value) for name, value in self.params if name not in changes]
        for name, value in changes.items():
            kept += [(name, str(each)) for each in _listed(value)]
        place = self.path if path is None else path
        return f"{place}?{urlencode(kept)}" if kept else place

    def items(self, filters: Mapping[str, str]) -> str:
        """The items of the same sync, with these filters alone."""
        return self.but(dict.fromkeys(ITEM_FILTERS) | dict(filters)) + "#items"

    def given(self, name: str) -> str:
        """A parameter as it came; empty when it did not."""
        return next((value for each, value in self.params if each == name), "")

    def filtered(self, *names: str) -> bool:
        """True when one of these parameters is given."""
        return any(name in names for name, _ in self.params)


def _listed(value: Any) -> Sequence[Any]:
    if value is None or value == "":
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def here(request: Request) -> Here:
    """The address of this request, without what is empty."""
    raw = (request.scope.get("raw_path") or b"/").split(b"?")[0].decode("latin-1")
    params = request.query_params.multi_items()
    return Here(raw, tuple((name, value) for name, value in params if value.strip()))
