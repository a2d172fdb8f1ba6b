"""Flaws that receivers in the field have, planted one by one: each turns a test of ours red.

Each is planted in the real code for the length of one test, and the named test of the suite runs
against it. If that test still passes, it proves nothing, and this file fails.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from app import logging
from app.codat.webhooks import payloads
from app.codat.webhooks.signature import Verifier
from app.db import event_store, pending_events, sync_writer
from app.db.engine import Database
from app.db.event_store import EventStore, ReceivedEvent
from app.db.pending_events import PendingEvent
from app.db.sync_writer import SyncWrite
from app.db.tables import webhook_events
from app.domain import sync_state
from app.domain.models import WebhookEvent
from app.domain.sync_state import Sync
from app.web.webhooks import WebhookEndpoint
from tests.codat.webhooks import test_signature
from tests.db import test_event_store
from tests.domain import test_sync_state
from tests.factories import T0, add_event, fetch_job, project, sync_row
from tests.web import test_webhooks
from tests.worker import test_projector

Test = Callable[[], object]


def expect_red(test: Test) -> None:
    """The test must fail, but not because the plant does not fit."""
    try:
        test()
    except (TypeError, NameError, AttributeError):
        raise
    except (Exception, pytest.fail.Exception):
        return
    pytest.fail("the flaw was planted and the test stayed green")


def test_acknowledging_before_the_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EventStore.store

    async def hasty(self: EventStore, event: ReceivedEvent, request_id: str) -> bool:
        task = asyncio.ensure_future(store(self, event, request_id))
        task.add_done_callback(lambda done: done.exception())
        return True

    monkeypatch.setattr(EventStore, "store", hasty)
    retry = test_webhooks.test_a_database_that_is_down_is_503_and_codats_retry_brings_the_event_back
    expect_red(lambda: retry(database))


@pytest.mark.own_database
def test_nothing_in_the_database_that_forbids_two(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Message ids are not unique."""
    with database.writing() as connection:
        if database.is_sqlite:
            connection.execute(text("ALTER TABLE webhook_events RENAME TO old_events"))
            connection.execute(
                text("CREATE TABLE webhook_events AS SELECT * FROM old_events WHERE false")
            )
        else:
            connection.execute(
                text("ALTER TABLE webhook_events DROP CONSTRAINT uq_webhook_events_message_id")
            )
    monkeypatch.setattr(event_store, "_INSERT", webhook_events.insert().inline())
    arrays = event_store._INSERT_ARRAYS.split("ON CONFLICT")[0]
    monkeypatch.setattr(event_store, "_INSERT_ARRAYS", arrays)
    expect_red(lambda: test_event_store.test_copies_in_one_batch_are_one_event(database))


class Crash(BaseException):
    """The process dies here."""


def crash_while_projecting(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the event was marked and before its effects were written."""
    write_syncs = sync_writer.write_syncs
    lives = iter([False, True])

    def mortal(*arguments: Any, **named: Any) -> list[int]:
        if not next(lives):
            raise Crash
        return write_syncs(*arguments, **named)

    monkeypatch.setattr(pending_events, "write_syncs", mortal)
    add_event(database, "m1")
    with pytest.raises(Crash):
        project(database)
    project(database)
    assert sync_row(database)["state"] == "failed"
    assert fetch_job(database) is not None


def test_a_crash_while_projecting_loses_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That an event is processed, and all that it causes, is one transaction."""
    crash_while_projecting(database, monkeypatch)
    assert fetch_job(database) is not None


@pytest.mark.own_database
def test_a_commit_between_the_mark_and_the_effects(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_companies = sync_writer.lock_companies

    def commit_first(connection: Connection, ids: Any) -> None:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN")
        lock_companies(connection, ids)

    monkeypatch.setattr(pending_events, "lock_companies", commit_first)
    expect_red(lambda: crash_while_projecting(database, monkeypatch))


def test_taking_every_delivery_for_a_new_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(events: Sequence[ReceivedEvent], _stored: Any) -> tuple[list[bool], list[Any]]:
        return [True] * len(events), [{"redelivered": "", "at": T0}]

    monkeypatch.setattr(event_store, "_results", forgetful)
    expect_red(lambda: test_event_store.test_a_redelivery_is_counted_and_pending_again(database))


def test_assuming_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last event to arrive is the state."""
    apply_event = sync_state.apply_event

    def last_wins(sync: Sync, event: WebhookEvent) -> Sync:
        blank = sync._replace(failed_received_at=None, completed_received_at=None)
        return apply_event(blank, event)

    monkeypatch.setattr(test_sync_state, "apply_event", last_wins)
    expect_red(test_sync_state.test_order_and_number_of_events_do_not_matter)


CANARY = "canary-in-the-body"


def no_body_and_no_secret_is_logged(database: Database, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever a delivery brings, only ids and counts are logged."""
    logging.configure("debug", "json")
    capfd.readouterr()
    fields = {"RuleType": "Sync Failed", "CompanyId": "c1", "Message": CANARY}
    body = json.dumps(fields | {"Data": {"syncId": "s1", "FailureStage": CANARY}}).encode()
    headers = test_webhooks.signed(body)
    test_webhooks.post(database, body, headers)
    test_webhooks.post(database, body, headers | {"webhook-signature": f"v1,{CANARY}"})
    project(database)
    logged = "".join(capfd.readouterr())
    assert "webhook projected" in logged
    assert CANARY not in logged
    assert test_webhooks.SECRET not in logged
    assert headers["webhook-signature"] not in logged


@pytest.mark.usefixtures("restored_logging")
def test_no_body_and_no_secret_is_logged(
    database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    """Log lines travel further than databases."""
    no_body_and_no_secret_is_logged(database, capfd)
    assert CANARY not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("restored_logging")
def test_logging_what_is_sensitive(
    database: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The body, for debugging."""
    parse = payloads.parse

    def talkative(body: bytes) -> Any:
        logging.get("debugging").info("parsing", body=body.decode())
        return parse(body)

    monkeypatch.setattr(payloads, "parse", talkative)
    expect_red(lambda: no_body_and_no_secret_is_logged(database, capfd))


def test_an_effect_without_a_look_at_what_is_known(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each delivery enqueues a fetch, also one that was applied before."""
    apply_to_sync = pending_events._apply_to_sync

    def eager(write: SyncWrite, event: PendingEvent, now: datetime) -> None:
        apply_to_sync(write, event, now)
        write.fetch = "enqueue"

    monkeypatch.setattr(pending_events, "_apply_to_sync", eager)
    restart = test_projector.test_a_redelivery_restarts_a_dead_fetch_and_leaves_a_finished_one
    expect_red(lambda: restart(database, "done", ("done", 12)))


def test_storing_before_the_signature_is_verified(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = WebhookEndpoint._read

    async def curious(self: WebhookEndpoint, scope: Any, receive: Any, share: Any) -> bytes:
        body = await read(self, scope, receive, share)
        await self._store().store(ReceivedEvent("m", datetime.now(UTC), body))
        return body

    monkeypatch.setattr(WebhookEndpoint, "_read", curious)
    forgery = test_webhooks.test_a_forgery_gets_401_with_the_same_body_and_leaves_nothing
    expect_red(lambda: forgery(database, {}))


def test_accepting_a_stale_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A captured delivery could be sent again at any time."""

    def patient(_library: object, timestamp: str) -> datetime:
        return datetime.fromtimestamp(float(timestamp), UTC)

    monkeypatch.setattr("standardwebhooks.webhooks.Webhook._Webhook__verify_timestamp", patient)
    assert Verifier([test_signature.SECRET])
    expect_red(lambda: test_signature.test_five_minutes_either_way_are_tolerated(301))
