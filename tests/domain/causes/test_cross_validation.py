"""The rules describe kinds of failures: they recognize messages that nobody wrote them from."""

import re
from pathlib import Path

import pytest

from bench.causes import HEADER, OTHERS, TOTAL, UNSEEN, report

DOCUMENT = Path(__file__).parents[3] / "docs" / "causes.md"
Row = tuple[int, int, int, int]


@pytest.fixture(scope="module")
def table() -> str:
    """The table of the document, worked out again."""
    return report()


def rows(table: str) -> dict[str, Row]:
    """The numbers of the table by platform: messages, right, missed, and wrong in percent."""
    cells = [re.findall(r"[^|%]+", line) for line in table.splitlines()[2:]]
    numbers = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    return {row[0]: (int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in numbers}


def test_unseen_messages_are_recognized_and_the_document_says_how_many(table: str) -> None:
    """Without a platform's own patterns and exceptions, and with messages of no rule.

    If a rule is written from an unseen message, the message has to move to gathered.json. If the
    document is outdated, put the output of `python -m bench.causes` into it.
    """
    numbers = rows(table)
    platforms = numbers.keys() - {OTHERS, TOTAL, UNSEEN}
    assert len(platforms) >= 10
    for platform in platforms:
        _, right, _, wrong = numbers[platform]
        assert right >= 55, platform
        assert wrong <= 10, platform
    for name, at_least in (TOTAL, 1500), (UNSEEN, 70):
        total, right, _, wrong = numbers[name]
        assert total >= at_least
        assert right >= 75
        assert wrong <= 4
    if table not in DOCUMENT.read_text():
        pytest.fail(f"docs/causes.md is outdated; run python -m bench.causes\n{HEADER}")
