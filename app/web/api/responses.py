"""The forms an answer can take: tagged, so that nothing unchanged is sent twice; or CSV."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
CSV_TYPE = "text/csv"
UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Nothing has changed since the ETag in `If-None-Match`"}
}
"""The `responses` of a route that answers with `tagged`, besides its others."""
Read = Callable[[str | None, int], tuple[Sequence[BaseModel], str | None]]
"""Reads one page: (cursor, limit) to its rows and the next cursor."""


def tagged(request: Request, answer: BaseModel) -> Response:
    """The answer with an ETag of its content; 304 without it when the caller has that already."""
    body = answer.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    if _has(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _has(told: Sequence[str], tag: str) -> bool:
    tags = [each.strip().removeprefix("W/") for each in ",".join(told).split(",")]
    return tag in tags or "*" in tags


def wants_csv(request: Request, form: str | None) -> bool:
    """True when CSV is asked for: by `?format=`, else by the `Accept` header."""
    return prefers(request, CSV_TYPE) if form is None else form == "csv"


def prefers(request: Request, kind: str) -> bool:
    """True when the `Accept` header names this type, and not JSON before it."""
    weights = dict(_weights(",".join(request.headers.getlist("accept"))))
    weight = weights.get(kind, 0.0)
    return weight > 0 and weight >= weights.get("application/json", 0.0)


def _weights(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        kind, *options = (piece.strip().lower() for piece in part.split(";"))
        told = [option[2:] for option in options if option.startswith("q=")]
        try:
            yield kind, float(told[0]) if told else 1.0
        except ValueError:
            yield kind, 0.0


def as_csv(
    read: Read, columns: Sequence[str], *, name: str, cursor: str | None, most: int | None
) -> Response:
    """All rows from the cursor on, at most so many, as CSV, page by page while it is sent.

    The first page is read before the answer begins, so that an error still is one. A row that
    changes meanwhile may be missed, as in any list that is paged through.
    """
    rows = _rows(read, cursor, most)
    first = next(rows, None)
    return StreamingResponse(
        _lines(columns, first, rows),
        media_type=f"{CSV_TYPE}; charset=utf-8; header=present",
        headers={
            "Content-Disposition": f'attachment; filename="{name}.csv"',
            "Cache-Control": "private, no-store",
            "Vary": "Accept",
        },
    )


def _rows(read: Read, cursor: str | None, most: int | None) -> Iterator[list[BaseModel]]:
    """Pages, until there are no more or enough."""
    while most is None or most > 0:
        size = 200 if most is None else min(most, 200)
        page, cursor = read(cursor, size)
        yield list(page)
        most = None if most is None else most - len(page)
        if cursor is None:
            return


def _lines(
    columns: Sequence[str], first: list[BaseModel] | None, rest: Iterator[list[BaseModel]]
) -> Iterator[str]:
    yield _written([list(columns)])
    if first:
        yield _written(_cells(row, columns) for row in first)
    for page in rest:
        yield _written(_cells(row, columns) for row in page)


def _written(rows: Any) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _cells(row: BaseModel, columns: Sequence[str]) -> list[Any]:
    told = flat(row)
    return [_safe(told[column]) for column in columns]


def flat(row: BaseModel) -> dict[str, Any]:
    """The fields of a row, those of a field with fields as `transactions_total`."""
    cells: dict[str, Any] = {}
    for name, value in row.model_dump(mode="json").items():
        if isinstance(value, dict):
            cells |= {f"{name}_{inner}": each for inner, each in value.items()}
        else:
            cells[name] = value
    return cells


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
