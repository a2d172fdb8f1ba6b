"""Transactions: in one sync, over all syncs of a company, and those that failed."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.db.engine import Database
from app.db.queries import syncs as sync_queries
from app.db.queries import transactions as queries
from app.web.api import schemas
from app.web.api.csv_export import CSV_CONTENT, csv_response, wants_csv
from app.web.api.query_params import NoQuery, PushErrorParams, SyncIdParams, TransactionParams
from app.web.api.responses import ApiRoute
from app.web.api.serializers import serialize_history, serialize_transaction
from app.web.dependencies import DatabaseDep
from app.web.path_params import Id
from app.web.problems import documented

router = APIRouter(tags=["Transactions"], route_class=ApiRoute)


@router.get(
    "/syncs/{sync_id}/transactions",
    summary="List a sync's transactions",
    responses=documented(401, 404, 409, 422, 503),
)
def list_transactions(
    database: DatabaseDep, sync_id: Id, params: Annotated[TransactionParams, Query()]
) -> schemas.TransactionList:
    """One page of rows in Codat's order. Rows repeat, one per integration type, even identically.

    An empty list does not mean that the sync has no transactions: see the sync's `errors.state`
    and `transactions.total`.
    """
    criteria = params.to(queries.TransactionFilter)
    with database.reading() as connection:
        record = sync_queries.get_sync(connection, sync_id, params.company_id)
        page = queries.list_transactions(
            connection, record.pk, criteria, cursor=params.cursor, limit=params.limit
        )
    causes = database.classifier.causes
    items = [serialize_transaction(row, causes) for row in page.items]
    return schemas.TransactionList(items=items, next=page.next)


@router.get(
    "/syncs/{sync_id}/transactions/{transaction_id}",
    summary="Get a transaction in a sync",
    responses=documented(304, 401, 404, 409, 422, 503),
)
def get_transaction(
    database: DatabaseDep, sync_id: Id, transaction_id: Id, params: Annotated[SyncIdParams, Query()]
) -> schemas.TransactionRows:
    """All rows of the transaction in this sync, in Codat's order."""
    with database.reading() as connection:
        record = sync_queries.get_sync(connection, sync_id, params.company_id)
        rows = queries.transaction_rows(connection, record.pk, transaction_id)
    causes = database.classifier.causes
    return schemas.TransactionRows(items=[serialize_transaction(row, causes) for row in rows])


@router.get(
    "/companies/{company_id}/transactions/{transaction_id}",
    summary="Get the history of a transaction",
    responses=documented(304, 401, 404, 422, 503),
)
def get_transaction_history(
    database: DatabaseDep, company_id: Id, transaction_id: Id, _params: NoQuery
) -> schemas.TransactionHistory:
    """The transaction's current status, and its rows in all syncs (the newest 1000)."""
    with database.reading() as connection:
        rows = queries.transaction_history(connection, company_id, transaction_id)
    return serialize_history(rows, database.classifier.causes)


def read_push_errors(
    database: Database, criteria: queries.PushErrorFilter, cursor: str | None, limit: int
) -> tuple[list[schemas.Transaction], str | None]:
    """A page of the failed transactions that match the filter, and the cursor of the next one."""
    with database.reading() as connection:
        page = queries.list_push_errors(connection, criteria, cursor=cursor, limit=limit)
    causes = database.classifier.causes
    return [serialize_transaction(row, causes) for row in page.items], page.next


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
    read = partial(read_push_errors, database, params.to(queries.PushErrorFilter))
    if wants_csv(request, params):
        return csv_response(read, schemas.Transaction, filename="push-errors", params=params)
    items, following = read(params.cursor, params.limit)
    return schemas.TransactionList(items=items, next=following)
