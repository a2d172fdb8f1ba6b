"""Open alerts."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.db import alerts
from app.web.api import schemas
from app.web.api.query_params import PageParams
from app.web.dependencies import DatabaseDep
from app.web.problems import documented

router = APIRouter(tags=["Alerts"])


@router.get("/alerts", summary="List open alerts", responses=documented(401, 422, 503))
def list_alerts(database: DatabaseDep, params: Annotated[PageParams, Query()]) -> schemas.AlertList:
    """One page of open alerts, newest first.

    Webhooks that did not arrive, webhook endpoints that are disabled or missing, messages that
    could not be delivered, and transactions that failed and are still open, by cause.
    """
    with database.reading() as connection:
        page = alerts.open_alerts(connection, cursor=params.cursor, limit=params.limit)
    items = [schemas.Alert.model_validate(dict(row)) for row in page.items]
    return schemas.AlertList(items=items, next=page.next)
