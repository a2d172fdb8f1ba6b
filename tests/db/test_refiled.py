"""Who mends what is summed up does not stand in another's way."""

import threading
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select, update

from app.db import counted, refiled, tally
from app.db import recount as recounting
from app.db.bulk import write
from app.db.engine import Database
from app.db.recount import recount
from app.db.tables import filed_totals
from app.db.tables_counted import NO_CODE
from tests.web.shelf import Shelf


def test_two_who_mend_at_once_mend_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daily recount, and one after an erasure: both would add the same difference."""
    Shelf(database).failed("s1")
    with database.writing() as connection:
        connection.execute(update(filed_totals).values(syncs=7))
        write(connection, tally.added({("c1", None, "failed", NO_CODE): 5}))
    both = threading.Barrier(2)

    def slowly(*told: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(1)
        write(*told)

    monkeypatch.setattr(refiled, "write", slowly)
    monkeypatch.setattr(recounting, "write", slowly)
    threads = [threading.Thread(target=recount, args=(database,)) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with database.reading() as connection:
        assert connection.execute(select(filed_totals.c.syncs)).scalars().all() == [0, 0]
        assert counted.of_companies(connection, ["c1"])["c1"]["failed"] == 1
