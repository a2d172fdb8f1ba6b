"""Queries for operators: work that makes no progress."""

from sqlalchemy import Connection, func, select

from app.db.jobs import IS_PENDING
from app.db.tables import jobs


def count_retried_fetches(connection: Connection, min_attempts: int) -> int:
    """Count the pending fetches that have failed this many times or more."""
    retried = select(func.count()).select_from(jobs)
    retried = retried.where(IS_PENDING, jobs.c.kind == "fetch", jobs.c.attempts >= min_attempts)
    return connection.execute(retried).scalar_one()
