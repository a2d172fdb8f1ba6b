"""What may stand in the address of a page, in words for who has a wrong one."""

from app.web.pages.labels import OUTCOMES, READINGS, STATES

_DAY = "a day such as 2026-01-31, or a time such as 2026-01-31T09:00:00Z"
FIELDS: dict[str, tuple[str, str]] = {
    "q": ("Search", "a text of at most 1,000 characters"),
    "from": ("From", _DAY),
    "to": ("To", f"{_DAY}, and not before From"),
    "outcome": ("Outcome", ", ".join(OUTCOMES)),
    "state": ("State", ", ".join(STATES)),
    "status_code": ("Status code", "a whole number such as 5130, at most 50 of them"),
    "status": ("Status", "a word of Codat such as PushError, at most 20 of them"),
    "failed": ("Only failed", "true or false"),
    "cause": ("Cause", "the key of a cause, of at most 1,000 characters"),
    "company_id": ("Company", "an ID of at most 1,000 characters"),
    "sort": ("Sorting", "started_at, finished_at, updated_at, company_id or status_code, with a - "
             "before it for the other way round"),
    "limit": ("Rows on a page", "a whole number from 1 to 200"),
    "cursor": ("Page", "what the link to the next page says; begin again at the first page"),
    "steps": ("Page of the timeline", "what the link to more says; begin again at the first page"),
    "reading": ("Reading", ", ".join((*READINGS, "any"))),
    "format": ("Format", "csv or json"),
}  # fmt: skip
"""What may stand in an address: its name on the page, and what is allowed."""


def allowed(name: str, reason: str) -> str:
    """What is wrong with one parameter of an address, and what would be right."""
    if name not in FIELDS or reason.startswith("is not a parameter"):
        return f"“{name}” is not something this page can be asked for."
    title, told = FIELDS[name]
    return f"{title} (“{name}”) cannot be what the address says. Allowed: {told}."
