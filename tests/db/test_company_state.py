"""Companies that cannot sync: whatever the order in which their syncs become known."""

from datetime import datetime
from itertools import permutations

import pytest
from sqlalchemy import select

from app.db import company_state
from app.db.engine import Database
from app.db.tables import companies, syncs
from app.domain.models import SYNC_COMPLETED, Transaction
from tests.db.stored import COMPLETED_ROW, FAILED_ROW, answered, reported, write
from tests.factories import T0, after

EXPIRED, NOTHING_TO_WRITE, WRITTEN = 4260, 2040, 2000
PENDING = Transaction("t1", "Pending", None, "expense")


def fail(database: Database, sync_id: str, hours: int, *rows: Transaction) -> None:
    at = after(hours=hours)
    write(database, answered(reported(sync_id, at=at), *rows, code=EXPIRED, at=at), *rows)


def complete(database: Database, sync_id: str, hours: int, code: int = WRITTEN) -> None:
    at = after(hours=hours)
    rows = [] if code == NOTHING_TO_WRITE else [COMPLETED_ROW]
    sync = reported(sync_id, SYNC_COMPLETED, at=at)
    write(database, answered(sync, *rows, code=code, at=at), *rows)


def state(database: Database) -> tuple[datetime | None, str | None]:
    """Since when the company cannot sync, and the latest sync that failed."""
    newest = select(syncs.c.sync_id).where(syncs.c.id == companies.c.cannot_sync_pk)
    with database.reading() as connection:
        row = connection.execute(
            select(companies.c.cannot_sync_since, newest.scalar_subquery())
        ).one()
    return row[0], row[1]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_state_is_that_of_the_syncs_in_codats_order(
    database: Database, order: tuple[int, ...]
) -> None:
    """Failures before the last success do not count."""
    steps = [
        lambda: fail(database, "before", 0),
        lambda: complete(database, "good", 1),
        lambda: fail(database, "first", 2),
        lambda: fail(database, "latest", 3),
    ]
    for number in order:
        steps[number]()
    assert state(database) == (after(hours=2), "latest")
    complete(database, "again", 4, NOTHING_TO_WRITE)
    assert state(database) == (None, None)


def test_only_what_codat_says_of_a_whole_sync_counts(database: Database) -> None:
    """Neither a webhook, nor a list that is not final, nor failed items."""
    write(database, reported("told"))
    fail(database, "pending", 1, PENDING)
    fail(database, "items", 2, FAILED_ROW)
    assert state(database) == (None, None)
    fail(database, "whole", 3)
    assert state(database) == (after(hours=3), "whole")
    fail(database, "listed", 4, FAILED_ROW)  # it could reach the accounting software
    assert state(database) == (None, None)


def test_a_sync_that_turns_out_otherwise_changes_the_state(database: Database) -> None:
    fail(database, "s1", 0)
    assert state(database) == (T0, "s1")
    complete(database, "s1", 0)
    assert state(database) == (None, None)


def test_a_wrong_state_is_recomputed(database: Database) -> None:
    fail(database, "s1", 0)
    with database.writing() as connection:
        assert company_state.recompute(connection, ["c1", "unknown"]) == 0
        connection.execute(companies.update().values(cannot_sync_since=None))
        assert company_state.recompute(connection, ["c1"]) == 1
    assert state(database) == (T0, "s1")
