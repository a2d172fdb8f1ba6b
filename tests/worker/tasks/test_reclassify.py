"""Causes where they are kept: written with the rows, decided anew when the rules change."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.db import causes
from app.db import jobs as owed
from app.db import sync_writer as store
from app.db.engine import Database, open_database
from app.db.keep import keep_all
from app.db.sync_writer import Answer
from app.db.tables import syncs, transactions
from app.domain.causes.loader import read_own, shipped
from app.domain.models import CodatStatus, Item
from app.errors import SettingsError
from app.worker.fetcher import LEASE
from app.worker.tasks import reclassify as work
from app.worker.tasks.reclassify import Reclassifier, team_rules
from tests.db.test_queries_plans import plans
from tests.reports import T0, after, delivery, item_rows, sync_row
from tests.web.shelf import Shelf

LOCKED = "The document date cannot be before the period lock date, currently set at 31-Jul-2013"
SEALED = "The books are sealed for {}"
OWN = """
[[rule]]
cause = "period_closed"
message = 'books are sealed'
"""


def told(*items: Item) -> tuple[Item, ...]:
    return items


def failed(name: str, message: str) -> Item:
    return Item(name, "PushError", message, "expenses")


def seen(database: Database) -> list[tuple[str | None, str | None]]:
    return [(row["cause"], row["cause_rules"]) for row in item_rows(database)]


def answered(database: Database, code: int, items: tuple[Item, ...] | None) -> None:
    """Codat was asked about the only sync there is."""
    status = CodatStatus("c1", "s1", code, "PushError", "said", "thrown", False, T0)
    with database.writing() as connection:
        (claimed,) = owed.claim(connection, now=after(hours=1), lease=LEASE, limit=1)
        answer = Answer(status, after(hours=1), items, len(items or ()))
        assert store.record(connection, claimed, answer, now=after(hours=1))


def test_a_webhooks_own_list_is_kept_with_its_causes(database: Database) -> None:
    """Also a row that did not fail, which has none."""
    items = told(failed("t1", LOCKED), failed("t2", "Oops"), Item("t3", "Completed", LOCKED))
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", items=items)])
    version = shipped().version
    assert seen(database) == [("period_closed", version), ("unclassified", version), (None, None)]
    first, second, third = (row["fingerprint"] for row in item_rows(database))
    assert first != second
    assert third is None


def test_a_fetched_list_is_kept_with_its_causes(database: Database) -> None:
    """The sync's code tells the cause of what no rule recognises; the sync itself has none."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    answered(database, 4260, told(failed("t1", LOCKED), failed("t2", "Oops")))
    assert [cause for cause, _ in seen(database)] == ["period_closed", "subscription_ended"]
    assert sync_row(database)["cause"] is None


def test_a_sync_without_failed_rows_has_a_cause_of_its_own(database: Database) -> None:
    """From its code and its message."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    assert sync_row(database)["cause"] is None
    answered(database, 4040, None)
    kept = sync_row(database)
    assert (kept["cause"], kept["cause_rules"]) == ("disconnected", shipped().version)


@pytest.fixture
def shelf(database: Database) -> Shelf:
    """Fills the database."""
    return Shelf(database)


def test_changed_rules_reach_what_is_kept_in_small_steps(
    shelf: Shelf, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, and then nothing is written any more."""
    with shelf.database.writing() as connection:
        for n in range(7):
            items = told(failed("t1", SEALED.format(n)), Item("t2", "Completed"))
            keep_all(connection, [delivery(f"m{n}", sync_id=f"s{n}", items=items)])
    shelf.sync("whole", code=5120, error_message=SEALED.format("good"))
    monkeypatch.setattr(work, "AT_ONCE", 3)
    theirs = open_database(database_url, rules=read_own(OWN, shipped()))
    try:
        with theirs.writing() as connection:
            assert causes.decide_anew(connection, 3) == 3
        assert asyncio.run(Reclassifier(theirs).run()) == "5 causes decided anew"
        assert asyncio.run(Reclassifier(theirs).run()) == "0 causes decided anew"
        with theirs.reading() as connection:
            kept = connection.execute(select(transactions.c.cause, transactions.c.cause_rules))
            assert set(map(tuple, kept)) == {("period_closed", theirs.rules.version), (None, None)}
        whole = sync_row(theirs, "whole")
        assert (whole["cause"], whole["cause_rules"]) == ("period_closed", theirs.rules.version)
    finally:
        theirs.close()


def test_rows_from_before_there_were_causes_get_theirs(shelf: Shelf) -> None:
    """The migration leaves them an empty version."""
    number = shelf.failed()
    blank = {"cause": None, "fingerprint": None, "cause_rules": ""}
    with shelf.database.writing() as connection:
        connection.execute(update(transactions).values(**blank | {"message": LOCKED}))
        connection.execute(update(syncs).where(syncs.c.id == number).values(cause_rules=""))
    assert asyncio.run(Reclassifier(shelf.database).run()) == "2 causes decided anew"
    assert seen(shelf.database) == [("period_closed", shipped().version)]
    assert sync_row(shelf.database)["cause_rules"] is None


def test_looking_for_outdated_rows_reads_an_index(shelf: Shelf) -> None:
    """Every minute, for ever: it must not walk through the failures."""
    plan = plans(shelf.database, causes.is_outdated)
    assert "ix_transactions_cause_rules" in plan
    assert "ix_syncs_cause_rules" in plan
    assert "Seq Scan" not in plan
    assert "SCAN" not in plan.replace("SCAN CONSTANT ROW", "")


def test_without_a_file_the_rules_are_ours() -> None:
    """The usual case."""
    assert team_rules(None) is shipped()


def test_a_teams_file_is_read_at_the_start(tmp_path: Path) -> None:
    """Its rules come first."""
    file = tmp_path / "causes.toml"
    file.write_text(OWN)
    found = team_rules(file).of_transaction(SEALED, status="PushError")
    assert found == "period_closed"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "not UTF-8"),
        (b"[[rule", "not TOML"),
        (b"[[rule]]\ncause = 'canary'\nmessage = 'x'", "rule 1 (canary): there is no such cause"),
    ],
)
def test_a_wrong_file_stops_the_start_with_one_line(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    """That names the setting."""
    file = tmp_path / "causes.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        team_rules(file)
    assert str(caught.value).startswith("CAUSES_FILE: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
