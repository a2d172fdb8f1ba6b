"""A chart of syncs by day as shapes: rectangles in a box, for an SVG without a style of its own.

A bar is one day, or several where there are too many days for one each.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

WIDTH = 1000
HEIGHT = 160
MOST_BARS = 62
LONGEST_DAYS = 400
GAP = 0.22

# From the bottom to the top of a bar.
STACK = (
    "all_written",
    "nothing_to_write",
    "in_progress",
    "unknown",
    "partly_failed",
    "failed",
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One rectangle: so many syncs of one outcome."""

    outcome: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """The syncs of a day, or of several; both days are inclusive."""

    first: date
    last: date
    counts: Counter[str]
    x: float
    width: float
    pieces: tuple[Piece, ...]

    @property
    def total(self) -> int:
        """How many syncs it stands for."""
        return self.counts.total()


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars from the oldest to the newest, and what the top of the box stands for."""

    bars: tuple[Bar, ...]
    top: int
    days_per_bar: int

    @property
    def total(self) -> int:
        """How many syncs are shown."""
        return sum(bar.total for bar in self.bars)


def draw(by_day: Mapping[str, Counter[str]], first: date, last: date) -> Chart:
    """The chart of the days from `first` to `last`; a long empty beginning is left out."""
    told = {date.fromisoformat(day): counts for day, counts in by_day.items()}
    last = max([last, *told])
    if (last - first).days > LONGEST_DAYS:
        first = max(first, min(told, default=last - timedelta(days=MOST_BARS - 1)))
    days_per_bar = -(-((last - first).days + 1) // MOST_BARS)
    groups = _groups(told, first, last, days_per_bar)
    top = nice_top(max((counts.total() for _, counts in groups), default=0))
    bars = tuple(
        _bar(place, len(groups), start, min(last, _end(start, days_per_bar)), counts, top)
        for place, (start, counts) in enumerate(groups)
    )
    return Chart(bars, top, days_per_bar)


def _end(start: date, days: int) -> date:
    return start + timedelta(days=days - 1)


def _groups(
    told: Mapping[date, Counter[str]], first: date, last: date, days: int
) -> list[tuple[date, Counter[str]]]:
    count = max(1, -(-((last - first).days + 1) // days))
    groups = [(first + timedelta(days=days * n), Counter[str]()) for n in range(count)]
    for day, counts in told.items():
        place = (day - first).days // days
        if 0 <= place < count:
            groups[place][1].update(counts)
    return groups


def nice_top(most: int) -> int:
    """The smallest of 2, 4, 6, 8, 10, 20, 40 … that is not less: its half is a whole number."""
    scale = 1
    while True:
        for step in (2, 4, 6, 8, 10):
            if step * scale >= most:
                return step * scale
        scale *= 10


def _bar(place: int, count: int, first: date, last: date, counts: Counter[str], top: int) -> Bar:
    slot = WIDTH / count
    x, width = slot * (place + GAP / 2), slot * (1 - GAP)
    pieces, y = [], float(HEIGHT)
    for outcome in STACK:
        if counts[outcome]:
            height = HEIGHT * counts[outcome] / top
            y -= height
            pieces.append(Piece(outcome, _r(x), _r(y), _r(width), _r(height)))
    return Bar(first, last, counts, _r(slot * place), _r(slot), tuple(pieces))


def _r(value: float) -> float:
    return round(value, 2)
