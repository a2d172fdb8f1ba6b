"""Failed transactions over all syncs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.db.engine import Database
from app.db.queries import transactions as queries
from app.db.queries.transactions import PushErrorFilter
from app.web.api import schemas
from app.web.api.csv_export import CSV_CONTENT, ReadPage, csv_response, wants_csv
from app.web.api.query_params import PushErrorParams
from app.web.api.serializers import serialize_transaction
from app.web.dependencies import DatabaseDep
from app.web.problems import documented

router = APIRouter(tags=["Transactions"])


def read_push_errors(
    database: Database, criteria: PushErrorFilter
) -> ReadPage[schemas.Transaction]:
    """A function that reads a page of the failed transactions that match the filter."""
    causes = database.classifier.causes

    def read(cursor: str | None, limit: int) -> tuple[list[schemas.Transaction], str | None]:
        with database.reading() as connection:
            page = queries.list_push_errors(connection, criteria, cursor=cursor, limit=limit)
        return [serialize_transaction(row, causes) for row in page.items], page.next

    return read


@router.get(
    "/push-errors",
    summary="List failed transactions",
    response_model=schemas.TransactionList,
    responses={**CSV_CONTENT, **documented(401, 422, 503)},
)
def list_push_errors(
    request: Request, database: DatabaseDep, params: Annotated[PushErrorParams, Query()]
) -> Response | schemas.TransactionList:
    """One page of failed rows of all syncs, newest sync first, or all of them as CSV.

    `from` and `to` are compared with the time of the sync, as in `/syncs`.
    """
    read = read_push_errors(database, params.to_filter())
    if wants_csv(request, params.format):
        return csv_response(
            read,
            schemas.Transaction,
            filename="push-errors",
            cursor=params.cursor,
            limit=params.csv_limit,
        )
    items, following = read(params.cursor, params.limit)
    return schemas.TransactionList(items=items, next=following)
