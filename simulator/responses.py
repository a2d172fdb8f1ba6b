"""JSON bodies of Codat's API, its paging and its errors.

Shapes as in Codat's published OpenAPI files (github.com/codatio/oas, Sync for Expenses and
Platform).
"""

from collections.abc import Mapping

from simulator.faults import Fault
from simulator.outcomes import Transaction, status_text
from simulator.state import Company, Json, Sync

MAX_PAGE_SIZE = 5000

ERROR_TEXTS: dict[int, str] = {
    400: "Error processing request - not valid.",
    401: "Unauthorized",
    402: "You have exceeded the 50-company limit that applies to a Free plan. We recommend that "
    "you delete any companies you no longer need and retry the request.",
    403: "You are using an outdated API key or a key not associated with that resource.",
    404: "No data available",
    409: "The data set has not been requested.",
    422: "The company does not have a valid set of connections.",
    429: "You have made too many requests in a given amount of time; please retry later.",
    500: "There is a problem with our server. Please try again later.",
    503: "The Codat API is temporarily offline for maintenance. Please try again later.",
}
# The published examples of these two have another code in the body.
BODY_STATUS_CODES = {402: 429, 503: 500}


class ApiError(Exception):
    """An error response; `status` is the HTTP status. A handler raises it."""

    def __init__(
        self,
        status: int,
        error: str | None = None,
        service: str = "PublicApi",
        *,
        retry_after: str | int | None = None,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.error = error or ERROR_TEXTS.get(status, ERROR_TEXTS[500])
        self.service = service
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def body(self, correlation_id: str) -> Json:
        """Build Codat's ErrorMessage (docs.codat.io/using-the-api/errors)."""
        return {
            "statusCode": BODY_STATUS_CODES.get(self.status, self.status),
            "service": self.service,
            "error": self.error,
            "correlationId": correlation_id,
            "canBeRetried": "Unknown",
            "detailedErrorCode": 0,
        }


def status_json(sync: Sync) -> Json:
    """Build a CompanySyncStatus; empty messages are "" and not null, as in Codat's samples."""
    return {
        "companyId": sync.company_id,
        "syncId": sync.sync_id,
        "syncStatusCode": sync.code,
        "syncStatus": status_text(sync.code),
        "errorMessage": sync.error_message,
        "syncExceptionMessage": sync.exception_message,
        "syncUtc": sync.sync_utc,
        "dataPushed": any(row.status == "Completed" for row in sync.transactions),
    }


def transaction_json(transaction: Transaction) -> Json:
    """Build one transaction row; `message` is absent, not null, where there is none."""
    row: Json = {"transactionId": transaction.transaction_id, "status": transaction.status}
    if transaction.message is not None:
        row["message"] = transaction.message
    row["integrationType"] = transaction.integration_type
    return row


def company_json(company: Company) -> Json:
    """Build one Company with its connections."""
    return {
        "id": company.company_id,
        "name": company.name,
        "description": company.description,
        "platform": "",
        "redirect": f"https://link.codat.io/company/{company.company_id}",
        "lastSync": company.created,
        "dataConnections": company.connections,
        "created": company.created,
        "createdByUserName": "Dan Tzabar",
        "products": ["expenses"],
        "tags": company.tags,
        "referenceSubsidiaryCompanies": [],
    }


def page_json(rows: list[Json], query: Mapping[str, str], href: str, fault: Fault | None) -> Json:
    """Build one page of rows (docs.codat.io/using-the-api/paging); beyond the end it is empty.

    Raises ApiError 400 for a page below 1 or a size outside 1 to 5000.
    """
    page = _positive_number(query, "page", 1)
    size = _positive_number(query, "pageSize", 100)
    if size > MAX_PAGE_SIZE:
        raise ApiError(400)
    results, total = apply_list_fault(rows, page, size, fault)
    return {
        "results": results,
        "pageNumber": page,
        "pageSize": size,
        "totalResults": total,
        "_links": _page_links(href, page, size, total),
    }


def apply_list_fault(
    rows: list[Json], page: int, size: int, fault: Fault | None
) -> tuple[list[Json], int]:
    """Return the rows of a page and the total, distorted by the fault of this call."""
    kind = fault.kind if fault else ""
    start = (page - 1) * size
    if kind == "shifting_page":
        start = max(0, start - 1)
    results = rows[start : start + size]
    if kind == "truncated_list":
        results = results[:-1]
    if kind == "pending_left" and results and "transactionId" in results[0]:
        first = {key: value for key, value in results[0].items() if key != "message"}
        results = [{**first, "status": "Pending"}, *results[1:]]
    surplus = fault.hits if fault and kind == "moving_total" else 0
    return results, len(rows) + surplus


def _positive_number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ApiError(400)
    return int(text)


def _page_links(href: str, page: int, size: int, total: int) -> Json:
    def link(number: int) -> Json:
        return {"href": f"{href}?page={number}&pageSize={size}"}

    links: Json = {"current": link(page), "self": {"href": href}}
    if page * size < total:
        links["next"] = link(page + 1)
    if page > 1:
        links["previous"] = link(page - 1)
    return links
