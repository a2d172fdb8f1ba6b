"""The chart: each sync is in exactly one bar, and bars stay in their box."""

from collections import Counter
from datetime import date, timedelta

import pytest

from app.web.pages.chart import HEIGHT, MAX_BARS, WIDTH, Chart, draw, round_up

FIRST = date(2026, 1, 1)


def total(chart: Chart) -> int:
    return sum(bar.counts.total() for bar in chart.bars)


@pytest.mark.parametrize("days", [2, 30, 62, 63, 365, 4000])
def test_each_sync_of_the_period_is_in_one_bar(days: int) -> None:
    dates = [FIRST + timedelta(days=n) for n in range(days)]
    by_day = {str(day): Counter(failed=day.day % 3, all_written=1) for day in dates}
    chart = draw(by_day, dates[-1])
    assert chart is not None
    assert total(chart) == sum(counts.total() for counts in by_day.values())
    assert len(chart.bars) <= MAX_BARS
    assert (chart.bars[0].first, chart.bars[-1].last) == (FIRST, dates[-1])


def test_bars_stay_in_their_box_and_are_as_high_as_their_numbers() -> None:
    by_day = {str(FIRST): Counter(failed=3, all_written=4), "2026-01-02": Counter(unknown=1)}
    chart = draw(by_day, date(2026, 1, 3))
    assert chart is not None
    assert chart.outcomes == ["failed", "unknown", "all_written"]
    assert [bar.failed_share for bar in chart.bars] == [43, 0, 0]
    assert chart.top == 8
    heights = {part.outcome: part.height for part in chart.bars[0].segments}
    assert heights == {"all_written": HEIGHT * 4 / 8, "failed": HEIGHT * 3 / 8}
    for segment in [segment for bar in chart.bars for segment in bar.segments]:
        assert 0 <= segment.x <= segment.x + segment.width <= WIDTH
        assert 0 <= segment.y <= segment.y + segment.height <= HEIGHT


def test_a_chart_begins_with_the_first_sync_and_needs_two_days() -> None:
    """One bar says nothing. No sync after the period is lost."""
    assert draw({}, FIRST) is None
    assert draw({"2026-01-01": Counter(failed=9)}, FIRST) is None
    chart = draw({"2026-01-05": Counter(failed=1), "2026-01-03": Counter(failed=1)}, FIRST)
    assert chart is not None
    assert (chart.bars[0].first, chart.bars[-1].last) == (date(2026, 1, 3), date(2026, 1, 5))
    assert total(chart) == 2


@pytest.mark.parametrize(("number", "top"), [(0, 2), (2, 2), (3, 4), (9, 10), (41, 60), (101, 200)])
def test_the_top_of_the_chart_is_a_round_number(number: int, top: int) -> None:
    assert round_up(number) == top
