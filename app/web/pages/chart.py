"""The chart of syncs per day, as rectangles for an SVG.

It begins with the first sync. A bar is one day, or several where there are too many days for one
bar each.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil

WIDTH = 1000
HEIGHT = 160
MAX_BARS = 62
MIN_DAYS = 2  # with syncs
GAP = 0.22  # between bars, as a part of their distance
STACK = ("all_written", "nothing_to_write", "in_progress", "unknown", "partly_failed", "failed")
"""The outcomes from the bottom of a bar to its top."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One rectangle: the syncs of one outcome."""

    outcome: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """The syncs from `first` to `last`, both inclusive; `x` and `width` include the gap."""

    first: date
    last: date
    counts: Counter[str]
    x: float
    width: float
    segments: list[Segment]

    @property
    def failed_share(self) -> int:
        """The syncs that failed, as a whole or partly, in percent."""
        failed = self.counts["failed"] + self.counts["partly_failed"]
        return round(100 * failed / self.counts.total()) if failed else 0


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars from the oldest to the newest; `top` is the number of syncs at the upper edge.

    `outcomes` are those that occur.
    """

    bars: list[Bar]
    top: int
    days_per_bar: int
    outcomes: list[str]


def draw(by_day: Mapping[str, Counter[str]], last: date) -> Chart | None:
    """The chart from the first day with syncs to `last`; None if one bar would be all."""
    by_date = {date.fromisoformat(day): counts for day, counts in by_day.items()}
    if len(by_date) < MIN_DAYS:
        return None
    first, last = min(by_date), max([last, *by_date])
    days = (last - first).days + 1
    days_per_bar = ceil(days / MAX_BARS)
    by_bar = [Counter[str]() for _ in range(ceil(days / days_per_bar))]
    for day, counts in by_date.items():
        by_bar[(day - first).days // days_per_bar].update(counts)
    top = round_up(max(counts.total() for counts in by_bar))
    width, bars = WIDTH / len(by_bar), []
    for index, counts in enumerate(by_bar):
        start = first + timedelta(days=index * days_per_bar)
        end = min(last, start + timedelta(days=days_per_bar - 1))
        segments = _stack(counts, top, width * (index + GAP / 2), width * (1 - GAP))
        bars.append(Bar(start, end, counts, round(width * index, 2), round(width, 2), segments))
    outcomes = [name for name in reversed(STACK) if any(counts[name] for counts in by_bar)]
    return Chart(bars, top, days_per_bar, outcomes)


def round_up(number: int) -> int:
    """The smallest of 2, 4, 6, 8, 10, 20, 40 … that is not less: its half is a whole number."""
    scale = 1
    while number > 10 * scale:
        scale *= 10
    return next(step * scale for step in (2, 4, 6, 8, 10) if step * scale >= number)


def _stack(counts: Counter[str], top: int, x: float, width: float) -> list[Segment]:
    segments, y = [], float(HEIGHT)
    for outcome in STACK:
        if counts[outcome]:
            height = HEIGHT * counts[outcome] / top
            y -= height
            box = (round(size, 2) for size in (x, y, width, height))
            segments.append(Segment(outcome, *box))
    return segments
