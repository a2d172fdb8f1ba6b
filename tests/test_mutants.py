"""Nine flaws that receivers in the field have, planted one by one: each turns a test of ours red.

Every mutant is put into the real code for the length of one test, and the named test of the suite
is run against it. If that test still passes, it proves nothing, and this file fails.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from app.codat.webhooks import payloads as reader
from app.codat.webhooks.signature import Verifier
from app.db import event_store as inbox_module
from app.db import keep as keep_module
from app.db.bulk import Write, write
from app.db.engine import Database
from app.db.event_store import Inbox
from app.db.jobs import owe
from app.db.keep import Kept
from app.db.tables import events, syncs
from app.domain import sync_state as rules
from app.domain.models import Delivery, Event
from app.domain.sync_state import Sync
from app.web.webhooks import Door
from tests.codat.webhooks import test_signature
from tests.db import test_event_store as test_inbox
from tests.domain import test_sync_state as test_sync
from tests.reports import COMPLETED, FAILED, STARTED, delivery, fetch_row, sync_row
from tests.web import test_webhooks

Test = Callable[[], None]


def expect_red(test: Test) -> None:
    """The test must fail; how it fails is its own affair, but not by a plant that does not fit."""
    try:
        test()
    except (TypeError, NameError, AttributeError):
        raise
    except (Exception, pytest.fail.Exception):
        return
    pytest.fail("the flaw was planted and the test stayed green")


def test_acknowledging_before_the_commit_is_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flaw 1: the answer does not wait for the database."""
    honest = Inbox.keep

    async def hasty(inbox: Inbox, delivery: Delivery) -> bool:
        task = asyncio.ensure_future(honest(inbox, delivery))
        task.add_done_callback(lambda done: done.exception())
        return True

    monkeypatch.setattr(Inbox, "keep", hasty)
    expect_red(
        lambda: (
            test_webhooks.test_a_database_that_is_away_is_503_and_codats_retry_brings_the_event_back(
                database
            )
        )
    )


def test_checking_before_inserting_is_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flaw 2: "is it there? no: insert it", with nothing in the database that forbids two."""
    _forget_that_message_ids_are_unique(database)
    seen = threading.local()
    honest = inbox_module._commit

    def check(database: Database, deliveries: Sequence[Delivery]) -> Kept:
        with database.reading() as connection:
            seen.there = set(connection.execute(select(events.c.message_id)).scalars())
        time.sleep(0.01)
        return honest(database, deliveries)

    def then_insert(
        connection: Connection, deliveries: Iterable[Delivery], besides: Write
    ) -> set[str]:
        rows = [keep_module._event_row(each) for each in deliveries]
        new = [row for row in rows if row["message_id"] not in seen.there]
        if new:
            connection.execute(events.insert(), new)
        write(connection, besides)
        return {row["message_id"] for row in new}

    def does_not_fit(*_words: object, **_more: object) -> None:
        misfits.append(sys.exc_info()[1])

    misfits: list[object] = []
    monkeypatch.setattr(inbox_module._log, "exception", does_not_fit)
    monkeypatch.setattr(inbox_module, "_commit", check)
    monkeypatch.setattr(keep_module, "_insert_events", then_insert)
    expect_red(lambda: test_inbox.test_concurrent_writers_lose_and_double_nothing(database))
    assert misfits == []


def _forget_that_message_ids_are_unique(database: Database) -> None:
    with database.writing() as connection:
        if database.is_sqlite:
            connection.execute(text("ALTER TABLE events RENAME TO old_events"))
            connection.execute(text("CREATE TABLE events AS SELECT * FROM old_events"))
        else:
            connection.execute(text("ALTER TABLE events DROP CONSTRAINT uq_events_message_id"))


class Crash(BaseException):
    """The process dies here."""


def a_crash_inside_the_commit_loses_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the event was written and before its effects; Codat delivers it again."""
    honest = keep_module._merge_news
    lives = iter([False, True])

    def mortal(*arguments: Any) -> set[int]:
        if not next(lives):
            raise Crash
        return honest(*arguments)

    monkeypatch.setattr(keep_module, "_merge_news", mortal)
    with pytest.raises(Crash):
        test_inbox.keep(database, delivery("m1"))
    test_inbox.keep(database, delivery("m1"))
    assert sync_row(database)["state"] == "failed"
    assert fetch_row(database) is not None


def test_a_crash_inside_the_commit_loses_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event and all it causes are one transaction."""
    a_crash_inside_the_commit_loses_nothing(database, monkeypatch)
    assert test_inbox.count(database, "events") == 1


def test_a_crash_between_effect_and_record_is_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flaw 3: the event is committed by itself, its effects afterwards."""
    honest = keep_module._insert_events

    def committed_by_itself(connection: Connection, *told: Any) -> set[str]:
        new = honest(connection, *told)
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN")
        return new

    monkeypatch.setattr(keep_module, "_insert_events", committed_by_itself)
    expect_red(lambda: a_crash_inside_the_commit_loses_nothing(database, monkeypatch))


def test_a_missing_record_of_what_was_seen_is_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flaw 4: every delivery is taken for new."""
    honest = keep_module._insert_events

    def forgetful(
        connection: Connection, deliveries: Iterable[Delivery], besides: Write
    ) -> set[str]:
        known = list(deliveries)
        honest(connection, known, besides)
        return {delivery.message_id for delivery in known}

    monkeypatch.setattr(keep_module, "_insert_events", forgetful)
    expect_red(lambda: test_inbox.test_a_redelivery_changes_nothing_but_is_noted(database))


def test_assuming_an_order_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flaw 5: the last event to arrive is the state."""
    honest = rules.tell

    def last_wins(sync: Sync, event: Event, received_at: datetime) -> Sync:
        told = honest(sync, event, received_at)
        flag = rules._FLAGS[event.event]
        return told._replace(heard=flag, unsettled=flag & rules.TERMINAL)

    monkeypatch.setattr(test_sync, "tell", last_wins)

    def in_every_order() -> None:
        for order in permutations([STARTED, FAILED, COMPLETED]):
            test_sync.test_failed_beats_completed_in_every_order(order)

    expect_red(in_every_order)
    expect_red(test_sync.test_the_order_and_number_of_events_never_matter)


CANARY = "canary-in-the-body"


def no_body_and_no_secret_is_logged(database: Database, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever a delivery brings, only its ids are logged."""
    from app import logging as log

    log.configure("debug", "json")
    capfd.readouterr()
    told = {"RuleType": "Sync Failed", "CompanyId": "c1", "Message": CANARY}
    body = json.dumps(told | {"Data": {"syncId": "s1", "FailureStage": CANARY}}).encode()
    headers = test_webhooks.signed(body)
    test_webhooks.post(database, body, headers)
    test_webhooks.post(database, body, headers | {"webhook-signature": f"v1,{CANARY}"})
    logged = "".join(capfd.readouterr())
    assert "s1" in logged
    assert CANARY not in logged
    assert test_webhooks.SECRET not in logged
    assert headers["webhook-signature"] not in logged


def test_no_body_and_no_secret_is_logged(
    database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    """Log lines travel further than databases."""
    no_body_and_no_secret_is_logged(database, capfd)
    assert CANARY not in "".join(capfd.readouterr())


def test_logging_what_is_sensitive_is_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Flaw 6: the body, for debugging."""

    def talkative(deliveries: Sequence[Delivery], _fates: Sequence[object]) -> None:
        for each in deliveries:
            inbox_module._log.info("an event was kept", body=each.body.decode(), sync_id="s1")

    monkeypatch.setattr(inbox_module, "_tell", talkative)
    expect_red(lambda: no_body_and_no_secret_is_logged(database, capfd))


def test_an_effect_before_the_duplicate_check_is_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flaw 7: the fetch is owed first, and then it is looked whether the event is new."""
    honest = keep_module.keep_all

    def eager(connection: Connection, deliveries: Sequence[Delivery]) -> Kept:
        ids = sorted(connection.execute(select(syncs.c.id)).scalars())
        owe(connection, ids, deliveries[0].received_at)
        return honest(connection, deliveries)

    monkeypatch.setattr(test_inbox, "keep_all", eager)
    expect_red(lambda: test_inbox.test_a_resend_leaves_finished_work_alone(database))


def nothing_is_parsed_before_the_signature_holds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parser is a way in; a forgery never reaches it."""
    parsed: list[bytes] = []
    honest = reader.read

    def watched(body: bytes) -> Event:
        parsed.append(body)
        return honest(body)

    monkeypatch.setattr(reader, "read", watched)
    body = test_webhooks.failed()
    assert test_webhooks.post(database, body, {}).status_code == 401
    assert parsed == []
    assert test_webhooks.post(database, body, test_webhooks.signed(body)).status_code == 204
    assert parsed == [body]


def test_nothing_is_parsed_before_the_signature_holds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verify first, on the raw bytes."""
    nothing_is_parsed_before_the_signature_holds(database, monkeypatch)
    assert test_inbox.count(database, "events") == 1


def test_parsing_before_the_signature_is_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flaw 8: the body is read, then its signature is checked."""
    honest = Door._accept

    async def curious(door: Door, scope: Any, body: bytes, send: Any) -> None:
        reader.read(body)
        await honest(door, scope, body, send)

    monkeypatch.setattr(Door, "_accept", curious)
    expect_red(lambda: nothing_is_parsed_before_the_signature_holds(database, monkeypatch))


def test_accepting_a_stale_signature_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flaw 9: a captured delivery may be replayed for ever."""

    def patient(_library: object, timestamp: str) -> datetime:
        return datetime.fromtimestamp(float(timestamp), UTC)

    monkeypatch.setattr("standardwebhooks.webhooks.Webhook._Webhook__verify_timestamp", patient)
    assert Verifier([test_signature.SECRET])
    expect_red(lambda: test_signature.test_five_minutes_either_way_are_tolerated(301, False))
