"""What the door counts, and shows at `/metrics`: deliveries by their fate and by their secret.

The processes that serve one address count as one. Each has a row of memory that all share and only
it writes; who takes the place of one that died goes on with its row. prometheus_client's own way
needs a folder of files, and once a cleaner has removed that, a delivery could not be answered.
"""

import mmap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.codat.webhooks.signature import REFUSALS

FATES = (
    *("new", "duplicate", "not_kept", "hung_up", "too_large", "too_slow"),
    *(f"refused_{slug}" for slug in REFUSALS),
)
_PLACE = {fate: place for place, fate in enumerate(FATES)}
_NUMBER = 8  # bytes


def _place_of(secret: int) -> int:
    """Where it says how often a secret matched; right after it, when it did so last."""
    return len(FATES) + 2 * secret


class Counted:
    """The numbers of all processes. Make it before they part; each says then which it is."""

    def __init__(self, secrets: int, registry: CollectorRegistry, processes: int = 1) -> None:
        """For so many secrets; `registry` shows the numbers."""
        self._secrets = secrets
        size = _place_of(secrets)
        memory = memoryview(mmap.mmap(-1, size * processes * _NUMBER)).cast("d")
        self._rows = [memory[n * size : (n + 1) * size] for n in range(processes)]
        self._mine = self._rows[0]
        registry.register(self)

    def begin(self, process: int) -> None:
        """From now on count as this one of the processes, from 0."""
        self._mine = self._rows[process]

    def delivery(self, fate: str) -> None:
        """A delivery met one of FATES."""
        self._mine[_PLACE[fate]] += 1

    def match(self, secret: int, at: datetime) -> None:
        """A delivery matched the secret at this place of the setting."""
        place = _place_of(secret)
        self._mine[place] += 1
        self._mine[place + 1] = at.timestamp()

    def last_used(self) -> list[datetime | None]:
        """When a delivery last matched each secret, in their order; None is not since the start."""
        return [datetime.fromtimestamp(at, UTC) if at else None for at in self._each_last()]

    def collect(self) -> Iterator[Metric]:
        """The numbers as Prometheus reads them (prometheus_client, "Custom Collectors")."""
        fates = CounterMetricFamily(
            "webhook_deliveries", "Deliveries by their fate.", labels=["fate"]
        )
        used = CounterMetricFamily(
            "webhook_secret_used", "Deliveries by the secret that matched.", labels=["index"]
        )
        last = GaugeMetricFamily(
            "webhook_secret_last_used_timestamp_seconds",
            "When a delivery last matched the secret at this place; 0 is not since the start.",
            labels=["index"],
        )
        for fate, place in _PLACE.items():
            fates.add_metric([fate], self._all(place, sum))
        for index, at in enumerate(self._each_last()):
            used.add_metric([str(index)], self._all(_place_of(index), sum))
            last.add_metric([str(index)], at)
        yield from (fates, used, last)

    def _each_last(self) -> list[float]:
        return [self._all(_place_of(index) + 1, max) for index in range(self._secrets)]

    def _all(self, place: int, how: Callable[[list[float]], float]) -> float:
        return how([row[place] for row in self._rows])
