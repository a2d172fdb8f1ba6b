"""Periodic tasks: one of many replicas runs each, once per period."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from app.db import workers
from app.db.engine import Database
from tests.factories import after

HOUR = timedelta(hours=1)


def take(database: Database, seconds: float = 0, name: str = "reconcile") -> bool:
    with database.writing() as connection:
        return workers.take_task(connection, name, now=after(seconds=seconds), every=HOUR)


def test_a_task_is_taken_once_in_each_period(database: Database) -> None:
    for seconds, is_due in ((0, True), (0, False), (3599, False), (3600, True), (3600, False)):
        with database.reading() as connection:
            assert workers.is_task_due(connection, "reconcile", after(seconds=seconds)) == is_due
        assert take(database, seconds) == is_due
    assert take(database, name="retention")


def test_one_of_several_replicas_takes_a_task(database: Database) -> None:
    for seconds in (0, 3600):
        with ThreadPoolExecutor(6) as replicas:
            moment = seconds
            taken = list(replicas.map(lambda _, at=moment: take(database, at), range(6)))
        assert sorted(taken) == [False] * 5 + [True]
