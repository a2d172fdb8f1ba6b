"""Our services' door, syncs: the list, one, its transactions, its timeline, asking Codat again."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.db.queries import events as queries_events
from app.db.queries import syncs as queries
from app.db.queries import transactions as queries_items
from app.errors import NotKnown
from app.web.api.query_params import ItemQuery, SyncQuery, TimelineQuery, Whose
from app.web.api.responses import CSV_TYPE, UNCHANGED, as_csv, tagged, wants_csv
from app.web.api.schemas import (
    Asked,
    StepAnswer,
    SyncAnswer,
    SyncList,
    Timeline,
    TransactionList,
    TransactionRows,
)
from app.web.api.serializers import item_answer, sync_answer
from app.web.auth import TheDatabase, TheOwing
from app.web.path_params import Id, IdRoute
from app.web.problems import documented

SYNC_COLUMNS = (
    "company_id",
    "company_name",
    "sync_id",
    "state",
    "status_code",
    "status_text",
    "outcome",
    "failure_stage",
    "error_message",
    "exception_message",
    "data_pushed",
    "started_at",
    "finished_at",
    "first_seen_at",
    "updated_at",
    "source_platform",
    "transactions_total",
    "transactions_completed",
    "transactions_failed",
    "transactions_pending",
    "transactions_other",
    "transactions_expected",
    "errors_state",
    "errors_attempts",
    "errors_next_attempt_at",
    "errors_fetched_at",
    "errors_last_error",
    "cause",
)
ONE_SYNC = documented(401, 404, 409, 422, 503)

router = APIRouter(tags=["syncs"], route_class=IdRoute)


@router.get(
    "/syncs",
    summary="List syncs, those changed last first",
    response_model=SyncList,
    responses={200: {"content": {CSV_TYPE: {}}}, **documented(401, 422, 503)},
)
def list_syncs(
    request: Request, database: TheDatabase, query: Annotated[SyncQuery, Query()]
) -> SyncList | Response:
    """One page of syncs, or all of them as CSV (`Accept: text/csv` or `?format=csv`).

    `from` and `to` are compared with a sync's own time: its start, else its end, else when it
    was first heard of. Unknown values sort last.
    """
    wanted = query.wanted()

    def read(cursor: str | None, limit: int) -> tuple[list[SyncAnswer], str | None]:
        with database.reading() as connection:
            page = queries.list_syncs(
                connection, wanted, sort=query.sort, cursor=cursor, limit=limit
            )
        return [sync_answer(kept) for kept in page.items], page.next

    if wants_csv(request, query.format):
        return as_csv(read, SYNC_COLUMNS, name="syncs", cursor=query.cursor, most=query.most)
    items, after = read(query.cursor, query.limit)
    return SyncList(items=items, next=after)


@router.get(
    "/syncs/{sync_id}",
    summary="One sync",
    response_model=SyncAnswer,
    responses={**UNCHANGED, **ONE_SYNC},
)
def get_sync(
    request: Request, database: TheDatabase, sync_id: Id, whose: Annotated[Whose, Query()]
) -> Response:
    """Everything known of one sync. 409 when two companies have a sync of this id."""
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, whose.company_id)
    return tagged(request, sync_answer(kept))


@router.get(
    "/syncs/{sync_id}/transactions",
    summary="A sync's transactions, in Codat's order",
    responses=ONE_SYNC,
)
def list_transactions(
    database: TheDatabase, sync_id: Id, query: Annotated[ItemQuery, Query()]
) -> TransactionList:
    """One page of rows. Rows repeat: one per integration type, and even the same one twice.

    An empty list says nothing was found; whether the list is known at all is in the sync's
    `errors.state` and `transactions.total`.
    """
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, query.company_id)
        page = queries_items.list_items(
            connection, kept.number, query.wanted(), cursor=query.cursor, limit=query.limit
        )
    items = [item_answer(item, database.rules) for item in page.items]
    return TransactionList(items=items, next=page.next)


@router.get(
    "/syncs/{sync_id}/transactions/{transaction_id}",
    summary="One transaction's rows in this sync",
    response_model=TransactionRows,
    responses={**UNCHANGED, **ONE_SYNC},
)
def get_transaction(
    request: Request,
    database: TheDatabase,
    sync_id: Id,
    transaction_id: Id,
    whose: Annotated[Whose, Query()],
) -> Response:
    """All rows of the transaction in this sync, in Codat's order."""
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, whose.company_id)
        rows = queries_items.items_of(connection, kept.number, transaction_id)
    items = [item_answer(item, database.rules) for item in rows]
    return tagged(request, TransactionRows(items=items))


@router.get(
    "/syncs/{sync_id}/timeline", summary="What happened to a sync, and why", responses=ONE_SYNC
)
def get_timeline(
    database: TheDatabase, sync_id: Id, query: Annotated[TimelineQuery, Query()]
) -> Timeline:
    """Every delivery, duplicate, fetch and decision, oldest first, each with its reason."""
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, query.company_id)
        page = queries_events.timeline(
            connection,
            kept.number,
            kept.sync.company_id,
            sync_id,
            cursor=query.cursor,
            limit=query.limit,
        )
    items = [StepAnswer.model_validate(step) for step in page.items]
    return Timeline(items=items, next=page.next)


@router.post(
    "/syncs/{sync_id}/refresh",
    summary="Ask Codat again",
    status_code=202,
    responses=ONE_SYNC,
)
def refresh(
    database: TheDatabase, owe: TheOwing, sync_id: Id, whose: Annotated[Whose, Query()]
) -> Asked:
    """Owe a fetch of this sync's status and transactions, due now. Safe to repeat."""
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, whose.company_id)
    if not owe(kept.sync.company_id, kept.sync.sync_id):
        raise NotKnown("no such sync is known here")
    return Asked(company_id=kept.sync.company_id, sync_id=kept.sync.sync_id)
