"""ETags and `updated_at` change when a caller can see a difference, and only then."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.db import sync_writer
from app.db.engine import Database
from app.domain.models import Transaction
from app.errors import CodatUnavailable
from tests.factories import COMPLETED, FAILED, STARTED, T0, after, count_rows, deliver, sync_row
from tests.worker.fakes import Clock, FakeCodat, fetch

V1 = "/api/v1"
ROWS = (Transaction("t1", "PushError", "odd words"), Transaction("t2", "Completed"))
RESOURCES = ("syncs/s1", "companies/c1", "companies/c1/syncs/latest", "events/m1")
FAILURES = (
    "causes/unclassified?from=2026-01-01", "syncs/s1/transactions/t1",
    "companies/c1/transactions/t1",
)  # fmt: skip

Look = Callable[[], dict[str, Any]]


@pytest.fixture
def look(client: TestClient) -> Look:
    """The bodies of all resources that exist, by ETag."""

    def read() -> dict[str, Any]:
        answers = [client.get(f"{V1}/{path}") for path in (*RESOURCES, *FAILURES)]
        return {answer.headers["etag"]: answer.json() for answer in answers if answer.is_success}

    return read


def refresh(database: Database) -> None:
    with database.writing() as connection:
        pk = sync_row(database)["id"]
        assert sync_writer.refresh(connection, pk, actor=None, now=T0)


@pytest.mark.parametrize(
    ("event", "code", "rows"),
    [(FAILED, 5130, ROWS), (FAILED, 2000, ()), (STARTED, 1000, ()), (STARTED, 7000, ())],
)
def test_a_refresh_that_finds_nothing_new_changes_nothing(
    database: Database, look: Look, event: str, code: int, rows: tuple[Transaction, ...]
) -> None:
    """Neither while it is queued or running nor afterwards; whether the sync runs or has ended."""
    clock = Clock()
    codat = FakeCodat(code, rows)
    deliver(database, "m1", event_type=event)
    if event == STARTED:
        refresh(database)
    fetch(database, codat, clock=clock)
    before, changes = look(), count_rows(database, "changes")
    assert len(before) >= len(RESOURCES)
    seen = []
    for hour in range(1, 4):
        clock.now = after(hours=hour)
        refresh(database)
        seen.append(look())
        codat.meanwhile = lambda: seen.append(look())
        fetch(database, codat, clock=clock)
        seen.append(look())
    assert all(found == before for found in seen)
    assert count_rows(database, "changes") == changes


@pytest.mark.parametrize(
    "rows",
    [
        (ROWS[0]._replace(message="other words"), ROWS[1]),
        (ROWS[0]._replace(integration_type="expenses"), ROWS[1]),
        ROWS[::-1],
        ROWS[:1],
    ],
)
def test_a_refresh_that_finds_another_list_changes_both(
    database: Database, client: TestClient, rows: tuple[Transaction, ...]
) -> None:
    """Also where the counts stay: the list is as of another time."""
    clock = Clock()
    deliver(database, "m1")
    fetch(database, FakeCodat(5130, ROWS), clock=clock)
    before = client.get(f"{V1}/syncs/s1")
    clock.now = after(hours=1)
    refresh(database)
    fetch(database, FakeCodat(5130, rows), clock=clock)
    now = client.get(f"{V1}/syncs/s1")
    assert now.headers["etag"] != before.headers["etag"]
    assert now.json()["updated_at"] == "2026-01-01T10:00:00Z"


def test_a_refresh_that_fails_shows_until_one_succeeds(database: Database, look: Look) -> None:
    """`updated_at` stays: the sync is what it was."""
    clock = Clock()
    deliver(database, "m1")
    fetch(database, FakeCodat(5130, ROWS), clock=clock)
    before = look()
    refresh(database)
    fetch(database, FakeCodat(5130, ROWS, status_error=CodatUnavailable("down")), clock=clock)
    (sync,) = [body for body in look().values() if "errors" in body][:1]
    assert (sync["errors"]["last_error"], sync["errors"]["attempts"]) == ("down", 1)
    assert sync["updated_at"] == "2026-01-01T09:00:00Z"
    clock.now = after(hours=1)
    fetch(database, FakeCodat(5130, ROWS), clock=clock)
    assert look() == before


def test_a_redelivery_shows_on_its_event_alone(database: Database, client: TestClient) -> None:
    """And so does the same event under another message id."""
    deliver(database, "m1")
    fetch(database, FakeCodat(5130, ROWS))
    paths = ("syncs/s1", "companies/c1", "events/m1")
    before = [client.get(f"{V1}/{path}").headers["etag"] for path in paths]
    deliver(database, "m1", at=after(minutes=5))
    deliver(database, "m2", at=after(minutes=6))
    now = [client.get(f"{V1}/{path}").headers["etag"] for path in paths]
    assert now[:2] == before[:2]
    assert client.get(f"{V1}/events/m1").json()["deliveries"] == 2


def test_a_stage_that_is_not_shown_does_not_count(database: Database, client: TestClient) -> None:
    """A failure stage is shown of failed syncs only."""
    deliver(database, "m1", event_type=COMPLETED)
    fetch(database, FakeCodat(2000, ()))
    before = client.get(f"{V1}/syncs/s1")
    deliver(database, "m2", event_type=COMPLETED, failure_stage="Pushing", at=after(hours=1))
    now = client.get(f"{V1}/syncs/s1")
    assert (now.headers["etag"], now.json()) == (before.headers["etag"], before.json())
