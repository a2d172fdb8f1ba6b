"""What several processes count, told as one."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from app.web.metrics import FATES, Counted

T0 = datetime(2026, 1, 1, 9, 0, 0, 123456, UTC)


def test_all_rows_are_told_as_one() -> None:
    """Counts are added up, of times the latest holds; nothing is nothing, and not absent."""
    registry = CollectorRegistry()
    counted = Counted(2, registry, processes=3)
    for process in (0, 2, 2):
        counted.begin(process)
        counted.delivery("new")
        counted.match(1, T0 - timedelta(seconds=process))

    def told(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert told("webhook_deliveries_total", fate="new") == 3
    assert told("webhook_deliveries_total", fate="duplicate") == 0
    assert told("webhook_secret_used_total", index="1") == 3
    assert told("webhook_secret_used_total", index="0") == 0
    assert counted.last_used() == [None, T0]


def test_who_takes_a_place_goes_on_with_its_row() -> None:
    """A counter that fell would look like a start to Prometheus."""
    registry = CollectorRegistry()
    counted = Counted(1, registry, processes=2)
    for _ in range(2):
        counted.begin(1)
        counted.delivery("duplicate")
    assert registry.get_sample_value("webhook_deliveries_total", {"fate": "duplicate"}) == 2


def test_only_known_fates_are_counted() -> None:
    """A new one must be named, or a delivery would be answered and then fail."""
    counted = Counted(1, CollectorRegistry())
    for fate in FATES:
        counted.delivery(fate)
    with pytest.raises(KeyError):
        counted.delivery("unheard of")
