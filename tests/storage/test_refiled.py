"""Who mends what is summed up does not stand in another's way."""

import threading
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select, update

from app.storage import bulk, refiled
from app.storage.database import Database
from app.storage.tables import filed_totals
from tests.web.shelf import Shelf


def test_two_who_mend_at_once_mend_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daily recount, and one after an erasure: both would add the same difference."""
    Shelf(database).failed("s1")
    with database.writing() as connection:
        connection.execute(update(filed_totals).values(syncs=7))
    both = threading.Barrier(2)

    def slowly(*told: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(1)
        bulk.write(*told)

    monkeypatch.setattr(refiled, "write", slowly)

    def mend() -> None:
        with database.writing() as connection:
            refiled.mend_totals(connection)

    threads = [threading.Thread(target=mend) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with database.reading() as connection:
        assert connection.execute(select(filed_totals.c.syncs)).scalars().all() == [0]
