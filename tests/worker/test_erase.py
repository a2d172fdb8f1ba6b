"""The receipt of an erasure, and conflicts with workers; `tests.db.test_erasure` has the rest."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest

from app.db import erasure, sync_writer
from app.db.engine import Database
from app.errors import DatabaseUnavailable, NotFound
from app.worker import erase as erase_module
from app.worker import threads
from app.worker.erase import Eraser
from app.worker.fetcher import Fetcher
from tests.db.test_erasure import C1, C2, fill, rows
from tests.factories import T0, count_rows
from tests.worker.fakes import Clock, FakeCodat, claim_jobs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pauses, and a few rows at a time."""
    monkeypatch.setattr(erase_module, "PAUSE_S", 0)
    without_pause = partial(threads.retry_conflicts, pause_s=0)
    monkeypatch.setattr(erase_module, "retry_conflicts", without_pause)
    monkeypatch.setattr(erasure, "SYNCS_PER_STEP", 2)


def test_a_receipt_lists_what_was_erased(database: Database) -> None:
    """Numbers and the id, no content."""
    fill(database, C1)
    reports: list[str] = []
    eraser = Eraser(database, Clock(), report=reports.append)
    eraser.require_known(C1)
    receipt = eraser.erase(C1)
    assert C1 not in str(rows(database))
    lines = receipt.lines()
    assert [line.partition(":")[0] for line in lines[:-1]] == list(erasure.TABLES)
    assert lines[-1] == f"Erased {receipt.rows.total()} rows of company {C1}, 2026-01-01T09:00:00Z"
    assert "canary" not in "".join(lines)
    assert reports == ["2 syncs erased", "3 syncs erased"]


def test_an_unknown_company_is_an_error(database: Database) -> None:
    """A typing error must not look like an erasure."""
    fill(database, C2, syncs=1)
    with pytest.raises(NotFound, match=f"No data for company {C1}"):
        Eraser(database, Clock()).require_known(C1)


@pytest.mark.parametrize(("failures", "is_erased"), [(4, True), (5, False)])
def test_a_conflict_with_a_worker_is_retried(
    database: Database, monkeypatch: pytest.MonkeyPatch, failures: int, is_erased: bool
) -> None:
    """Some times; after that it can be run again."""
    fill(database, C1, syncs=1)
    erase_step, left = erasure.erase, [failures]

    def conflict(connection: Any, step: str, company_id: str) -> Counter[str]:
        if step == "companies" and left[0]:
            left[0] -= 1
            raise DatabaseUnavailable("deadlock")
        return erase_step(connection, step, company_id)

    monkeypatch.setattr(erasure, "erase", conflict)
    eraser = Eraser(database, Clock())
    if not is_erased:
        with pytest.raises(DatabaseUnavailable):
            eraser.erase(C1)
        assert count_rows(database, "syncs") == 0
    assert eraser.erase(C1).rows["companies"] == 1


def test_a_worker_in_the_middle_of_a_fetch_writes_nothing_afterwards(database: Database) -> None:
    fill(database, C1)
    claims = claim_jobs(database, limit=3)

    def erase_once() -> None:
        if count_rows(database, "syncs"):
            Eraser(database, Clock()).erase(C1)

    fetcher = Fetcher(database, FakeCodat(meanwhile=erase_once), Clock(), max_attempts=12)
    assert {asyncio.run(fetcher.handle(claim)) for claim in claims} == {"lost"}
    assert C1 not in str(rows(database))
    with database.writing() as connection:
        assert not sync_writer.refresh(connection, claims[0].key, now=T0, actor=None)
