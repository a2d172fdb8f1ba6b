"""Codat's sync status codes: their text, and the phase of a sync each one means.

Source: the sync status code table of Codat's "Sync transactions" page. Codat types the code as a
plain integer, so an unknown one is classed by its thousands and never refused.
"""

from typing import Literal

Phase = Literal["running", "completed", "failed"]

STATUS_TEXTS: dict[int, str] = {
    1000: "In progress",
    1010: "In progress (Long running - over ten minutes)",
    2000: "Success (Data written)",
    2040: "Success (No data written)",
    4000: "Configuration error",
    4040: "Company deleted/de-authorized",
    4220: "Company deleted/de-authorized",
    4260: "Accounting software billing expiry",
    5000: "Generic server error",
    5080: "Duplication protection",
    5120: "Data processing error",
    5130: "Data write error",
}

NOTHING_WRITTEN = 2040

_PHASES: dict[int, Phase] = {1: "running", 2: "completed", 4: "failed", 5: "failed"}
_CLASS_TEXTS: dict[Phase, str] = {
    "running": "In progress",
    "completed": "Success",
    "failed": "Failed",
}


def phase_of(status_code: int | None) -> Phase | None:
    """The phase a status code means, by its thousands; None where it means nothing to us."""
    return None if status_code is None else _PHASES.get(status_code // 1000)


def status_text(status_code: int | None) -> str | None:
    """The table's text; for an unknown code its class and the code; None without a code."""
    if status_code is None:
        return None
    known = STATUS_TEXTS.get(status_code)
    if known:
        return known
    phase = phase_of(status_code)
    return f"{_CLASS_TEXTS[phase] if phase else 'Unknown status'} (code {status_code})"


def seen_stage(state: str, told: str | None) -> str | None:
    """The stage at which a sync failed, while it counts as failed: Codat may withdraw that."""
    return told if state == "failed" else None
