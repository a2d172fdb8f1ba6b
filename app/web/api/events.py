"""Our services' door, over all syncs: failed transactions, statistics, the kept webhooks."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.db import alerts
from app.db.engine import Database
from app.db.queries import (
    companies as queries_companies,
)
from app.db.queries import (
    events as queries_events,
)
from app.db.queries import (
    transactions as queries_items,
)
from app.db.queries.transactions import ErrorFilter
from app.web.api.query_params import Between, BodyQuery, ErrorQuery, EventQuery, Nothing, Paged
from app.web.api.responses import CSV_TYPE, UNCHANGED, as_csv, tagged, wants_csv
from app.web.api.schemas import (
    AlertAnswer,
    AlertList,
    EventAnswer,
    EventList,
    EventWithBody,
    Replayed,
    StatsAnswer,
    TransactionAnswer,
    TransactionList,
)
from app.web.api.serializers import (
    event_answer,
    event_with_body,
    item_answer,
    replayed,
    stats_answer,
)
from app.web.auth import TheDatabase, TheReplayer
from app.web.path_params import Id, IdRoute
from app.web.problems import documented

ERROR_COLUMNS = tuple(TransactionAnswer.model_fields)

router = APIRouter(route_class=IdRoute)
ReadErrors = Callable[[str | None, int], tuple[list[TransactionAnswer], str | None]]


def reading_errors(database: Database, wanted: ErrorFilter) -> ReadErrors:
    """Reads the wanted failed transactions page by page."""

    def read(cursor: str | None, limit: int) -> tuple[list[TransactionAnswer], str | None]:
        with database.reading() as connection:
            page = queries_items.list_errors(connection, wanted, cursor=cursor, limit=limit)
        return [item_answer(item, database.rules) for item in page.items], page.next

    return read


@router.get(
    "/push-errors",
    tags=["transactions"],
    summary="Failed transactions over all syncs, newest sync first",
    response_model=TransactionList,
    responses={200: {"content": {CSV_TYPE: {}}}, **documented(401, 422, 503)},
)
def list_errors(
    request: Request, database: TheDatabase, query: Annotated[ErrorQuery, Query()]
) -> TransactionList | Response:
    """One page of failed rows, or all of them as CSV (`Accept: text/csv` or `?format=csv`)."""
    read = reading_errors(database, query.wanted())
    if wants_csv(request, query.format):
        return as_csv(read, ERROR_COLUMNS, name="push-errors", cursor=query.cursor, most=query.most)
    items, after = read(query.cursor, query.limit)
    return TransactionList(items=items, next=after)


@router.get(
    "/stats",
    tags=["syncs"],
    summary="How many syncs, by outcome, status code and day",
    responses=documented(401, 422, 503),
)
def get_stats(database: TheDatabase, query: Annotated[Between, Query()]) -> StatsAnswer:
    """Syncs whose own time lies in the range; without a range all of them. Days are UTC."""
    with database.reading() as connection:
        counted = queries_companies.stats(connection, query.from_, query.to)
    return stats_answer(counted)


@router.get(
    "/alerts",
    tags=["events"],
    summary="What somebody must look at now",
    responses=documented(401, 422, 503),
)
def list_alerts(database: TheDatabase, query: Annotated[Paged, Query()]) -> AlertList:
    """One page of the open alerts, newest first: webhooks that are lost, endpoints disabled or
    missing, messages that could not be delivered, transactions that stay failed (by their cause).
    """
    with database.reading() as connection:
        page = alerts.open_alerts(connection, cursor=query.cursor, limit=query.limit)
    told = [AlertAnswer(**{name: row[name] for name in AlertAnswer.model_fields})
            for row in page.rows]  # fmt: skip
    return AlertList(items=told, next=page.next)


@router.get(
    "/events",
    tags=["events"],
    summary="List the kept webhooks, newest first",
    responses=documented(401, 422, 503),
)
def list_events(database: TheDatabase, query: Annotated[EventQuery, Query()]) -> EventList:
    """One page, without bodies. `reading=unreadable` are those nothing could be made of."""
    with database.reading() as connection:
        page = queries_events.list_events(
            connection, reading=query.reading, cursor=query.cursor, limit=query.limit
        )
    return EventList(items=[event_answer(event) for event in page.items], next=page.next)


@router.get(
    "/events/{event_id}",
    tags=["events"],
    summary="One kept webhook",
    response_model=EventWithBody | EventAnswer,
    responses={**UNCHANGED, **documented(401, 404, 422, 503)},
)
def get_event(
    request: Request,
    database: TheDatabase,
    event_id: Id,
    query: Annotated[BodyQuery, Query()],
) -> Response:
    """The webhook of this message id; its raw body only with `?body=true`."""
    with database.reading() as connection:
        event = queries_events.get_event(connection, event_id, with_body=query.body)
    return tagged(request, event_with_body(event) if query.body else event_answer(event))


@router.post(
    "/events/{event_id}/replay",
    tags=["events"],
    summary="Read a kept webhook again",
    responses=documented(401, 404, 410, 422, 503),
)
def replay_event(
    replayer: TheReplayer, event_id: Id, _query: Annotated[Nothing, Query()]
) -> Replayed:
    """Read its body anew, as by the code of today, and apply it if its meaning has changed.

    Safe to repeat: an event that was understood before changes nothing, but work of its sync that
    was given up starts again. 410 when its body has been removed by retention.
    """
    done = replayer.replay(event_id)
    return replayed(done.event, changed=done.changed, sync=done.sync)
