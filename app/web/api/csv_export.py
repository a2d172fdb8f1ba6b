"""Lists as CSV. The columns are the fields of the list's model; nothing names them twice."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar, get_args

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.web.api.query_params import ExportParams
from app.web.api.responses import prefers

CSV_TYPE = "text/csv"
CSV_CONTENT: dict[int | str, dict[str, Any]] = {200: {"content": {CSV_TYPE: {}}}}
"""The `responses` of a route that can also answer with CSV, besides its others."""
PAGE_SIZE = 200
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

Item = TypeVar("Item", bound=BaseModel)
ReadPage = Callable[[str | None, int], tuple[list[Item], str | None]]
"""Reads one page: (cursor, limit) → its items and the next cursor."""


def wants_csv(request: Request, params: ExportParams) -> bool:
    """True when CSV is requested: by `?format=`, else by the `Accept` header."""
    return prefers(request, CSV_TYPE) if params.format is None else params.format == "csv"


def csv_response(
    read: ReadPage[Item], model: type[Item], *, filename: str, params: ExportParams | None = None
) -> Response:
    """The items as CSV, read page by page while it is sent: all of them, or those of one page.

    `params` may name a cursor and a limit: the default limit is for pages only. The first page is
    read before the response starts, so that an error still has its status. An item that changes
    while the file is sent may be missed, as in any list that is paged through.
    """
    limit = params.limit if params and "limit" in params.model_fields_set else None
    pages = _pages(read, params.cursor if params else None, limit)
    first = next(pages, [])
    columns = list(field_paths(model))
    header = ["_".join(path) for path in columns]
    rows = ([_row(item, columns) for item in page] for page in chain([first], pages))
    return StreamingResponse(
        map(_csv, chain([[header]], rows)),  # a page at once: each piece takes a thread
        media_type=f"{CSV_TYPE}; charset=utf-8; header=present",
        headers={
            "Content-Disposition": f'attachment; filename="{filename}.csv"',
            "Cache-Control": "private, no-store",
            "Vary": "Accept",
        },
    )


def field_paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The fields of a model in their order; those of a nested model as (`errors`, `state`)."""
    for name, field in model.model_fields.items():
        # `Model` or `Model | None`
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from ((name, *path) for path in field_paths(candidate))
                break
        else:
            yield (name,)


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


def _row(item: BaseModel, columns: Iterable[Sequence[str]]) -> list[Any]:
    fields = item.model_dump(mode="json")
    row = []
    for path in columns:
        value: Any = fields
        for name in path:
            value = value and value[name]
        row.append(_safe(value))
    return row


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _safe(value: Any) -> Any:
    """A cell. Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
