"""What workers share: heartbeats, and which of them runs a periodic task.

A worker beats before it claims its first job and every few seconds after that. The others take over
its jobs when its heartbeat no longer changes (`worker.runner`), so hosts' clocks need not agree.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, literal, select, update

from app.db.engine import classifier_of, insert
from app.db.jobs import NO_LEASE
from app.db.tables import jobs, periodic_tasks, workers
from app.db.types import UtcTime

REMEMBERED = timedelta(hours=1)  # a worker that crashes at each start leaves a row each time
LIVE_FOR = timedelta(minutes=1)  # after the last heartbeat


class RulesInUse(NamedTuple):
    """Rules for causes that live workers apply, and those workers."""

    version: str
    since: datetime
    worker_ids: list[str]


def beat(connection: Connection, worker_id: str, now: datetime) -> None:
    """Record that this worker is alive, and which rules for causes it applies.

    Removes rows that no worker has touched for an hour.
    """
    version = classifier_of(connection).version
    first = select(func.min(workers.c.rules_since)).where(workers.c.rules_version == version)
    since = func.coalesce(first.scalar_subquery(), literal(now, UtcTime))
    new = insert(connection, workers).values(
        worker_id=worker_id, seen_at=now, rules_version=version, rules_since=since
    )
    changed = {"seen_at": now}
    connection.execute(new.on_conflict_do_update(index_elements=["worker_id"], set_=changed))
    connection.execute(delete(workers).where(workers.c.seen_at < now - REMEMBERED))


def remove(connection: Connection, worker_id: str) -> None:
    """Remove the heartbeat of a worker that has ended."""
    connection.execute(delete(workers).where(workers.c.worker_id == worker_id))


def heartbeats(connection: Connection) -> dict[str, datetime | None]:
    """The latest heartbeat of each worker; None for one that holds a lease and has none."""
    holders = select(jobs.c.worker_id).where(jobs.c.lease_token.is_not(None)).distinct()
    found: dict[str, datetime | None] = dict.fromkeys(connection.execute(holders).scalars())
    found |= {row.worker_id: row.seen_at for row in connection.execute(select(workers))}
    return found


def take_over(connection: Connection, silent: Collection[str]) -> int:
    """Free the leases of these workers and remove them; returns how many jobs are due again.

    The attempt counts, so that a job that kills workers ends up dead.
    """
    if not silent:
        return 0
    held = select(jobs.c.id).where(jobs.c.lease_token.is_not(None), jobs.c.worker_id.in_(silent))
    orphaned = held.with_for_update(skip_locked=True)
    connection.execute(delete(workers).where(workers.c.worker_id.in_(silent)))
    return connection.execute(update(jobs).where(jobs.c.id.in_(orphaned)).values(NO_LEASE)).rowcount


def alive(connection: Connection, since: datetime) -> int:
    """Count the workers with a heartbeat since a time."""
    seen = select(func.count()).select_from(workers).where(workers.c.seen_at >= since)
    return connection.execute(seen).scalar_one()


def rules_in_use(connection: Connection, since: datetime) -> list[RulesInUse]:
    """The rules of the workers with a heartbeat since a time, the newest first.

    The newest are those whose first worker started last. They win where workers differ.
    """
    found: dict[str, RulesInUse] = {}
    row = select(workers).where(workers.c.seen_at >= since, workers.c.rules_version.is_not(None))
    for worker in connection.execute(row.order_by(workers.c.rules_since, workers.c.worker_id)):
        new = RulesInUse(worker.rules_version, worker.rules_since, [])
        found.setdefault(new.version, new).worker_ids.append(worker.worker_id)
    return sorted(found.values(), key=lambda rules: (rules.since, rules.version), reverse=True)


def last_seen(connection: Connection) -> datetime | None:
    """The time of the latest heartbeat of any worker; None when there is none."""
    return connection.execute(select(func.max(workers.c.seen_at))).scalar()


def is_task_due(connection: Connection, name: str, now: datetime) -> bool:
    """True when no worker has run the periodic task in its period. A read, which spares a write."""
    due_at = select(periodic_tasks.c.due_at).where(periodic_tasks.c.name == name)
    found = connection.execute(due_at).scalar()
    return found is None or found <= now


def take_task(connection: Connection, name: str, *, now: datetime, every: timedelta) -> bool:
    """Take the periodic task for this period; True for exactly one caller."""
    changed = {"due_at": now + every}
    new = insert(connection, periodic_tasks).values(name=name, **changed)
    taken = new.on_conflict_do_update(
        index_elements=["name"], set_=changed, where=periodic_tasks.c.due_at <= now
    )
    return connection.execute(taken.returning(periodic_tasks.c.name)).first() is not None
