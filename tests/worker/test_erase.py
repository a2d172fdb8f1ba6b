"""A company is erased from every table, and nobody else loses a row."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select

from app.codat.webhooks import payloads as codat_events
from app.db import erasure, journal
from app.db import jobs as owed
from app.db import start_lock as starting
from app.db import sync_writer as store
from app.db.engine import Database
from app.db.keep import keep_all, keep_raw
from app.db.tables import alerts, metadata
from app.domain.models import Delivery, Item
from app.errors import NotKnown, StorageUnavailable
from app.worker import erase as erasing
from app.worker.erase import Eraser, Receipt
from app.worker.fetcher import LEASE, Fetcher
from tests.reports import T0, after, delivery
from tests.worker.test_fetcher import Clock, FakeCodat

C1, C2 = "0498e921-9b53-4396-a412-4f2f5983b0a2", "8a210b68-6988-11ed-a1eb-0242ac120002"
FILLED = (
    "syncs", "transactions", "fetches", "notes", "events", "companies", "alerts", "starts",
)  # fmt: skip
ABOUT_NOBODY = {"gates", "duties", "heartbeats", "feeds", "day_tallies", "filed_totals"}
WORKED_OFF = {"journal"}  # before what it says is erased


def fill(database: Database, company_id: str, syncs: int = 3) -> None:
    """Something about a company in every table that can have it."""
    told = [
        delivery(
            f"{company_id}-{n}",
            sync_id=f"s{n}",
            company_id=company_id,
            company_name="canary-name",
            items=(Item("t1", "Failed", "canary-message"),),
        )
        for n in range(syncs)
    ]
    unreadable = Delivery(f"{company_id}-odd", T0, b'[{"CompanyId":"%s"}]' % company_id.encode())
    array = Delivery(f"{company_id}-raw", T0, unreadable.body, codat_events.read(unreadable.body))
    with database.writing() as connection:
        keep_all(connection, [*told, replace(told[0]), array])
        keep_raw(connection, unreadable, "refused")
        lost = {"cause": "webhooks_lost", "company_id": company_id, "text": "x", "opened_at": T0}
        connection.execute(alerts.insert(), lost)
        starting.take_turn(connection, company_id, "wanted", now=T0, until=T0)
        journal.work_off_some(connection)


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.reading() as connection:
        return {
            name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for name, table in metadata.tables.items()
        }


def erase(database: Database, company_id: str = C1) -> Receipt:
    eraser = Eraser(database, Clock())
    eraser.require_known(company_id)
    return eraser.erase(company_id)


def test_nothing_of_the_company_is_left_and_others_lose_nothing(database: Database) -> None:
    """Also not the events that nobody could read."""
    fill(database, C2)
    others = rows(database)
    fill(database, C1)
    both = rows(database)
    receipt = erase(database)
    left = rows(database)
    assert C1 not in str(left)
    assert left == others
    assert +receipt.rows == +Counter({n: len(both[n]) - len(left[n]) for n in both})
    assert {*FILLED} <= {*+receipt.rows}


def test_the_receipt_counts_every_table_and_ends_with_the_sum(database: Database) -> None:
    """It holds the id and numbers, and no more."""
    fill(database, C1)
    receipt = erase(database)
    lines = receipt.lines()
    assert [line.partition(":")[0] for line in lines[:-1]] == list(erasure.TABLES)
    assert lines[-1] == f"erased {receipt.rows.total()} rows of company {C1}, 2026-01-01T09:00:00Z"
    assert "canary" not in "".join(lines)


def test_every_table_is_covered_or_known_to_be_about_nobody() -> None:
    """Who adds a table that speaks of companies in another way must say so here."""
    assert set(metadata.tables) == {*erasure.TABLES} | ABOUT_NOBODY | WORKED_OFF


def test_what_is_not_told_or_counted_yet_is_erased_too(database: Database) -> None:
    """The journal still holds what a webhook told just before."""
    fill(database, C1)
    last = delivery("last", sync_id="s9", company_id=C1, items=(Item("t9", "Failed"),))
    with database.writing() as connection:
        keep_all(connection, [last])
    assert C1 in str(rows(database)["journal"])
    erase(database)
    assert C1 not in str(rows(database))


def test_a_company_nobody_knows_is_said_to_be_unknown(database: Database) -> None:
    """A typing error must not look like an erasure."""
    fill(database, C2)
    before = rows(database)
    with pytest.raises(NotKnown, match=C1):
        erase(database)
    assert rows(database) == before


def test_a_part_of_an_id_is_not_the_id(database: Database) -> None:
    """Neither in a column nor in a body."""
    fill(database, C1)
    with pytest.raises(NotKnown):
        erase(database, C1[:8])


def test_stopped_half_way_it_is_run_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database went away after the syncs; the company is still known until all is gone."""
    fill(database, C1)
    monkeypatch.setattr(erasing, "PAUSE_S", 0)

    def away(*_: object) -> int:
        raise StorageUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(erasure, "erase_rows", away)
        with pytest.raises(StorageUnavailable):
            erase(database)
    assert rows(database)["syncs"] == []
    assert erase(database).rows["events"] == 5
    assert C1 not in str(rows(database))


def test_it_works_in_small_commits(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many syncs a company has, nobody waits long for a lock."""
    monkeypatch.setattr(erasing, "SYNCS_PER_COMMIT", 2)
    monkeypatch.setattr(erasing, "ROWS_PER_COMMIT", 2)
    fill(database, C1, syncs=5)
    told: list[str] = []
    assert Eraser(database, Clock(), tell=told.append).erase(C1).rows["events"] == 7
    assert told == ["2 syncs erased", "4 syncs erased", "5 syncs erased"]


def test_a_worker_that_is_at_it_writes_nothing_afterwards(database: Database) -> None:
    """It asked Codat while the company was erased; its answer has no place to go."""
    fill(database, C1)
    with database.writing() as connection:
        claims = owed.claim(connection, now=T0, lease=LEASE, limit=3)
    codat = FakeCodat(meanwhile=lambda: erase_once(database))
    fetcher = Fetcher(database, codat, 12, Clock())
    for claimed in claims:
        asyncio.run(fetcher.fetch(claimed))
    assert C1 not in str(rows(database))
    with database.writing() as connection:
        assert not store.refresh(connection, "s1", C1, T0)


def erase_once(database: Database) -> None:
    if rows(database)["syncs"]:
        erase(database)


def test_a_later_webhook_makes_the_company_known_anew(database: Database) -> None:
    """Nothing is kept by which it could be recognised: it is erased at Codat first."""
    fill(database, C1)
    erase(database)
    with database.writing() as connection:
        again = delivery(f"{C1}-0", sync_id="s0", company_id=C1, at=after(days=1))
        assert keep_all(connection, [again]).new == {f"{C1}-0"}
    assert [row["company_id"] for row in rows(database)["companies"]] == [C1]


def test_sqlites_file_holds_nothing_of_it_either(database: Database) -> None:
    """Deleted pages are written over, and the log is let go."""
    if not database.is_sqlite:
        pytest.skip("PostgreSQL gives the space back by its own vacuum")
    fill(database, C1)
    file = Path(str(make_url(str(database.engine.url)).database))
    parts = [file, file.with_name(file.name + "-wal")]
    assert any(b"canary-message" in part.read_bytes() for part in parts)
    erase(database)
    assert not any(b"canary" in part.read_bytes() for part in parts if part.exists())
