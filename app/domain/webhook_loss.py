"""Detects lost webhooks, and the deadline by which the Portal can replay them.

By Codat's clock: a sync that Codat lists and no webhook reported, long after it ended, is a
loss; no sync at all is quiet. Codat retries a delivery for 27 h 35 min, disables an endpoint after
five days of failures, and replays up to two weeks (Codat docs, "Webhooks: troubleshooting").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_DELAY = timedelta(minutes=30)  # a webhook may be this late without being lost
SHORTEST_GAP = timedelta(hours=1)
REPLAY_DEADLINES = (
    ("Codat's own retries end", timedelta(hours=27, minutes=35)),
    ("Codat disables the endpoint", timedelta(days=5)),
    ("the Portal can no longer replay from then", timedelta(days=14)),
)
WEBHOOK_PATH = "/webhooks/codat"
_FAILED = frozenset({"syncfailed", "expensessyncunsuccessful"})
_COMPLETED = frozenset({"synccompleted", "synccomplete", "expensessyncsuccessful"})

AlertCause = Literal[
    "webhooks_lost", "endpoint_missing", "endpoint_disabled", "event_types_missing"
]


@dataclass(frozen=True, slots=True)
class FinishedSync:
    """When a sync happened, by Codat's clock, and whether a webhook reported it."""

    at: datetime
    was_reported: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that needs attention. One alert is open per cause and company at a time.

    `company_id` is empty for a finding that is about no company.
    """

    cause: AlertCause | str
    company_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint as configured at Codat. No event types means all of them."""

    url: str
    disabled: bool
    event_types: tuple[str, ...]


def usual_gap(reported: Sequence[datetime]) -> timedelta:
    """How long a company is usually quiet: three times its median gap, at least an hour."""
    ordered = sorted(reported)
    gaps = sorted(later - earlier for earlier, later in pairwise(ordered))
    return max(SHORTEST_GAP, 3 * gaps[len(gaps) // 2]) if gaps else SHORTEST_GAP


def find_lost_webhooks(
    company_id: str, recent: Sequence[FinishedSync], now: datetime
) -> Finding | None:
    """A finding when webhooks of this company are being lost now; None when it is just quiet.

    Lost means: syncs that ended more than `MAX_DELAY` ago were never reported, and the company has
    been quiet for longer than usual since its last reported sync.
    """
    reported = [sync.at for sync in recent if sync.was_reported]
    last = max(reported, default=None)
    lost = sorted(
        sync.at for sync in recent if not sync.was_reported and (last is None or sync.at > last)
    )
    is_late = bool(lost) and lost[0] <= now - MAX_DELAY
    if not is_late or (last is not None and now - last <= usual_gap(reported)):
        return None
    since = last or lost[0]
    number = f"{len(lost)} newer sync{'s' if len(lost) > 1 else ''}"
    text = (
        f"No webhooks since {_format(since)}, but Codat lists {number}. "
        f"Replay from {_format(since)} in the Codat Portal: {next_deadline(since, now)}."
    )
    return Finding("webhooks_lost", company_id, text)


def next_deadline(since: datetime, now: datetime) -> str:
    """The next of Codat's three limits for a gap that began at `since`, as text."""
    for event, after in REPLAY_DEADLINES:
        if now < since + after:
            return f"{event} at {_format(since + after)}"
    return "it is too late for a replay; reconciliation adds what Codat's API still lists"


def endpoint_url(public_url: str | None, root_path: str) -> str | None:
    """The address of our endpoint; None where PUBLIC_URL, whose path is ROOT_PATH, is not set."""
    return public_url and urljoin(public_url, root_path + WEBHOOK_PATH)


def check_endpoints(endpoints: Sequence[Endpoint], webhook_url: str | None) -> list[Finding]:
    """What is wrong with our endpoints at Codat: missing, disabled, or not fully subscribed.

    Ours are those with exactly the address `webhook_url`; where it is unknown, those that end in
    WEBHOOK_PATH.
    """
    ours = [endpoint for endpoint in endpoints if is_ours(endpoint.url, webhook_url)]
    if not ours:
        expected = (
            f"with the address {webhook_url}" if webhook_url else f"that ends in {WEBHOOK_PATH}"
        )
        return [Finding("endpoint_missing", "", f"Codat has no webhook endpoint {expected}")]
    disabled = [endpoint.url for endpoint in ours if endpoint.disabled]
    enabled = [endpoint for endpoint in ours if not endpoint.disabled]
    findings = []
    if disabled:
        text = f"Codat has disabled the endpoint {disabled[0]}"
        findings.append(Finding("endpoint_disabled", "", text))
    if enabled and all(endpoint.event_types for endpoint in enabled):
        subscribed = {_fold(name) for endpoint in enabled for name in endpoint.event_types}
        required = {"sync failed": _FAILED, "sync completed": _COMPLETED}
        missing = [event for event, names in required.items() if not subscribed & names]
        if missing:
            text = f"The Codat endpoint is not subscribed to: {', '.join(missing)}"
            findings.append(Finding("event_types_missing", "", text))
    return findings


def is_ours(url: str, webhook_url: str | None) -> bool:
    """Whether deliveries to an address that Codat lists reach our endpoint."""
    try:
        parts = urlsplit(url)
        path = parts.path.removesuffix("/")
        if webhook_url is None:
            return path.endswith(WEBHOOK_PATH) and "//" not in path
        ours = urlsplit(webhook_url)
        return (_origin(parts), path) == (_origin(ours), ours.path)
    except ValueError:  # Codat lists URLs as they were entered
        return False


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").removesuffix("."), port


def _fold(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _format(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
