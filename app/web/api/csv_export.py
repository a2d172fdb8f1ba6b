"""Lists as CSV. The columns are the fields of the list's model; nothing names them twice."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, get_args

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.web.api.responses import prefers

CSV_TYPE = "text/csv"
CSV_CONTENT: dict[int | str, dict[str, Any]] = {200: {"content": {CSV_TYPE: {}}}}
"""The `responses` of a route that can also answer with CSV, besides its others."""
PAGE_SIZE = 200
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

Item = TypeVar("Item", bound=BaseModel)
ReadPage = Callable[[str | None, int], tuple[list[Item], str | None]]
"""Reads one page: (cursor, limit) → its items and the next cursor."""


def wants_csv(request: Request, format: str | None) -> bool:
    """True when the caller asks for CSV: by `?format=`, else by the `Accept` header."""
    return prefers(request, CSV_TYPE) if format is None else format == "csv"


def csv_response(
    read: ReadPage[Item],
    model: type[Item],
    *,
    filename: str,
    cursor: str | None = None,
    limit: int | None = None,
) -> Response:
    """All items after the cursor (at most `limit`) as CSV, read page by page while it is sent.

    The first page is read before the response starts, so that an error still has its status. An
    item that changes while the file is sent may be missed, as in any list that is paged through.
    """
    pages = _pages(read, cursor, limit)
    first = next(pages, [])
    return StreamingResponse(
        _lines(list(columns(model)), first, pages),
        media_type=f"{CSV_TYPE}; charset=utf-8; header=present",
        headers={
            "Content-Disposition": f'attachment; filename="{filename}.csv"',
            "Cache-Control": "private, no-store",
            "Vary": "Accept",
        },
    )


def columns(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The fields of a model in their order; those of a nested model as `errors_state`."""
    for name, field in model.model_fields.items():
        nested = _nested_model(field.annotation)
        if nested is None:
            yield prefix + name
        else:
            yield from columns(nested, f"{prefix}{name}_")


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model` or `Model | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _pages(
    read: ReadPage[Item], cursor: str | None, limit: int | None
) -> Iterator[Sequence[BaseModel]]:
    remaining = limit
    while remaining is None or remaining > 0:
        size = PAGE_SIZE if remaining is None else min(remaining, PAGE_SIZE)
        items, cursor = read(cursor, size)
        yield items
        if cursor is None:
            return
        if remaining is not None:
            remaining -= len(items)


def _lines(
    names: Sequence[str], first: Sequence[BaseModel], rest: Iterator[Sequence[BaseModel]]
) -> Iterator[str]:
    yield _csv([names])
    yield _csv(_row(item, names) for item in first)
    for items in rest:
        yield _csv(_row(item, names) for item in items)


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _row(item: BaseModel, names: Sequence[str]) -> list[Any]:
    values = _flatten(item.model_dump(mode="json"))
    return [_safe(values.get(name)) for name in names]


def _flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}_")
        else:
            flat[prefix + name] = value
    return flat


def _safe(value: Any) -> Any:
    """A cell. Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
