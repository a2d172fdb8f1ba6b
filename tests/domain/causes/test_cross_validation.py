"""The rules describe kinds of failures: they recognize messages that nobody wrote them from."""

import re
from functools import cache
from pathlib import Path

import pytest

from bench.causes import HEADER, OTHERS, TOTAL, UNSEEN, report

DOCUMENT = Path(__file__).parents[3] / "docs" / "causes.md"
Row = tuple[int, int, int, int]


@cache
def rows() -> dict[str, Row]:
    """The numbers of the table by platform: messages, right, missed, and wrong in percent."""
    cells = [re.findall(r"[^|%]+", line) for line in report().splitlines()[2:]]
    numbers = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    return {row[0]: (int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in numbers}


def test_most_messages_of_a_platform_are_recognized_without_its_own_patterns() -> None:
    """A wrong cause is rare, even though the exceptions of the platform are left out too."""
    platforms = rows().keys() - {OTHERS, TOTAL, UNSEEN}
    assert len(platforms) >= 10
    for platform in platforms:
        _, right, _, wrong = rows()[platform]
        assert right >= 55, platform
        assert wrong <= 10, platform
    total, right, _, wrong = rows()[TOTAL]
    assert total >= 1500
    assert right >= 75
    assert wrong <= 4


def test_messages_that_no_rule_was_written_from_are_recognized() -> None:
    """If a rule is written from one of them, it has to move to gathered.json."""
    total, right, _, wrong = rows()[UNSEEN]
    assert total >= 70
    assert right >= 75
    assert wrong <= 4


def test_documented_table_is_current() -> None:
    """If not: replace the table of docs/causes.md with the output of `python -m bench.causes`."""
    if report() not in DOCUMENT.read_text():
        pytest.fail(f"docs/causes.md is outdated; run python -m bench.causes\n{HEADER}")
