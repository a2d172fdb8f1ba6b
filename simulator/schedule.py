"""When a failed delivery is tried again (docs.codat.io/using-the-api/webhooks/troubleshooting)."""

import random
from email.utils import parsedate_to_datetime

GAPS = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
JITTER = 0.2
SLOW_DOWN = 60.0


def gap_before(
    attempt: int, rng: random.Random, status: int | None = None, retry_after: float | None = None
) -> float | None:
    """Simulated seconds before attempt number `attempt` (1 to 8), or None when there is none left.

    Jitter of a fifth either way. After a time-out (`status` 0) or our 429 at least a minute; the
    receiver's Retry-After counts between once and twice the scheduled gap, as svix does it.
    """
    if attempt > len(GAPS):
        return None
    planned = GAPS[attempt - 1]
    gap = planned * rng.uniform(1 - JITTER, 1 + JITTER)
    if status in (0, 429):
        planned = max(planned, SLOW_DOWN)
        gap = max(gap, SLOW_DOWN)
    if retry_after is not None:
        gap = max(gap, min(max(retry_after, planned), 2 * planned))
    return gap


def retry_after_seconds(value: str | None, now: float) -> float | None:
    """A Retry-After header as seconds from `now` (Unix time); None when absent or unreadable."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError):
        return None
