"""Retention: raw bodies and history go in time; that they came, and what they reported, stays."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from app.db import alerts, change_feed, outgoing, retention
from app.db.engine import Database
from app.db.tables import outgoing_messages, webhook_events
from app.domain.outgoing import Recipients
from app.domain.webhook_loss import Finding
from tests.db.stored import finish_jobs
from tests.factories import (
    T0,
    add_event,
    after,
    count_rows,
    deliver,
    event_row,
    project,
    sync_row,
)


def prune(database: Database, *, days: float = 30, limit: int = 100) -> int:
    with database.writing() as connection:
        return retention.prune_bodies(connection, after(days=days), limit)


def with_body(database: Database) -> set[str]:
    with database.reading() as connection:
        found = select(webhook_events.c.message_id).where(webhook_events.c.body.is_not(None))
        return set(connection.execute(found).scalars())


def test_only_old_bodies_are_removed(database: Database) -> None:
    deliver(database, "old")
    deliver(database, "young", at=after(days=2))
    with database.reading() as connection:
        assert retention.count_bodies(connection, after(days=1)) == 1
    assert prune(database, days=1) == 1
    assert with_body(database) == {"young"}
    assert prune(database, days=1) == 0


def test_events_and_syncs_stay(database: Database) -> None:
    deliver(database, "m1")
    before = dict(sync_row(database))
    assert prune(database) == 1
    row = event_row(database, "m1")
    assert (row["message_id"], row["event_type"], row["body"]) == ("m1", "sync.failed", None)
    assert dict(sync_row(database)) == before


def test_the_body_of_a_pending_event_stays(database: Database) -> None:
    """The projector was down for long; its events are not lost."""
    add_event(database, "pending")
    with database.reading() as connection:
        assert retention.count_bodies(connection, after(days=30)) == 0
    assert prune(database) == 0
    project(database)
    assert prune(database) == 1


def test_a_redelivery_of_a_pruned_event_is_recognized(database: Database) -> None:
    """A replay in the Portal may reach back further than the retention."""
    deliver(database, "m1")
    prune(database)
    before = dict(sync_row(database))
    deliver(database, "m1", at=after(days=32))
    assert dict(sync_row(database)) == before
    assert with_body(database) == set()
    assert event_row(database, "m1")["deliveries"] == 2


def test_the_oldest_go_first_and_the_limit_holds(database: Database) -> None:
    for day in (2, 0, 1):
        deliver(database, f"m{day}", at=after(days=day))
    assert prune(database, limit=2) == 2
    assert with_body(database) == {"m2"}


def test_two_at_the_same_time_remove_each_body_once(database: Database) -> None:
    """The command while the periodic task runs."""
    for n in range(20):
        add_event(database, f"m{n}", sync_id=f"s{n}")
    project(database)

    def run(_: int) -> int:
        total = 0
        while removed := prune(database, limit=3):
            total += removed
        return total

    with ThreadPoolExecutor(2) as both:
        assert sum(both.map(run, range(2))) + prune(database) == 20
    assert with_body(database) == set()


def test_changes_ended_messages_and_resolved_alerts_go(database: Database) -> None:
    """Unfinished messages, open alerts and younger changes stay."""
    recipients = Recipients(webhooks=("webhook:a",))
    database.engine.update_execution_options(recipients=recipients)
    findings = [Finding("x", "c1", "text"), Finding("x", "c2", "text")]
    with database.writing() as connection:
        alerts.sync_alerts(connection, ["x"], findings, T0)
        alerts.sync_alerts(connection, ["x"], findings[:1], T0)
    finish_jobs(database)
    with database.writing() as connection:
        pks = connection.execute(select(outgoing_messages.c.id)).scalars().all()
        connection.execute(
            outgoing_messages.update()
            .where(outgoing_messages.c.id.in_(pks[:2]))
            .values(ended_at=T0)
        )
    deliver(database, "m1")
    deliver(database, "m2", sync_id="s2", at=after(days=9))
    with database.writing() as connection:
        for removed in ([1, 2, 1], [0, 0, 0]):
            prunes = (change_feed.prune, outgoing.prune, alerts.prune)
            assert [prune(connection, after(days=1), 100) for prune in prunes] == removed
        assert len(change_feed.read(connection, None, 10).items) == 1
        assert [pk for pk in pks if outgoing.load(connection, pk)] == pks[2:]
    assert count_rows(database, "alerts") == 1
