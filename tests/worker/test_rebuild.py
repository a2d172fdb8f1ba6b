"""Rebuild: everything derived equals what the events and Codat's answers say."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from app.db import jobs as queue
from app.db import rebuilding, retention, sync_writer
from app.db.engine import Database, open_database
from app.db.sync_writer import CodatAnswer, RecordedAnswer, record_answer
from app.db.tables import (
    companies,
    failed_transactions,
    jobs,
    metadata,
    syncs,
    transactions,
    webhook_events,
)
from app.domain.models import SyncStatus, Transaction
from app.errors import DatabaseUnavailable
from app.worker import rebuild as rebuild_module
from app.worker.rebuild import Rebuilder, RebuildReport
from tests.factories import (
    COMPLETED,
    FAILED,
    STARTED,
    T0,
    add_event,
    after,
    delete_all,
    deliver,
    event_row,
    fetch_job,
    project,
    sync_row,
)
from tests.worker.fakes import claim_jobs

DERIVED = ("syncs", "transactions", "failed_transactions", "companies")


def rebuild(database: Database, *, now: datetime = T0) -> RebuildReport:
    return Rebuilder(database, lambda: now).run()


def answer(database: Database, code: int, *listed: Transaction, at: datetime = T0) -> None:
    """Claim every due fetch and record this answer of Codat's."""
    for claim in claim_jobs(database, now=at, limit=10):
        with database.writing() as connection:
            sync_id = sync_writer.sync_id_of(connection, claim.key)
            status = SyncStatus(claim.group_key, sync_id, code, "status", sync_utc=at)
            result = CodatAnswer(status, at, listed, len(listed))

            def settle(
                _recorded: RecordedAnswer, claim: Any = claim, connection: Any = connection
            ) -> tuple[()]:
                queue.complete(connection, claim)
                return ()

            record_answer(connection, claim, result, now=at, settle=settle)


def snapshot(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Every derived row, without our own keys."""
    with database.reading() as connection:
        return {
            name: sorted(
                (
                    {key: row[key] for key in row if key not in ("id", "sync_pk")}
                    for row in connection.execute(select(metadata.tables[name])).mappings()
                ),
                key=repr,
            )
            for name in DERIVED
        }


def seed(database: Database) -> None:
    deliver(database, "m1", event_type=STARTED, generated_at=T0)
    deliver(database, "m2", event_type=FAILED, at=after(minutes=1), company_name="Toft")
    failed = Transaction("t1", "PushError", "The account is inactive", "expenses")
    answer(database, 5130, failed, Transaction(None, "Failed", "no id"), at=after(minutes=2))
    deliver(database, "m3", event_type=COMPLETED, sync_id="s2", at=after(minutes=3))
    answer(database, 2000, Transaction("t1", "Completed"), at=after(minutes=4))
    rows = [{"id": "t9", "status": "Failed", "errorMessage": "x"}]
    deliver(database, "m4", event_type=FAILED, sync_id="s3", at=after(minutes=5), transactions=rows)


def test_nothing_differs_when_nothing_is_wrong(database: Database) -> None:
    seed(database)
    before = snapshot(database)
    report = rebuild(database, now=after(days=1))
    assert (report.differences, report.events, report.syncs) == (0, 4, 3), str(report)
    assert snapshot(database) == before


HARMS = {
    "states": update(syncs).values(state="started", outcome="in_progress", day="2000-01-01"),
    "failures": delete(failed_transactions),
    "resolutions": update(failed_transactions).values(resolved_by=None, cause_key="wrong"),
    "causes": update(transactions).values(cause_key=None, fingerprint=None, failed=False),
    "what webhooks reported": update(syncs).values(
        failed_received_at=None, reported_started_at=None, failure_stage="wrong"
    ),
    "counts": update(syncs).where(syncs.c.sync_id == "s1").values(total=9, failed=0, completed=9),
    "parsed columns": update(webhook_events).values(raw_type="wrong", generated_at=None),
}


@pytest.mark.parametrize("harm", list(HARMS))
def test_harm_is_found_and_undone(database: Database, harm: str) -> None:
    seed(database)
    before = snapshot(database)
    raw = event_row(database, "m1")["raw_type"]
    with database.writing() as connection:
        connection.execute(HARMS[harm])
    report = rebuild(database, now=after(days=1))
    assert report.differences > 0
    after_rebuild = snapshot(database)
    for rows in (*before.values(), *after_rebuild.values()):
        for row in rows:
            row.pop("updated_at", None)
    assert after_rebuild == before
    assert event_row(database, "m1")["raw_type"] == raw
    assert rebuild(database).differences == 0


def test_a_sync_that_was_lost_comes_back_and_is_fetched(database: Database) -> None:
    deliver(database, "m1")
    with database.writing() as connection:
        connection.execute(delete(jobs))
        connection.execute(delete(metadata.tables["sync_log"]))
        connection.execute(delete(syncs))
        connection.execute(delete(companies))
    report = rebuild(database, now=after(hours=1))
    assert (report.syncs_differed, report.fetches_enqueued) == (1, 1)
    assert sync_row(database)["state"] == "failed"
    assert fetch_job(database) is not None


def test_events_without_a_body_keep_what_they_reported(database: Database) -> None:
    seed(database)
    with database.writing() as connection:
        connection.execute(update(webhook_events).values(body=None))
    before = snapshot(database)
    assert rebuild(database).differences == 0
    assert snapshot(database) == before


def test_an_event_that_could_not_be_applied_is_applied_again(database: Database) -> None:
    """The release that could not is replaced; its body is stored however old it is."""
    add_event(database, "m1")
    with database.writing() as connection:
        connection.execute(
            update(webhook_events).values(processed_at=T0, projection_error="KeyError")
        )
        assert retention.prune_bodies(connection, after(days=99), 10) == 0
    report = rebuild(database)
    assert report.events_marked_pending == 1
    assert "1 failed events are applied again" in str(report)
    project(database)
    assert sync_row(database)["state"] == "failed"
    assert event_row(database, "m1")["projection_error"] is None
    assert rebuild(database).events_marked_pending == 0


def test_steps_are_small(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes of bodies and by rows, so that no writer waits for long; one sync at least."""
    rows = [{"id": f"t{n}", "status": "Failed"} for n in range(4)]
    for number in range(4):
        deliver(database, f"m{number}", sync_id=f"s{number}", transactions=rows)
    size = len(event_row(database, "m0")["body"])
    with database.reading() as connection:
        assert len(rebuilding.events_after(connection, 0, 100, 2 * size)) == 2
        assert len(rebuilding.events_after(connection, 0, 100, 1)) == 1
        assert len(rebuilding.sync_keys_after(connection, 0, 100, 12, 9 * size)) == 3
        assert len(rebuilding.sync_keys_after(connection, 0, 100, 99, 2 * size)) == 2
        assert len(rebuilding.sync_keys_after(connection, 0, 100, 1, 1)) == 1
    for name, limit in (("MAX_BODY_BYTES", size), ("MAX_TRANSACTIONS", 4)):
        monkeypatch.setattr(f"app.worker.rebuild.{name}", limit)
    assert (rebuild(database).events, rebuild(database).syncs) == (4, 4)


def test_where_nothing_differs_only_events_are_written(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No writer waits for the comparison of syncs and failures."""
    deliver(database, "m1", transactions=[{"id": "t1", "status": "Failed"}])
    monkeypatch.setattr(rebuild_module, "_write_syncs", None)
    monkeypatch.setattr(rebuild_module, "_write_failures", None)
    assert rebuild(database).differences == 0


def test_an_event_that_is_projected_meanwhile_is_not_lost(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are read before the lock."""
    database = open_database(postgresql_url)
    deliver(database, "m1", event_type=STARTED)
    with database.writing() as connection:
        connection.execute(update(syncs).values(outcome="wrong"))
    write_syncs = rebuild_module._write_syncs

    def late(*args: Any, **kwargs: Any) -> Any:
        deliver(database, "m2", event_type=FAILED, at=after(minutes=1))
        return write_syncs(*args, **kwargs)

    monkeypatch.setattr(rebuild_module, "_write_syncs", late)
    rebuild(database)
    assert sync_row(database)["state"] == "failed"
    database.close()


def test_a_step_that_loses_a_conflict_is_repeated_and_counted_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(database)
    with database.writing() as connection:
        connection.execute(HARMS["states"])
    conflicts = [1]

    def conflict(*args: Any, **kwargs: Any) -> Any:
        if conflicts:
            conflicts.pop()
            raise DatabaseUnavailable("deadlock detected")
        return sync_writer.write_syncs(*args, **kwargs)

    monkeypatch.setattr(rebuild_module, "write_syncs", conflict)
    monkeypatch.setattr("app.worker.threads.time.sleep", lambda _: None)
    assert rebuild(database).syncs_differed == 3
    assert rebuild(database).differences == 0


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("event"),
            st.sampled_from([STARTED, FAILED, COMPLETED]),
            st.sampled_from(["s1", "s2"]),
            st.none() | st.integers(0, 3),
            st.booleans(),
        ),
        st.tuples(
            st.just("answer"),
            st.sampled_from([1000, 2000, 5130, 3000]),
            st.lists(st.sampled_from(["Completed", "Failed", "Pending"]), max_size=2),
        ),
    ),
    max_size=8,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_a_rebuild_of_any_history_changes_nothing(database: Database, steps: list[Any]) -> None:
    """Whatever came in whatever order, what is derived is already what a rebuild makes of it."""
    delete_all(database)
    for number, step in enumerate(steps):
        at = after(minutes=number)
        if step[0] == "event":
            _, event_type, sync_id, hours, inline = step
            rows = [{"id": "t0", "status": "Failed"}] if inline else None
            generated_at = None if hours is None else after(hours=hours)
            deliver(
                database,
                f"m{number}",
                event_type=event_type,
                sync_id=sync_id,
                at=at,
                generated_at=generated_at,
                transactions=rows,
            )
        else:
            listed = [Transaction(f"t{n}", status) for n, status in enumerate(step[2])]
            answer(database, step[1], *listed, at=at)
    before = snapshot(database)
    report = rebuild(database, now=after(days=1))
    assert report.differences == 0, str(report)
    assert snapshot(database) == before
