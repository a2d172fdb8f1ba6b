"""The projector: stored events become syncs, in any order, any number of times, side by side."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain, permutations
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update
from structlog.testing import capture_logs

from app import logging
from app.codat.webhooks import payloads
from app.db import event_store, pending_events
from app.db.engine import Database, open_database
from app.db.sync_writer import LogEntry, add_log
from app.db.tables import companies, jobs, webhook_events
from app.domain.models import WebhookEvent
from app.domain.sync_state import Sync, apply_event
from app.errors import DatabaseDown, DatabaseRejected, DatabaseUnavailable
from app.worker import projector as projector_module
from app.worker.projector import Projector
from tests.db.stored import pk_of
from tests.factories import (
    COMPLETED,
    FAILED,
    STARTED,
    T0,
    add_event,
    after,
    count_rows,
    delete_all,
    deliver,
    event_row,
    fetch_job,
    project,
    sync_body,
    sync_row,
    timeline,
    transaction_rows,
)
from tests.worker.fakes import job_of


@pytest.mark.parametrize(
    "body",
    [
        {"eventType": "expenses.sync.renamed", "payload": {"syncId": "s9"}},
        {"eventType": "x", "payload": {"referenceCompany": {"id": "c9", "name": "Nine"}}},
        {"RuleType": "New", "CompanyName": "Nine", "Data": {"name": "Nine"}},
        {"syncStatusCode": 7777, "syncId": "s9"},
        {"generatedDate": "2026-01-01T09:00:00Z"},
    ],
)
def test_an_event_of_an_unknown_type_creates_no_company(
    database: Database, body: dict[str, Any]
) -> None:
    add_event(database, "m1", json.dumps({"companyId": "c9"} | body).encode())
    for _ in range(2):
        assert project(database) == 1
        assert count_rows(database, "companies") == 0
        with database.writing() as connection:
            event_store.mark_pending(connection, "m1")
    assert event_row(database, "m1")["parse_status"] == "unknown"


def test_an_event_becomes_a_sync_with_a_fetch_job_and_a_timeline_entry(database: Database) -> None:
    add_event(database, "m1")
    assert project(database, now=after(seconds=1)) == 1
    row = sync_row(database)
    assert (row["state"], row["first_seen_at"], row["updated_at"]) == (
        "failed",
        T0,
        after(seconds=1),
    )
    assert job_of(database, "state", "group_key", "generation") == ("pending", "c1", 1)
    assert timeline(database) == [("delivery", "Codat reported: failed (SyncFailed)")]
    event = event_row(database, "m1")
    assert (event["processed_at"], event["parse_status"]) == (after(seconds=1), "ok")
    assert (event["event_type"], event["raw_type"], event["sync_id"]) == (
        FAILED,
        "SyncFailed",
        "s1",
    )


@pytest.mark.parametrize(
    "body",
    [b'\x00\xff{"not": json', b"[" * 100_000 + b"]" * 100_000, b'"text"', b"",
     sync_body(sync_id="s\x00")],
)  # fmt: skip
def test_an_unreadable_event_is_stored_with_its_reason(database: Database, body: bytes) -> None:
    add_event(database, "m1", body)
    with capture_logs() as lines:
        deliver(database, "m2")
    assert sync_row(database)["state"] == "failed"
    event = event_row(database, "m1")
    assert (event["parse_status"], event["body"]) == ("unreadable", body)
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["reason"] for line in warnings] == [event["parse_error"]]
    assert event["parse_error"]
    assert event["processed_at"] is not None


def test_every_event_of_a_burst_is_in_the_log(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several share a line; each fetch knows its own event."""
    monkeypatch.setattr(logging, "MAX_IDS", 4)
    for n in range(10):
        add_event(database, f"m{n}", sync_id=f"s{n}")
    with capture_logs() as lines:
        project(database)
    logged = [line["message_ids"] for line in lines if line["event"] == "webhooks projected"]
    assert [len(ids) for ids in logged] == [4, 4, 2]
    assert sorted(chain.from_iterable(logged)) == [f"m{n}" for n in range(10)]
    assert [job_of(database, "message_id", sync_id=f"s{n}") for n in range(10)] == [
        (f"m{n}",) for n in range(10)
    ]


def test_a_redelivery_changes_nothing_but_the_timeline(database: Database) -> None:
    deliver(database, "m1")
    before = dict(sync_row(database))
    deliver(database, "m1", at=after(minutes=5))
    deliver(database, "m1", at=after(minutes=6))
    assert dict(sync_row(database)) == before
    event = event_row(database, "m1")
    assert (event["deliveries"], event["received_at"]) == (3, T0)


def test_the_redeliveries_of_an_event_are_one_entry_of_the_timeline(database: Database) -> None:
    """At the time of the latest, however many there are: no row is added for one."""
    deliver(database, "m1")
    for number in range(1, 4):
        deliver(database, "m1", at=after(minutes=number))
        with database.writing() as connection:
            entry = LogEntry(after(minutes=number), "refresh", f"No. {number}")
            add_log(connection, pk_of(database, "s1"), entry)
    shown = [("refresh", "No. 1"), ("refresh", "No. 2")]
    reported = "Codat reported: failed (SyncFailed)"
    assert timeline(database) == [
        ("delivery", reported), *shown, ("duplicate", f"{reported}; 3 more deliveries"),
        ("refresh", "No. 3"),
    ]  # fmt: skip
    assert count_rows(database, "sync_log") == 3


def test_a_redelivery_before_the_first_projection_counts(database: Database) -> None:
    add_event(database, "m1")
    add_event(database, "m1", at=after(seconds=1))
    project(database)
    assert [kind for kind, _ in timeline(database)] == ["delivery", "duplicate"]


def test_a_sync_is_identified_by_company_and_id(database: Database) -> None:
    """Two subscriptions make one sync and one job; one sync id in two companies is two syncs."""
    add_event(database, "m1")
    add_event(database, "m2", generated_at=T0, company_name="Toft stores")
    add_event(database, "m3", event_type=COMPLETED, company_id="c2")
    project(database)
    assert (count_rows(database, "syncs"), count_rows(database, "jobs")) == (2, 2)
    assert sync_row(database, company_id="c1")["state"] == "failed"
    assert sync_row(database, company_id="c2")["state"] == "completed"


@pytest.mark.parametrize(
    "odd", ["a\u00a0b\u00a0", "\ufeffx\u200d", "so\u00adft", " s ", "\u202eltr"]
)
def test_ids_with_invisible_characters_are_stored_as_they_are(database: Database, odd: str) -> None:
    """And they are other ids than those without; a control character is no part of an id."""
    listed = [{"id": f"t{odd}", "status": "PushError"}]
    ids = {"sync_id": odd, "company_id": f"c{odd}"}
    deliver(database, "m1", transactions=listed, **ids)  # type: ignore[arg-type]
    deliver(database, "m2", sync_id="".join(filter(str.isalpha, odd)))
    deliver(database, "m3", sync_id=f"{odd}\x00")
    assert sync_row(database, odd, f"c{odd}")["state"] == "failed"
    (row,) = transaction_rows(database, odd)
    assert row["transaction_id"] == f"t{odd}"
    event = event_row(database, "m1")
    assert (event["parse_status"], event["sync_id"], event["company_id"]) == ("ok", *ids.values())
    assert event_row(database, "m3")["parse_status"] == "unreadable"
    assert count_rows(database, "syncs") == 2


def test_a_start_enqueues_no_fetch_and_an_end_does(database: Database) -> None:
    deliver(database, "m1", event_type=STARTED)
    assert fetch_job(database) is None
    deliver(database, "m2", event_type=COMPLETED, at=after(minutes=1))
    assert job_of(database, "state", "run_at") == ("pending", after(minutes=1))


@pytest.mark.parametrize(("state", "then"), [("dead", ("pending", 0)), ("done", ("done", 12))])
def test_a_redelivery_restarts_a_dead_fetch_and_leaves_a_finished_one(
    database: Database, state: str, then: tuple[str, int]
) -> None:
    """A resend from the Portal has the same message id: it is how operators repair."""
    deliver(database, "m1")
    with database.writing() as connection:
        connection.execute(update(jobs).values(state=state, attempts=12))
    deliver(database, "m1", at=after(hours=1))
    assert job_of(database, "state", "attempts") == then


def test_a_replayed_event_is_applied_as_it_reads_now(database: Database) -> None:
    """An event that an earlier version could not read: its body is parsed again."""
    deliver(database, "m1")
    with database.writing() as connection:
        connection.execute(
            update(webhook_events).values(parse_status="unreadable", event_type="unknown")
        )
        for table in ("jobs", "sync_log", "syncs"):
            connection.execute(jobs.metadata.tables[table].delete())
        event_store.mark_pending(connection, "m1")
    project(database)
    assert sync_row(database)["state"] == "failed"
    assert fetch_job(database) is not None
    assert event_row(database, "m1")["parse_status"] == "ok"


def test_inline_transactions_are_shown_until_codat_is_asked(database: Database) -> None:
    rows = [
        {"id": "t1", "status": "Completed"},
        {"id": "t2", "status": "Failed", "errorMessage": "Insufficient funds"},
    ]
    deliver(database, "m1", transactions=rows, generated_at=T0)
    assert [(row["transaction_id"], row["failed"]) for row in transaction_rows(database)] == [
        ("t1", False),
        ("t2", True),
    ]
    assert sync_row(database)["outcome"] == "partly_failed"
    assert count_rows(database, "failed_transactions") == 1


def test_the_latest_inline_list_wins_in_any_order(database: Database) -> None:
    """By Codat's own clock, not by arrival."""
    old: dict[str, Any] = {"transactions": [{"id": "t", "status": "Pending"}], "generated_at": T0}
    new: dict[str, Any] = {
        "transactions": [{"id": "t", "status": "Failed"}],
        "generated_at": after(hours=1),
    }
    for order in permutations([("m1", old), ("m2", new)]):
        delete_all(database)
        for message_id, fields in order:
            deliver(database, message_id, **fields)
        assert [row["status"] for row in transaction_rows(database)] == ["Failed"]


def test_the_latest_company_name_by_codats_clock_wins(database: Database) -> None:
    deliver(database, "m1", company_name="New name", generated_at=after(days=1))
    deliver(database, "m2", company_name="Old name", generated_at=T0)
    deliver(database, "m3")
    with database.reading() as connection:
        assert connection.execute(select(companies.c.name)).scalars().all() == ["New name"]


def test_updated_at_moves_only_when_a_caller_sees_a_change(database: Database) -> None:
    """The same outcome through a second subscription is no change."""
    deliver(database, "m1", generated_at=T0)
    deliver(database, "m2", generated_at=T0, at=after(minutes=1))
    assert sync_row(database)["updated_at"] == T0
    deliver(database, "m3", event_type=STARTED, generated_at=after(hours=-1), at=after(minutes=2))
    assert sync_row(database)["updated_at"] == after(minutes=2)


deliveries = st.lists(
    st.tuples(
        st.integers(0, 7).map("m{}".format),
        st.fixed_dictionaries(
            {
                "event_type": st.sampled_from([STARTED, FAILED, COMPLETED]),
                "sync_id": st.sampled_from(["s1", "s2"]),
                "generated_at": st.none() | st.integers(0, 3).map(lambda n: after(hours=n)),
                "transactions": st.none() | st.just([{"id": "t", "status": "Failed"}]),
                "failure_stage": st.none() | st.sampled_from(["Pushing", "Mapping"]),
            }
        ),
        st.integers(0, 5).map(lambda n: after(minutes=n)),
    ),
    max_size=8,
    unique_by=lambda delivery: delivery[0],
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries, st.randoms(use_true_random=False))
def test_any_order_repetition_and_batching_ends_in_the_plain_fold(
    database: Database,
    events: Sequence[tuple[str, dict[str, Any], datetime]],
    random: Any,
) -> None:
    delete_all(database)
    shuffled = [*events, *events[::2]]
    random.shuffle(shuffled)
    first: dict[str, datetime] = {}
    for message_id, fields, at in shuffled:
        first.setdefault(message_id, at)
        add_event(database, message_id, at=at, **fields)
        if random.random() < 0.4:
            project(database)
    project(database)
    expected: dict[str, Sync] = {}
    for message_id, fields, _ in events:
        sync = expected.get(fields["sync_id"], Sync("c1", fields["sync_id"]))
        payload = payloads.parse(sync_body(**fields))
        event = WebhookEvent(message_id, first[message_id], payload)
        expected[fields["sync_id"]] = apply_event(sync, event)
    assert count_rows(database, "syncs") == len(expected)
    assert count_rows(database, "webhook_events") == len(events)
    for sync_id, sync in expected.items():
        row = sync_row(database, sync_id)
        names = ("state", "outcome", "started_at", "finished_at", "failure_stage")
        assert {name: row[name] for name in names} == {n: getattr(sync, n) for n in names}


def test_projectors_side_by_side_apply_each_event_once(database: Database) -> None:
    for number in [*range(120), *range(120)]:
        add_event(database, f"m{number}", sync_id=f"s{number % 40}", company_id=f"c{number % 7}")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(project, [database] * 4))
    project(database)
    with database.reading() as connection:
        assert event_store.pending_stats(connection).count == 0
    assert count_rows(database, "sync_log") == 0  # an event applied twice would be a replay


def test_a_poisonous_event_is_marked_and_stops_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shown with its error, and a replay after the fix applies it."""
    apply = pending_events.apply

    def fail_on_m2(connection: Any, events: Any, *, now: datetime) -> None:
        if any(event.message_id == "m2" for event in events):
            raise ValueError("poison")
        apply(connection, events, now=now)

    for number in range(4):
        add_event(database, f"m{number}", sync_id=f"s{number}")
    monkeypatch.setattr(pending_events, "apply", fail_on_m2)
    assert project(database) == 4
    assert event_row(database, "m2")["projection_error"] == "ValueError: poison"
    assert count_rows(database, "syncs") == 3
    monkeypatch.undo()
    with database.writing() as connection:
        event_store.mark_pending(connection, "m2")
    project(database)
    assert event_row(database, "m2")["projection_error"] is None
    assert sync_row(database, "s2")["state"] == "failed"


def test_a_database_that_is_down_leaves_events_pending_and_one_that_rejects_marks_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the database is up and rejects an event's values, trying again would not help."""
    add_event(database, "m1")
    monkeypatch.setattr(pending_events, "apply", Mock(side_effect=DatabaseDown("down")))
    with pytest.raises(DatabaseDown):
        Projector(database, lambda: T0).project_pending()
    assert event_row(database, "m1")["processed_at"] is None
    rejected = DatabaseRejected("too long for an index")
    monkeypatch.setattr(pending_events, "apply", Mock(side_effect=rejected))
    assert project(database) == 1
    assert event_row(database, "m1")["projection_error"] == "too long for an index"


@pytest.mark.parametrize(("conflicts", "handled"), [(1, 3), (2, 3), (1000, 0)])
def test_a_conflict_is_no_fault_of_an_event(
    database: Database, monkeypatch: pytest.MonkeyPatch, conflicts: int, handled: int
) -> None:
    """A batch is tried twice as a whole, then its events one by one; none is marked as failed.

    Those that lose every conflict stay pending and do not count, so the worker waits before it
    tries again.
    """
    apply = pending_events.apply
    left = [conflicts]

    def conflict(connection: Any, events: Any, *, now: datetime) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise DatabaseUnavailable("deadlock detected")
        apply(connection, events, now=now)

    for number in range(3):
        add_event(database, f"m{number}", sync_id=f"s{number}")
    monkeypatch.setattr(pending_events, "apply", conflict)
    monkeypatch.setattr("app.worker.threads.time.sleep", lambda _: None)
    assert Projector(database, lambda: T0).project_pending() == handled
    assert count_rows(database, "syncs") == handled
    monkeypatch.undo()
    assert project(database) == 3 - handled


def test_a_large_event_travels_alone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for short transactions only, and a batch takes little memory."""
    for name in ("BATCH_BYTES", "SQLITE_BATCH_BYTES"):
        monkeypatch.setattr(projector_module, name, 5000)
    large = [{"id": f"t{n}", "status": "Completed"} for n in range(150)]
    for number, listed in enumerate([None, large, large, None]):
        add_event(database, f"m{number}", sync_id=f"s{number}", transactions=listed)
    projector = Projector(database, lambda: T0)
    assert [projector.project_pending() for _ in range(4)] == [1, 1, 1, 1]
    assert count_rows(database, "transactions") == 300


def test_on_sqlite_a_batch_is_as_large_as_a_hundredth_of_a_second_allows(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery waits for the batch before it."""
    database = open_database(sqlite_url)
    for number in range(200):
        add_event(database, f"m{number}", sync_id=f"s{number}")
    times = iter([0, 0.040, 1, 1.0055, 2, 2.001, 3, 9, 10, 10.003])
    monkeypatch.setattr("app.worker.projector.time.perf_counter", lambda: next(times))
    projector = Projector(database, lambda: T0)
    assert [projector.project_pending() for _ in range(5)] == [50, 12, 21, 50, 10]
    database.close()


def test_a_pruned_event_that_is_delivered_again_keeps_its_meaning(database: Database) -> None:
    deliver(database, "m1")
    with database.writing() as connection:
        connection.execute(update(webhook_events).values(body=None))
    deliver(database, "m1", at=after(days=1))
    assert event_row(database, "m1")["event_type"] == FAILED
    assert [kind for kind, _ in timeline(database)] == ["delivery", "duplicate"]
