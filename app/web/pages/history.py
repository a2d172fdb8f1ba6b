"""The history: the searchable list of syncs on the first page, and its CSV."""

from functools import partial
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Response
from pydantic import ModelWrapValidatorHandler, PrivateAttr, ValidationError, model_validator

from app.db.queries import search, syncs, transactions
from app.domain.webhook_loss import endpoint_url
from app.web.api import schemas
from app.web.api.csv_export import csv_response
from app.web.api.query_params import SyncParams
from app.web.api.serializers import serialize_cause
from app.web.api.syncs import read_syncs
from app.web.pages.presenters import deciding_row, expense_status, present_sync
from app.web.pages.query_params import describe_error, page_address
from app.web.pages.rendering import Page, PageRoute, SignedInPage

MAX_EXPENSES = 5
FILTERS = ("q", "from", "to", "outcome", "state", "status_code", "company_id", "cause")

router = APIRouter(include_in_schema=False, route_class=PageRoute)


class HistoryParams(SyncParams):
    """The filters. Wrong dates are no error: the form shows beside its fields what is wrong."""

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


def read_history(page: Page, params: HistoryParams) -> dict[str, Any]:
    """The variables of `history.html`: the syncs that match the filters."""
    found, settings = None, page.request.app.state.settings
    if not params.wrong_dates:
        with page.database.reading() as connection:
            found = syncs.list_syncs(
                connection,
                params.to(syncs.SyncFilter),
                sort=params.sort,
                cursor=params.cursor,
                limit=params.limit,
            )
    return {
        "query": params,
        "is_filtered": page_address(page.request).has(*FILTERS),
        "syncs": [present_sync(record, page.causes) for record in found.items] if found else [],
        "next": found.next if found else None,
        "names": page.company_names(params.company_id),
        "cause_titles": {key: cause.title for key, cause in page.causes.items()},
        "endpoint": endpoint_url(
            settings.public_url or str(page.request.base_url), settings.root_path
        ),
        "expenses": _find_expenses(page, params.q) if params.q else [],
    }


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
    """All syncs that match the filters, in the columns of the API's CSV."""
    read = partial(read_syncs, page.database, params)
    return csv_response(read, schemas.Sync, filename="syncs", params=params)
