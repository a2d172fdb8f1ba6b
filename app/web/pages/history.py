"""The history: the searchable list of syncs on the first page, and its CSV."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Response
from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, ValidationError, model_validator

from app.db.queries import causes, events, search, syncs, transactions
from app.db.queries.syncs import SyncFilter, SyncRecord
from app.domain.causes.classifier import UNCLASSIFIED
from app.domain.webhook_loss import endpoint_url
from app.web.api import schemas
from app.web.api.csv_export import csv_response
from app.web.api.query_params import SyncParams
from app.web.api.serializers import serialize_cause
from app.web.api.syncs import read_syncs
from app.web.pages import labels
from app.web.pages.presenters import deciding_row, expense_status, present_sync
from app.web.pages.query_params import (
    BackwardParams,
    PageAddress,
    describe_error,
    page_address,
    path,
)
from app.web.pages.rendering import Page, PageRoute, SignedInPage

MAX_EXPENSES = 5
ROWS = (15, 50, 200)
FILTERS = ("q", "from", "to", "outcome", "state", "status_code", "company_id", "cause")

ColumnName = Literal[
    "status", "company", "why", "failed", "finished", "status_code", "started", "updated", "target"
]

router = APIRouter(include_in_schema=False, route_class=PageRoute)


class HistoryParams(SyncParams, BackwardParams):
    """The filters and columns.

    Wrong dates are no error: the form shows beside its fields what is wrong.
    """

    limit: int = Field(ROWS[0], ge=1, le=syncs.MAX_LIMIT)
    columns: list[ColumnName] = Field([], alias="column", max_length=20)
    _wrong_dates: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _accept_wrong_dates(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            reasons = {str(detail["loc"][-1]): detail["msg"] for detail in error.errors()}
            if not reasons.keys() <= {"from", "to"}:
                raise
        params = handler({name: data[name] for name in data if name not in ("from", "to")})
        params._wrong_dates = {name: describe_error(name, text) for name, text in reasons.items()}
        return params

    @property
    def wrong_dates(self) -> dict[str, str]:
        """What is wrong with the dates, by field."""
        return self._wrong_dates

    @property
    def shown_columns(self) -> list[str]:
        """The columns of the table, in its order."""
        return [name for name in labels.COLUMNS if name in (self.columns or labels.DEFAULT_COLUMNS)]


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter in force: its text, and the address without it."""

    text: str
    href: str


def find_answer(page: Page, params: HistoryParams) -> str | None:
    """The page of the one expense or sync that the search means, if nothing else is asked for."""
    address = page_address(page.request)
    if not params.q or address.has(*(name for name in FILTERS if name != "q"), "cursor", "before"):
        return None
    with page.database.reading() as connection:
        match = search.find_only(connection, params.q)
    if isinstance(match, search.TransactionMatch):
        return path("companies", match.company_id, "transactions", match.transaction_id)
    if isinstance(match, search.SyncMatch):
        return path("syncs", match.sync_id, company_id=match.company_id)
    return None


def read_history(page: Page, params: HistoryParams) -> dict[str, Any]:
    """The variables of `history.html`: the syncs that match the filters."""
    address, criteria = page_address(page.request), params.to(SyncFilter)
    is_filtered = address.has(*FILTERS)
    found, hits, rows = None, None, []
    newest_events: Sequence[events.EventRecord] = []
    settings = page.request.app.state.settings
    if not params.wrong_dates:
        with page.database.reading() as connection:
            found = syncs.list_syncs(
                connection,
                criteria,
                sort=params.sort,
                cursor=params.before or params.cursor,
                limit=params.limit,
            )
            hits = syncs.count_syncs(connection, criteria) if is_filtered else None
            newest_events = [] if found.items else events.list_events(connection, limit=1).items
            counts = causes.cause_counts(connection, [record.pk for record in found.items])
        rows = [_row(page, record, counts[record.pk]) for record in found.items]
    names = page.company_names(params.company_id)
    titles = {key: cause.title for key, cause in page.causes.items()}
    return {
        "query": params,
        "is_filtered": is_filtered,
        "chips": _chips(address, names, titles),
        "hits": hits,
        "syncs": rows,
        "next": found.next if found else None,
        "previous": found.previous if found else None,
        "names": names,
        "cause_titles": titles,
        "row_counts": ROWS,
        "first_webhook_at": newest_events[0].received_at if newest_events else None,
        "endpoint": endpoint_url(
            settings.public_url or str(page.request.base_url), settings.root_path
        ),
        "expenses": _find_expenses(page, params.q) if params.q else [],
    }


def _row(
    page: Page, record: SyncRecord, counts: list[tuple[str | None, int, int]]
) -> tuple[schemas.Sync, list[schemas.Cause]]:
    """A sync, and why it failed."""
    keys: list[str | None] = [key or UNCLASSIFIED for key, _, _ in counts]
    keys = keys or [record.cause_key]
    reasons = (serialize_cause(key, page.causes) for key in keys)
    return present_sync(record, page.causes), [cause for cause in reasons if cause]


def _chips(address: PageAddress, names: dict[str, str], titles: dict[str, str]) -> list[Chip]:
    texts: dict[str, Callable[[str], str | None]] = {
        "outcome": labels.OUTCOMES.get,
        "state": labels.STATES.get,
        "status_code": lambda code: f"Status code {code}",
        "company_id": lambda key: f"Company: {names.get(key, key)}",
        "cause": lambda key: f"Cause: {titles.get(key) or labels.from_key(key)}",
        "q": lambda text: f"Search: {text}",
    }
    chips = [
        Chip(text(value) or value, address.without(name, value))
        for name, text in texts.items()
        for value in address.params.get(name, [])
    ]
    if address.has("from", "to"):
        period = labels.period(address.get("from"), address.get("to"))
        href = address.change(dict.fromkeys(("from", "to", "tz")))
        chips.insert(0, Chip(f"{period[:1].upper()}{period[1:]}", href))
    return chips


def _find_expenses(page: Page, q: str) -> list[tuple[search.TransactionMatch, str, Any]]:
    """The expenses with this ID or correlation ID, with their current status and its cause."""
    expenses = []
    with page.database.reading() as connection:
        for match in search.find_transactions(connection, q, MAX_EXPENSES):
            row = deciding_row(
                transactions.transaction_history(connection, match.company_id, match.transaction_id)
            )
            title, _, _ = expense_status(row.current_status, row.cause_key)
            expenses.append((match, title, serialize_cause(row.cause_key, page.causes)))
    return expenses


@router.get("/syncs.csv")
def get_csv(page: SignedInPage, params: Annotated[SyncParams, Query()]) -> Response:
    """All syncs that match the filters, in the columns of the API's CSV, for spreadsheets."""
    read = partial(read_syncs, page.database, params)
    style = params.model_copy(update={"spreadsheet": True})
    return csv_response(read, schemas.Sync, filename="syncs", params=style)
