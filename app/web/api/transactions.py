"""Transactions: in one sync, and over all syncs of a company."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.db.queries import syncs as sync_queries
from app.db.queries import transactions as queries
from app.web.api import schemas
from app.web.api.query_params import NoParams, SyncIdParams, TransactionParams
from app.web.api.responses import NOT_MODIFIED, etag_response
from app.web.api.serializers import serialize_history, serialize_transaction
from app.web.dependencies import DatabaseDep
from app.web.path_params import Id, IdRoute
from app.web.problems import documented

router = APIRouter(tags=["Transactions"], route_class=IdRoute)


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
    with database.reading() as connection:
        record = sync_queries.get_sync(connection, sync_id, params.company_id)
        page = queries.list_transactions(
            connection, record.pk, params.to_filter(), cursor=params.cursor, limit=params.limit
        )
    causes = database.classifier.causes
    return schemas.TransactionList(
        items=[serialize_transaction(row, causes) for row in page.items], next=page.next
    )


@router.get(
    "/syncs/{sync_id}/transactions/{transaction_id}",
    summary="Get a transaction in a sync",
    response_model=schemas.TransactionRows,
    responses={**NOT_MODIFIED, **documented(401, 404, 409, 422, 503)},
)
def get_transaction(
    request: Request,
    database: DatabaseDep,
    sync_id: Id,
    transaction_id: Id,
    params: Annotated[SyncIdParams, Query()],
) -> Response:
    """All rows of the transaction in this sync, in Codat's order."""
    with database.reading() as connection:
        record = sync_queries.get_sync(connection, sync_id, params.company_id)
        rows = queries.transaction_rows(connection, record.pk, transaction_id)
    causes = database.classifier.causes
    items = [serialize_transaction(row, causes) for row in rows]
    return etag_response(request, schemas.TransactionRows(items=items))


@router.get(
    "/companies/{company_id}/transactions/{transaction_id}",
    summary="Get the history of a transaction",
    response_model=schemas.TransactionHistory,
    responses={**NOT_MODIFIED, **documented(401, 404, 422, 503)},
)
def get_transaction_history(
    request: Request,
    database: DatabaseDep,
    company_id: Id,
    transaction_id: Id,
    _params: Annotated[NoParams, Query()],
) -> Response:
    """The transaction's current status, and its rows in all syncs (the newest 1000)."""
    with database.reading() as connection:
        rows = queries.transaction_history(connection, company_id, transaction_id)
    return etag_response(request, serialize_history(rows, database.classifier.causes))
