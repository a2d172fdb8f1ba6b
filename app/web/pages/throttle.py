"""How often somebody may try to sign in: some failures, then a rest. Kept by one process.

Of several that serve one address each allows its part, and room for a slip of the hand.

Behind a proxy that uvicorn does not trust (`FORWARDED_ALLOW_IPS`) all people share its address.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from threading import Lock

FAILURES = 8
FEWEST_FAILURES = 3
FORGIVEN_AFTER_S = 300.0
MOST_ADDRESSES = 10_000


@dataclass
class Throttle:
    """How often an address may be wrong. Memory is bounded by `MOST_ADDRESSES`."""

    ticks: Callable[[], float]
    failures: int = FAILURES
    _failed: dict[str, deque[float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def wait(self, address: str) -> int:
        """For how many seconds the address must not try; 0 when it may."""
        with self._lock:
            failed = self._failed.get(address)
            if failed is None or len(failed) < self.failures:
                return 0
            return max(0, ceil(failed[0] + FORGIVEN_AFTER_S - self.ticks()))

    def failed(self, address: str) -> None:
        """Note a failed attempt; the addresses heard of longest ago are forgotten first."""
        with self._lock:
            noted = self._failed.pop(address, deque(maxlen=self.failures))
            noted.append(self.ticks())
            self._failed[address] = noted
            while len(self._failed) > MOST_ADDRESSES:
                del self._failed[next(iter(self._failed))]

    def forgive(self, address: str) -> None:
        """Forget what an address did; it has proved itself."""
        with self._lock:
            self._failed.pop(address, None)
