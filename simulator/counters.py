"""What the receiver did to us: calls by kind, calls at a closed gate, how many at once."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Counters:
    """Counts API calls; the gate's limits read the live numbers."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """All zero."""
        self._monotonic = monotonic
        self._recent: deque[float] = deque()
        self.in_flight: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Back to zero; calls in flight stay in flight."""
        self.calls: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.while_closed = 0
        self.minute_peak = 0
        self.total_peak = 0
        self.peaks: Counter[str] = Counter()
        self._recent.clear()

    @contextmanager
    def call(self, kind: str, company_id: str) -> Iterator[None]:
        """Count one call from its arrival to its end; no company is the empty text."""
        self.calls[kind] += 1
        self._recent.append(self._monotonic())
        self.minute_peak = max(self.minute_peak, self.last_minute())
        self.in_flight[company_id] += 1
        self.peaks[company_id] = max(self.peaks[company_id], self.in_flight[company_id])
        self.total_peak = max(self.total_peak, self.in_flight.total())
        try:
            yield
        finally:
            self.in_flight[company_id] -= 1

    def last_minute(self) -> int:
        """Calls within the last 60 real seconds."""
        horizon = self._monotonic() - 60
        while self._recent and self._recent[0] <= horizon:
            self._recent.popleft()
        return len(self._recent)

    def snapshot(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return {
            "calls": dict(self.calls),
            "total": self.calls.total(),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "faults": dict(self.faults),
            "while_quota_closed": self.while_closed,
            "in_flight": self.in_flight.total(),
            "peak_in_flight": self.total_peak,
            "peak_in_flight_by_company": {k: v for k, v in self.peaks.items() if k},
            "last_minute": self.last_minute(),
            "minute_peak": self.minute_peak,
        }
