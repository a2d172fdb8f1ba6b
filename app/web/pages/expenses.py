"""The page of one expense: is it in the books, why not, and what to do about it."""

from fastapi import APIRouter, Response

from app.db.queries import causes, syncs, transactions
from app.web.api.query_params import NoQuery
from app.web.api.serializers import retry_host, serialize_history
from app.web.dependencies import SettingsDep
from app.web.pages.presenters import deciding_row, expense_status
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.pages.syncs import NO_RETRY_URL
from app.web.path_params import Id

MAX_OTHER_COMPANIES = 100

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/companies/{company_id}/transactions/{transaction_id}")
def get_transaction(
    page: SignedInPage,
    settings: SettingsDep,
    company_id: Id,
    transaction_id: Id,
    _params: NoQuery,
) -> Response:
    """One expense: is it in the books, and its rows in all syncs, newest first."""
    with page.database.reading() as connection:
        rows = transactions.transaction_history(connection, company_id, transaction_id)
        deciding, key = deciding_row(rows), deciding_row(rows).cause_key
        sync = syncs.get_sync(connection, deciding.sync_id, company_id)
        others = 0
        if key:
            others = causes.other_companies(connection, key, company_id, MAX_OTHER_COMPANIES)
    history = serialize_history(rows, page.causes)
    title, tone, sentence = expense_status(deciding.current_status, key)
    recorded_at = None
    if deciding.current_status == "completed":
        recorded_at = next((row.at for row in rows if row.sync_id == history.resolved_by), None)
    is_set_up = retry_host(settings.retry_webhook_url) is not None
    definition = page.causes.get(key or "")
    return page.render(
        "transaction.html",
        company_id=company_id,
        company_name=page.company_names(company_id).get(company_id),
        history=history,
        deciding=deciding,
        title=title,
        tone=tone,
        sentence=sentence,
        cause=next(
            (row.cause for row in history.history if row.cause and row.cause.key == key), None
        ),
        explanation=definition.text if definition else None,
        others=others,
        is_at_most=others < MAX_OTHER_COMPANIES,
        no_retry=sync.no_retry_reason or (None if is_set_up else NO_RETRY_URL),
        failed_at=next((row.at for row in rows if row.failed), None),
        recorded_at=recorded_at,
    )
