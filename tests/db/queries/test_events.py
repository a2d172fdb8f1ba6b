"""Webhook events and timelines."""

import pytest

from app.db.queries import access_paths, events
from app.domain.models import ParseStatus
from tests.web.store import Store


@pytest.fixture
def webhooks(store: Store) -> Store:
    """One of each kind; m5 is pending."""
    store.event("m1")
    store.event("m2", parse_status="unknown")
    store.event("m3", parse_status="unreadable")
    store.event("m4", projection_error="it failed")
    store.event("m5", parse_status=None, processed_at=None)
    return store


@pytest.mark.parametrize(
    ("parse_status", "found"),
    [
        (None, ["m5", "m4", "m3", "m2", "m1"]),
        ("ok", ["m4", "m1"]),
        ("unknown", ["m2"]),
        ("unreadable", ["m3"]),
    ],
)
def test_events_are_listed_newest_first(
    webhooks: Store, parse_status: ParseStatus | None, found: list[str]
) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        with webhooks.database.reading() as connection:
            page = events.list_events(connection, parse_status=parse_status, cursor=cursor, limit=2)
        seen += [event.message_id for event in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == found


@pytest.mark.parametrize("few", [access_paths.FEW, -1])
def test_events_that_need_a_review_include_those_that_could_not_be_applied(
    webhooks: Store, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Whether they are few or many."""
    monkeypatch.setattr(access_paths, "FEW", few)
    with webhooks.database.reading() as connection:
        page = events.list_events(connection, needs_review=True)
    assert [event.message_id for event in page.items] == ["m4", "m3", "m2"]
