"""Texts of the pages: titles, tones, and short texts for stored values.

A tone selects colors and a sign. It is never the only sign, and `good` is used only for what
Codat's own answers prove. Lists of titles begin with what needs attention.
"""

from collections.abc import Iterable
from datetime import date, datetime, tzinfo
from typing import Literal

from app.domain.status_codes import STATUS_TEXTS, status_text

Tone = Literal["good", "calm", "wait", "unknown", "part", "bad"]

OUTCOMES = {
    "failed": "Failed",
    "partly_failed": "Partly failed",
    "unknown": "Unconfirmed",
    "in_progress": "In progress",
    "all_written": "Written",
    "nothing_to_write": "Nothing to sync",
}
TONES: dict[str, Tone] = {
    "failed": "bad",
    "partly_failed": "part",
    "unknown": "unknown",
    "in_progress": "wait",
    "all_written": "good",
    "nothing_to_write": "calm",
}
"""The tone of each outcome of a sync."""

COLUMNS = {
    "status": "Status",
    "company": "Company",
    "why": "Why",
    "failed": "Failed",
    "finished": "Finished",
    "status_code": "Status code",
    "started": "Started",
    "updated": "Last change",
    "target": "Accounting software",
}
"""The columns of the history, in their order."""
DEFAULT_COLUMNS = ("status", "company", "why", "failed", "finished")
SORTS = {
    "company": "company_id",
    "finished": "finished_at",
    "status_code": "status_code",
    "started": "started_at",
    "updated": "updated_at",
}
"""The sort order of each column that has one."""

STATES = {"failed": "Finished with errors", "completed": "Finished", "started": "Not finished"}
EXPENSES: dict[str, tuple[str, Tone, str]] = {
    "completed": ("In the books", "good", "The latest sync recorded this expense."),
    "failed": ("Not in the books", "bad", "The latest sync could not record this expense."),
    "pending": ("Pending", "wait", "The latest sync has not finished with this expense."),
    "other": ("Unknown", "unknown", "Codat returned an unknown status."),
    "duplicate": (
        "Possible duplicate",
        "calm",
        "Codat reports that this expense was already recorded. Check the accounting software.",
    ),
}
"""Title, tone, and sentence for the current status of an expense over all syncs."""

EVENTS: dict[str, tuple[str, Tone]] = {
    "failed": ("Failed", "bad"),
    "waiting": ("Waiting", "wait"),
    "unreadable": ("Invalid", "bad"),
    "unknown": ("Unknown type", "unknown"),
    "ok": ("Processed", "calm"),
}
"""Title and tone of a webhook by whether it was processed and by its `parse_status`."""

PRESETS = {1: "Today", 7: "7 days", 30: "30 days"}
"""Periods that can be selected with one click, by their number of days."""

BEFORE = {1: "yesterday", 7: "the 7 days before", 30: "the 30 days before"}
"""The period before each of them."""

WHO_ACTS = {
    "customer": "Customer",
    "us": "Our team",
    "accounting_software": "Nobody: resend later",
    "codat": "Codat",
}
"""The owner of a cause, for tables."""

DELIVERIES: dict[str, tuple[str, Tone]] = {
    "given_up": ("Not delivered", "bad"),
    "waiting": ("Waiting", "wait"),
    "delivered": ("Delivered", "calm"),
}
"""Title and tone of an outgoing message by the state of its delivery."""

OWNERS = {
    "customer": "Owner: customer",
    "us": "Owner: our team",
    "accounting_software": "No action now: temporary problem in the accounting software",
    "codat": "Owner: Codat",
}
RETRY_ADVICE = {"helps": "now", "after_next_step": "after the fix", "never_helps": "will not help"}
"""Whether resending an expense helps, after the word "Resend"."""

TIMELINE_KINDS = {
    "delivery": "Webhook received",
    "duplicate": "Duplicate webhook",
    "replay": "Webhook processed again",
    "fetch": "Checked with Codat",
    "reconcile": "Compared with Codat",
    "stuck": "Still in progress",
    "initiated": "Sync started here",
    "refresh": "Refresh requested",
    "retry": "Retry requested",
    "notify": "Notification sent",
    "resend": "Sent again",
    "not_delivered": "Notification not delivered",
}
_ITEM_STATUSES = ("Completed", "Pending", "PushError", "ValidationError", "Failed")


def from_key(key: str) -> str:
    """A key as words, for values that have no title."""
    return key.replace("_", " ").replace("-", " ").capitalize()


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 item`, `1,204 items`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def short_id(text: str) -> str:
    """The beginning and end of a long id, for headings."""
    return text if len(text) <= 12 else f"{text[:4]}…{text[-4:]}"


def long_time(at: datetime, zone: tzinfo) -> str:
    """A time with seconds and the abbreviation of its zone."""
    local = at.astimezone(zone)
    return f"{local.day} {local:%b %Y, %H:%M:%S %Z}"


def short_time(at: datetime, now: datetime, zone: tzinfo) -> str:
    """A time for tables; the year only where it is not the current one."""
    local = at.astimezone(zone)
    is_this_year = local.year == now.astimezone(zone).year
    return f"{local.day} {local:%b, %H:%M}" if is_this_year else f"{local.day} {local:%b %Y, %H:%M}"


def ago(at: datetime, now: datetime) -> str:
    """How long ago a moment was: `12 s ago`, `3 h ago`, `2 days ago`."""
    seconds = max(0, int((now - at).total_seconds()))
    for size, unit in ((86_400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = seconds // size
            return f"{counted(count, unit) if unit == 'day' else f'{count} {unit}'} ago"
    return f"{seconds} s ago"


def zone_name(zone: tzinfo, now: datetime) -> str:
    """Return `UTC`, `Australia/Sydney (AEDT)`."""
    name = str(zone)
    return name if name == "UTC" else f"{name} ({now.astimezone(zone):%Z})"


def days(first: date, last: date) -> str:
    """Return `30 Nov 2026` or `30 Nov 2026 to 2 Dec 2026`."""
    return _day(first) if first == last else f"{_day(first)} to {_day(last)}"


def _day(at: date) -> str:
    return f"{at.day} {at:%b %Y}"


def period(since: str, until: str) -> str:
    """A period as it was entered in the address: dates, times, or empty texts."""
    first, last = _entered(since), _entered(until)
    if first == last:
        return f"on {first}" if first else "last 30 days"
    if since and until:
        return f"from {first} to {last}"
    return f"since {first}" if since else f"until {last}"


def _entered(text: str) -> str:
    try:
        return _day(date.fromisoformat(text))
    except ValueError:
        return text


def duration(start: datetime | None, end: datetime | None) -> str | None:
    """How long a sync took; None if a time is unknown or the two clocks disagree."""
    if not start or not end or end < start:
        return None
    minutes, seconds = divmod(int((end - start).total_seconds()), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def status_codes(chosen: Iterable[int]) -> dict[int, str]:
    """The documented status codes, and those that are chosen already."""
    return {code: f"{code} {status_text(code)}" for code in sorted({*STATUS_TEXTS, *chosen})}


def item_statuses(chosen: Iterable[str]) -> dict[str, str]:
    """The item statuses that Codat documents, and those that are chosen already."""
    documented = {status.lower(): status for status in _ITEM_STATUSES}
    others = {status.lower(): status for status in chosen}
    return documented | {key: others[key] for key in others if key not in documented}
