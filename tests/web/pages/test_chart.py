"""The chart: every sync is in exactly one bar, and bars never leave the box."""

from collections import Counter
from datetime import date, timedelta

import pytest

from app.web.pages.chart import HEIGHT, LONGEST_DAYS, MOST_BARS, WIDTH, draw, nice_top

FIRST = date(2026, 1, 1)


@pytest.mark.parametrize("days", [1, 30, 62, 63, 365, LONGEST_DAYS])
def test_every_sync_of_the_range_is_in_one_bar(days: int) -> None:
    """However many days a bar stands for."""
    told = {
        str(FIRST + timedelta(days=n)): Counter(failed=n % 3, all_written=1) for n in range(days)
    }
    chart = draw(told, FIRST, FIRST + timedelta(days=days - 1))
    assert chart.total == sum(counts.total() for counts in told.values())
    assert len(chart.bars) <= MOST_BARS
    assert (chart.bars[0].first, chart.bars[-1].last) == (FIRST, FIRST + timedelta(days=days - 1))


def test_bars_stay_in_their_box_and_are_as_high_as_they_count() -> None:
    """The top of the box stands for `top` syncs."""
    told = {str(FIRST): Counter(failed=3, all_written=4), "2026-01-02": Counter(unknown=1)}
    chart = draw(told, FIRST, date(2026, 1, 3))
    assert chart.top == 8
    first = chart.bars[0].pieces
    assert [(piece.outcome, piece.height) for piece in first] == [
        ("all_written", HEIGHT * 4 / 8), ("failed", HEIGHT * 3 / 8),
    ]  # fmt: skip
    for piece in [piece for bar in chart.bars for piece in bar.pieces]:
        assert 0 <= piece.x <= piece.x + piece.width <= WIDTH
        assert 0 <= piece.y <= piece.y + piece.height <= HEIGHT


def test_a_long_empty_beginning_is_left_out() -> None:
    """Who asks for everything since the year 1 sees what there is."""
    chart = draw({"2026-01-01": Counter(failed=1)}, date(1, 1, 1), date(2026, 1, 2))
    assert chart.bars[0].first == FIRST
    assert len(draw({}, date(1, 1, 1), FIRST).bars) == MOST_BARS


def test_what_is_dated_after_the_range_is_not_lost() -> None:
    """Codat's clock may be ahead of ours."""
    assert draw({"2026-01-05": Counter(failed=1)}, FIRST, date(2026, 1, 2)).total == 1


@pytest.mark.parametrize(("most", "top"), [(0, 2), (2, 2), (3, 4), (9, 10), (41, 60), (101, 200)])
def test_the_top_of_the_chart_is_a_round_number(most: int, top: int) -> None:
    """And so is its half."""
    assert nice_top(most) == top
