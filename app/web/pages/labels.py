"""What the pages say of a sync: plain words for people who were not there.

A tone is a style, never the only sign: `good` only where Codat's own answers prove it.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

from app.domain.status_codes import STATUS_TEXTS, status_text
from app.web.api.schemas import SyncAnswer

Tone = Literal["good", "calm", "wait", "unknown", "part", "bad"]


class Row(Protocol):
    """A row of a transaction list, kept or answered."""

    @property
    def status(self) -> str | None:
        """Codat's word."""

    @property
    def failed(self) -> bool:
        """Whether it did not reach the books."""


OUTCOMES: dict[str, tuple[str, Tone]] = {
    "failed": ("Failed", "bad"),
    "partly_failed": ("Partly failed", "part"),
    "unknown": ("Not known yet", "unknown"),
    "in_progress": ("In progress", "wait"),
    "all_written": ("All written", "good"),
    "nothing_to_write": ("Nothing to write", "calm"),
}
"""Title and tone of each outcome, those that need somebody first."""

STATES: dict[str, str] = {
    "failed": "Finished, with failures",
    "completed": "Finished",
    "started": "Not finished",
}
ITEM_TONES: dict[str, Tone] = {
    "completed": "good",
    "failed": "bad",
    "pending": "wait",
    "other": "unknown",
}
ITEM_NOW: dict[str, str] = {
    "completed": "In the books",
    "failed": "Not in the books",
    "pending": "Still pending",
    "other": "Not known",
}
READINGS: dict[str, tuple[str, Tone]] = {
    "unreadable": ("Unreadable", "bad"),
    "unknown": ("Unknown type", "unknown"),
    "ok": ("Understood", "calm"),
}
TRANSACTION_TOLD: dict[str, str] = {
    "completed": "Codat says that its newest sync wrote all of it.",
    "failed": "Its newest sync failed to write it.",
    "pending": "Its newest sync has not finished with it.",
    "other": "Codat gave a status for it that this service does not know.",
}
WHO: dict[str, str] = {
    "customer": "The customer",
    "us": "We",
    "accounting_software": "The accounting software",
    "codat": "Codat",
}
"""Who must act on a cause."""

SEND_AGAIN: dict[str, str] = {
    "helps": "can help as it is",
    "after_next_step": "helps after the next step",
    "never_helps": "never helps",
}
"""Whether sending the same again can help."""

ITEM_STATUSES = ("Completed", "Pending", "PushError", "ValidationError", "Failed")
STEPS: dict[str, str] = {
    "delivery": "Webhook",
    "duplicate": "Webhook again",
    "fetch": "Asked Codat",
    "reconcile": "Compared with Codat",
    "refresh": "Refresh wanted",
    "retry": "Retry wanted",
    "notify": "Told others",
}


_WRAPPED = re.compile(
    r"An error occurred in a downstream service\.\s+Correlation ID:\s*[0-9a-f-]{32,36}\.?\s+"
    r"Message:\s*(\S.*)",
    re.DOTALL | re.IGNORECASE,
)


def outcome_title(outcome: str) -> str:
    """The outcome in two or three words."""
    return OUTCOMES.get(outcome, ("Not known yet", "unknown"))[0]


def outcome_tone(outcome: str) -> str:
    """The outcome's tone; what nobody has words for is never good."""
    return OUTCOMES.get(outcome, ("", "unknown"))[1]


def step_title(kind: str) -> str:
    """A step of the timeline in a word or two."""
    return STEPS.get(kind, kind.replace("_", " ").replace("-", " ").capitalize())


def told(sync: SyncAnswer) -> str:
    """One or two sentences: what happened to this sync, as far as it is known."""
    return {
        "in_progress": _in_progress,
        "all_written": _all_written,
        "nothing_to_write": _nothing_to_write,
        "partly_failed": _partly_failed,
        "failed": _failed,
        "unknown": _unknown,
    }[sync.outcome](sync)


def _in_progress(_sync: SyncAnswer) -> str:
    return (
        "Codat is still working on it, as far as it has told us. "
        "Nothing is known to have failed so far."
    )


def _all_written(sync: SyncAnswer) -> str:
    items = counted(sync.transactions.total or 0, "item")
    return (
        "Everything reached the accounting software: "
        f"Codat's status and its whole list of {items} say so."
    )


def _nothing_to_write(_sync: SyncAnswer) -> str:
    return "It finished well, and there was nothing to write."


def _partly_failed(sync: SyncAnswer) -> str:
    counts = sync.transactions
    return (
        f"{counts.failed} of {counted(counts.total or 0, 'item')} did not reach the accounting "
        f"software; {counts.completed} did. Each failed one is below with Codat's message."
    )


def _failed(sync: SyncAnswer) -> str:
    counts = sync.transactions
    if counts.failed:
        return (
            f"{counts.failed} of {counted(counts.total or 0, 'item')} failed, and none is known to "
            "have reached the accounting software. Each one is below with Codat's message."
        )
    stage = f" at the stage “{sync.failure_stage}”" if sync.failure_stage else ""
    if counts.failed is None:
        return (
            f"The sync failed{stage}. Which of its items did not reach the accounting software is "
            "not known yet, and none is known to have reached it."
        )
    return (
        f"The sync failed as a whole{stage}. "
        "No item is known to have reached the accounting software."
    )


def _unknown(sync: SyncAnswer) -> str:
    if sync.state == "started":
        return "Codat gave a status that this service does not know. It may still be running."
    return (
        "It finished, but it is not proved yet that everything was written: "
        "Codat's own status and whole list must say so first. Do not take it for a success."
    )


def counted(number: int, noun: str) -> str:
    """`1 item`, `1,204 items`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def several(number: int, one: str, more: str) -> str:
    """`1 company`, `1,204 companies`."""
    return f"{number:,} {one if number == 1 else more}"


def moment(at: datetime) -> str:
    """A UTC time as people read it."""
    return f"{at.day} {at:%b %Y, %H:%M:%S} UTC"


def plain(message: str) -> str:
    """What the accounting software said, without Codat's wrapping; else the message as it is."""
    found = _WRAPPED.match(message)
    return found[1] if found else message


def brief(at: datetime) -> str:
    """A UTC time as it fits a table."""
    return f"{at.day} {at:%b %Y, %H:%M}"


def cause_title(key: str) -> str:
    """A cause's own name as words."""
    return key.replace("_", " ").replace("-", " ").capitalize()


def lasted(start: datetime | None, end: datetime | None) -> str | None:
    """How long it took; None while an end is not known, or the two clocks disagree."""
    if not start or not end or end < start:
        return None
    seconds = int((end - start).total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def row_tone(item: Row) -> Tone:
    """The tone of one row by what Codat says of it; an unknown status is never good."""
    status = (item.status or "").strip().lower()
    if item.failed:
        return "bad"
    return ITEM_TONES.get(status, "unknown") if status in ("completed", "pending") else "unknown"


def outcome_options() -> list[tuple[str, str]]:
    """What the outcome can be filtered by."""
    return [(name, title) for name, (title, _) in OUTCOMES.items()]


def code_options(chosen: Sequence[int]) -> list[tuple[int, str]]:
    """The known status codes, and those that are chosen already."""
    codes = sorted({*STATUS_TEXTS, *chosen})
    return [(code, f"{code} {status_text(code)}") for code in codes]


def status_options(chosen: Sequence[str]) -> list[tuple[str, str]]:
    """The item statuses Codat is known to give, and those that are chosen already."""
    known = {status.lower(): status for status in (*ITEM_STATUSES, *chosen)}
    return list((known | {status.lower(): status for status in ITEM_STATUSES}).items())
