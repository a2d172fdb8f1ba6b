"""Lists as CSV. The columns are the fields of the list's model; nothing names them twice.

Text that a spreadsheet would run as a formula is marked with an apostrophe, in every file: anybody
may open it. A file for spreadsheets also begins with a byte order mark, which Excel needs for
UTF-8, and marks text that it would read as a number, a date or a truth value: an ID would lose its
leading zeros, and all digits after the fifteenth.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar, get_args

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.web.api.query_params import CsvParams, ExportParams, PageParams
from app.web.api.responses import prefers

CSV_TYPE = "text/csv"
CSV_CONTENT: dict[int | str, dict[str, Any]] = {200: {"content": {CSV_TYPE: {}}}}
"""The `responses` of a route that can also answer with CSV, besides its others."""
PAGE_SIZE = 200
BYTE_ORDER_MARK = "\ufeff"
MAX_CELL = 32_767

_FORMULA_STARTS = frozenset("=+-@\N{MINUS SIGN}")
_LINE_STARTS = ("\t", "\r", "\n")
_UNSEEN = re.compile(r"[\s\"'`“”„‘’«»\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2060\ufeff]*")
# What follows a separator is a cell of its own where a spreadsheet expects another separator.
_LATER_CELL = re.compile(r"(?<=[;,\t\r\n])[^;,\t\r\n]+")
# There a message may have an item of a list or a number; neither calculates or calls anything.
_ITEM_OR_NUMBER = re.compile(r"\s*[+-](?:\s[^(|!]*|\d[^(|!*/^&=<>+-]*)")
_MONTH = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|ma[iy]|june?|july?|aug(?:ust)?|"
    "sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?"
)
_READ_AS_VALUE = re.compile(
    r"[\s$€£¥(+-]*[.,]?\d[\d\s.,:/'’+()%ed–-]*[€$£¥]?(?:\s?[ap]m?)?"
    rf"|(?:\d+[\s./-]*)?(?:{_MONTH})\.?(?:[\s.,/-]*\d)+|\d+[\s./-]*(?:{_MONTH})|true|false",
    re.IGNORECASE,
)

Item = TypeVar("Item", bound=BaseModel)
ReadPage = Callable[[str | None, int], tuple[list[Item], str | None]]
"""Reads one page: (cursor, limit) → its items and the next cursor."""


def wants_csv(request: Request, params: ExportParams) -> bool:
    """True when CSV is requested: by `?format=`, else by the `Accept` header."""
    return prefers(request, CSV_TYPE) if params.format is None else params.format == "csv"


def csv_response(
    read: ReadPage[Item],
    model: type[Item],
    *,
    filename: str,
    params: CsvParams,
) -> Response:
    """The items as CSV, read page by page while it is sent: all of them, or those of one page.

    `params` may have a cursor and a limit: the default limit is for pages only. The first page is
    read before the response starts, so that an error still has its status. An item that changes
    while the file is sent may be missed, as in any list that is paged through.
    """
    page = params if isinstance(params, PageParams) else None
    limit = page.limit if page and "limit" in page.model_fields_set else None
    pages = _pages(read, page.cursor if page else None, limit)
    first = next(pages, [])
    columns = list(field_paths(model))
    header = ["_".join(path) for path in columns]
    mark = mark_for_spreadsheets if params.spreadsheet else mark_formula
    rows = ([_row(item, columns, mark) for item in page] for page in chain([first], pages))
    parts = (_csv(page, params.separator) for page in chain([[header]], rows))
    return StreamingResponse(
        # a page at once: each piece takes a thread
        chain([BYTE_ORDER_MARK] if params.spreadsheet else [], parts),
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


def _row(
    item: BaseModel, columns: Iterable[Sequence[str]], mark: Callable[[str], str]
) -> list[Any]:
    fields = item.model_dump(mode="json")
    row = []
    for path in columns:
        value: Any = fields
        for name in path:
            value = value and value[name]
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, str):
            value = mark(value)
        row.append(value)
    return row


def _csv(rows: Iterable[Sequence[Any]], separator: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(rows)
    return out.getvalue()


def mark_formula(text: str) -> str:
    """Put an apostrophe before the text if it is a formula, and before one after a separator."""
    marked = _LATER_CELL.sub(_mark_later_cell, text)
    is_formula = marked.startswith(_LINE_STARTS) or _formula_start(text) is not None
    return f"'{marked}" if is_formula else marked


def _mark_later_cell(match: re.Match[str]) -> str:
    cell = match[0]
    is_formula = _formula_start(cell) and not _ITEM_OR_NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def _formula_start(text: str) -> str | None:
    """The sign with which a formula starts, in its plain form, after what is not seen or cut off.

    Spreadsheets accept it full width, too.
    """
    unseen = _UNSEEN.match(text)
    first = text[unseen.end() if unseen else 0 :][:1]
    plain = unicodedata.normalize("NFKC", first)
    return plain if plain in _FORMULA_STARTS else None


def mark_for_spreadsheets(text: str) -> str:
    """Do the same as `mark_formula`, and mark text that looks like a number or a date.

    What is longer than a cell of Excel, which would continue it in other cells, is cut.
    """
    marked = f"'{text}" if _READ_AS_VALUE.fullmatch(text) else mark_formula(text)
    return marked if len(marked) <= MAX_CELL else f"{marked[: MAX_CELL - 1]}…"
