"""Retention: raw bodies and history go in time; that they came, and what they reported, stays."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from app.db import retention
from app.db.engine import Database
from app.db.tables import webhook_events
from tests.factories import (
    add_event,
    after,
    deliver,
    project,
)


def prune(database: Database, *, days: float = 30, limit: int = 100) -> int:
    with database.writing() as connection:
        return retention.prune_bodies(connection, after(days=days), limit)


def with_body(database: Database) -> set[str]:
    with database.reading() as connection:
        found = select(webhook_events.c.message_id).where(webhook_events.c.body.is_not(None))
        return set(connection.execute(found).scalars())


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
