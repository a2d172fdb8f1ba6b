"""Is it quiet, or are webhooks being lost? And until when can the Portal bring them back?

Judged by Codat's clock: a sync that Codat lists and no webhook told, long after it ended, was lost;
no sync at all is only quiet. Codat retries a delivery for 27 h 35 min, disables an endpoint after
five days of failures, and replays two weeks (Codat docs, "Webhooks: troubleshooting").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal
from urllib.parse import urlsplit

LATE = timedelta(minutes=30)  # a webhook may be that late and is not lost yet
SHORTEST_HABIT = timedelta(hours=1)
MARKS = (
    ("Codat's own retries end", timedelta(hours=27, minutes=35)),
    ("Codat disables the endpoint", timedelta(days=5)),
    ("the Portal's replay no longer reaches back", timedelta(days=14)),
)
OUR_PATH = "/webhooks/codat"
_FAILED = frozenset({"syncfailed", "expensessyncunsuccessful"})
_COMPLETED = frozenset({"synccompleted", "synccomplete", "expensessyncsuccessful"})

Cause = Literal["webhooks_lost", "endpoint_missing", "endpoint_disabled", "event_types_missing"]


@dataclass(frozen=True, slots=True)
class Heard:
    """One finished sync: when it happened by Codat's clock, and whether a webhook told it."""

    at: datetime
    told: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that somebody must look at. One is open per cause and company at a time."""

    cause: Cause | str
    company_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint as Codat knows it."""

    url: str
    disabled: bool
    event_types: tuple[str, ...]


def habit(told: Sequence[datetime]) -> timedelta:
    """How long a company is usually silent: three times its middle gap, at least an hour."""
    ordered = sorted(told)
    gaps = sorted(later - earlier for earlier, later in pairwise(ordered))
    return max(SHORTEST_HABIT, 3 * gaps[len(gaps) // 2]) if gaps else SHORTEST_HABIT


def lost_webhooks(company_id: str, recent: Sequence[Heard], now: datetime) -> Finding | None:
    """A finding when webhooks of this company are being lost now; None when it is just quiet.

    Lost means: syncs that ended over half an hour ago were told by nobody, and since the last one
    that was told the company has been silent for longer than is its habit.
    """
    told = [each.at for each in recent if each.told]
    last = max(told, default=None)
    lost = sorted(each.at for each in recent if not each.told and (last is None or each.at > last))
    if not lost or lost[0] > now - LATE:
        return None
    if last is not None and now - last <= habit(told):
        return None
    since = last or lost[0]
    number = f"{len(lost)} sync{'s' if len(lost) > 1 else ''}"
    return Finding(
        "webhooks_lost",
        company_id,
        f"no webhook since {_said(since)}, while Codat lists {number} that nobody told; "
        f"replay from {_said(since)} in the Portal: {next_mark(since, now)}",
    )


def next_mark(since: datetime, now: datetime) -> str:
    """The next of Codat's three limits for a gap that began at `since`, in words."""
    for what, after in MARKS:
        if now < since + after:
            return f"{what} at {_said(since + after)}"
    return "too late for a replay; reconciliation has what Codat's API still lists"


def _path(url: str) -> str:
    """Empty for an address that is none: what Codat lists there is not checked by anybody."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def endpoint_findings(endpoints: Sequence[Endpoint]) -> list[Finding]:
    """What is wrong with our endpoints at Codat: missing, disabled, or deaf to an outcome."""
    ours = [each for each in endpoints if _path(each.url).rstrip("/").endswith(OUR_PATH)]
    if not ours:
        return [Finding("endpoint_missing", "", f"Codat has no endpoint that ends in {OUR_PATH}")]
    found = [
        Finding("endpoint_disabled", "", f"Codat has disabled {each.url}: enable it and replay")
        for each in ours
        if each.disabled
    ][:1]
    return found + _deaf([each for each in ours if not each.disabled])


def _deaf(listening: Sequence[Endpoint]) -> list[Finding]:
    if not listening or any(not each.event_types for each in listening):
        return []
    names = {_fold(name) for each in listening for name in each.event_types}
    missing = [what for what, known in (("failed", _FAILED), ("completed", _COMPLETED))
               if not names & known]  # fmt: skip
    if not missing:
        return []
    told = f"our endpoints do not listen to syncs that {' or '.join(missing)}"
    return [Finding("event_types_missing", "", told)]


def _fold(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _said(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
