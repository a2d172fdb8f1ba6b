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

NO_DATA_WRITTEN = 2040

_PHASES: dict[int, Phase] = {1: "running", 2: "completed", 4: "failed", 5: "failed"}
_PHASE_TEXTS = {"running": "In progress", "completed": "Success", "failed": "Failed"}


def phase_of(status_code: int | None) -> Phase | None:
    """The phase a status code means, by its thousands; None for an unknown code."""
    return None if status_code is None else _PHASES.get(status_code // 1000)


def status_text(status_code: int | None) -> str | None:
    """The table's text; for an unknown code its class and the code; None without a code."""
    if status_code is None:
        return None
    phase_text = _PHASE_TEXTS.get(phase_of(status_code) or "", "Unknown status")
    return STATUS_TEXTS.get(status_code, f"{phase_text} (code {status_code})")


def visible_failure_stage(state: str, failure_stage: str | None) -> str | None:
    """The stage at which a sync failed, while it counts as failed: Codat may withdraw that."""
    return failure_stage if state == "failed" else None
