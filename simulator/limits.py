"""Codat's rate limits (docs.codat.io/using-the-api/rate-limits) and counters of the API calls."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from simulator.clock import format_time, wall_time


def _next_midnight() -> datetime:
    today = wall_time().replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1)


class DailyQuota:
    """The calls that are left until 00:00 UTC in real time."""

    def __init__(self, limit: Callable[[], int]) -> None:
        """`limit` returns the calls per day, which grow with the connected companies."""
        self.limit = limit
        self._used = 0
        self._exhausted = False
        self.reset_at = _next_midnight()

    @property
    def remaining(self) -> int:
        """Calls left, at least 0."""
        if wall_time() >= self.reset_at:
            self.reset()
        return 0 if self._exhausted else max(0, self.limit() - self._used)

    def spend(self) -> bool:
        """Count one call; False when none was left."""
        if self.remaining == 0:
            return False
        self._used += 1
        return True

    def exhaust(self) -> None:
        """Use up all calls until the reset."""
        self._exhausted = True

    def reset(self) -> None:
        """Start a new quota."""
        self._used = 0
        self._exhausted = False
        self.reset_at = _next_midnight()

    def headers(self) -> dict[str, str]:
        """Return the three X-Rate-Limit headers of every response; the reset as an ISO date."""
        return {
            "X-Rate-Limit-Limit": str(self.limit()),
            "X-Rate-Limit-Remaining": str(self.remaining),
            "X-Rate-Limit-Reset": format_time(self.reset_at),
        }

    def retry_after(self) -> str:
        """Return the seconds until the reset, at least 1, for the Retry-After header."""
        return str(max(1, ceil((self.reset_at - wall_time()).total_seconds())))


class CallCounters:
    """Counts API calls by kind, concurrent calls by company, and calls within 60 real seconds."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self._peaks: Counter[str] = Counter()
        self._minute_peak = 0
        self._recent: deque[float] = deque()

    @contextmanager
    def count(self, kind: str, company_id: str) -> Iterator[None]:
        """Count one call while it is in flight; `company_id` is "" for calls without a company."""
        self.calls[kind] += 1
        self._recent.append(time.monotonic())
        self._minute_peak = max(self._minute_peak, self.last_minute())
        self.in_flight[company_id] += 1
        self._peaks[company_id] = max(self._peaks[company_id], self.in_flight[company_id])
        try:
            yield
        finally:
            self.in_flight[company_id] -= 1

    def last_minute(self) -> int:
        """Count the calls within the last 60 real seconds."""
        horizon = time.monotonic() - 60
        while self._recent and self._recent[0] <= horizon:
            self._recent.popleft()
        return len(self._recent)

    def snapshot(self) -> dict[str, Any]:
        """Return all counters, ready for JSON."""
        return {
            "calls": dict(self.calls),
            "total": self.calls.total(),
            "in_flight": self.in_flight.total(),
            "peak_in_flight_by_company": {k: v for k, v in self._peaks.items() if k},
            "minute_peak": self._minute_peak,
        }
