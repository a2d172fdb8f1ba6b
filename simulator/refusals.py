"""How Codat says no: its ErrorMessage body, one text per HTTP status.

The body's `statusCode` differs from the HTTP status for 402 and 503, as in the published examples
(docs.codat.io/using-the-api/errors).
"""

from dataclasses import dataclass, field
from typing import Any

TEXTS: dict[int, str] = {
    400: "Error processing request - not valid.",
    401: "Unauthorized",
    402: "You have exceeded the 50-company limit that applies to a Free plan. We recommend that "
    "you delete any companies you no longer need and retry the request.",
    403: "You are using an outdated API key or a key not associated with that resource.",
    404: "No data available",
    405: "The requested method is not supported for this resource.",
    409: "The data set has not been requested.",
    422: "The company does not have a valid set of connections.",
    429: "You have made too many requests in a given amount of time; please retry later.",
    500: "There is a problem with our server. Please try again later.",
    503: "The Codat API is temporarily offline for maintenance. Please try again later.",
}
BODY_STATUS = {402: 429, 503: 500}


@dataclass
class RefusalError(Exception):
    """Raised by an API handler to answer with an error; `status` is the HTTP status."""

    status: int
    error: str | None = None
    service: str = "PublicApi"
    headers: dict[str, str] = field(default_factory=dict)
    validation: list[dict[str, str]] | None = None


def error_body(refusal: RefusalError, correlation_id: str) -> dict[str, Any]:
    """Codat's ErrorMessage for a refusal; `validation` only where there is something in it."""
    body: dict[str, Any] = {
        "statusCode": BODY_STATUS.get(refusal.status, refusal.status),
        "service": refusal.service,
        "error": refusal.error or TEXTS.get(refusal.status, TEXTS[500]),
        "correlationId": correlation_id,
        "canBeRetried": "No" if refusal.validation else "Unknown",
        "detailedErrorCode": 0,
    }
    if refusal.validation:
        body["validation"] = {"errors": refusal.validation, "warnings": []}
    return body


def no_company(company_id: str) -> RefusalError:
    """404 in the words Codat uses for an unknown company."""
    text = f"No company was found with ID {company_id}"
    return RefusalError(404, text, "ClientsApi")


def no_sync(sync_id: str) -> RefusalError:
    """404 for a sync that does not exist or belongs to another company."""
    return RefusalError(404, f"No sync was found with ID {sync_id}", "ExpenseSyncApi")
