"""What the pages of a sync, a company and a transaction say where little or nothing is known."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.rules.sync import Heard
from tests.web.shelf import Shelf, after
from tests.web.test_pages import read

UNREAD: dict[str, Any] = {"items_from": "webhook", "items_complete": False, "fetched_at": None}


@pytest.mark.parametrize(
    ("fetch", "more"),
    [
        ({"due": after(hours=4)}, {"code": None, "heard": Heard.FAILED, "unsettled": Heard.FAILED}),
        ({"state": "dead", "attempts": 3}, {}),
        ({"due": after(hours=4)}, {"items_from": "codat", "expected": 9}),
    ],
    ids=["waiting", "given up", "incomplete"],
)
def test_an_empty_list_that_codat_was_not_asked_for_is_not_taken_for_the_truth(
    shelf: Shelf, reader: TestClient, fetch: dict[str, Any], more: dict[str, Any]
) -> None:
    """A webhook with `transactions: []` proves nothing: not on the page, not in a table."""
    shelf.company("c1", "Toft stores")
    shelf.fetch(shelf.failed(**{"items": (), **UNREAD, "expected": None, **more}), **fetch)
    told = read(reader, "/syncs/s1")
    assert "Which of its items did not reach the accounting software is not known yet" in told
    assert "Items failed not known yet" in told
    assert "Items written not known yet" in told
    assert "Nothing can be retried yet: which items failed is not known." in told
    assert "The items are not known yet." in told
    for path in ("/syncs/s1", "/", "/companies/c1"):
        assert " 0 of 0" not in read(reader, path)
    assert "failed as a whole" not in told
