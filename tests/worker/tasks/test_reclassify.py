"""Causes: stored with the rows, and decided again when the rules change."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from app import logging as log
from app.db import reclassification, workers
from app.db.engine import Database, open_database
from app.db.tables import failed_transactions, transactions
from app.domain.causes.loader import load_builtin, load_custom
from app.domain.models import SyncStatus, Transaction
from app.errors import SettingsError
from app.worker.tasks import reclassify as reclassify_module
from app.worker.tasks.reclassify import Reclassifier, load_classifier
from tests.factories import add_event, after, deliver, project, sync_row, transaction_rows
from tests.worker.fakes import Clock, FakeCodat, fetch

LOCKED = "The document date cannot be before the period lock date, currently set at 31-Jul-2013"
SEALED = "The books are sealed for {}"
CUSTOM = """
[[rule]]
cause = "period_closed"
message = 'books are sealed'
"""


@pytest.fixture
def theirs(database_url: str) -> Iterator[Database]:
    """The same database, with a team's own rules."""
    opened = open_database(database_url, classifier=load_custom(CUSTOM, load_builtin()))
    yield opened
    opened.close()


class Whole(FakeCodat):
    """A sync that failed as a whole."""

    async def get_status(self, company_id: str, sync_id: str) -> SyncStatus:
        answer = await super().get_status(company_id, sync_id)
        return replace(answer, error_message=SEALED.format("good"))


def causes(database: Database) -> list[tuple[str | None, str | None]]:
    return [(row["cause_key"], row["rules_version"]) for row in transaction_rows(database)]


def test_causes_are_stored_with_failed_transactions_and_syncs(database: Database) -> None:
    """The sync's code helps where no rule matches a message; a sync has a cause of its own only
    where no transaction failed.
    """
    version = load_builtin().version
    items = [
        {"id": "t1", "status": "PushError", "errorMessage": LOCKED},
        {"id": "t2", "status": "PushError", "errorMessage": "Oops"},
        {"id": "t3", "status": "Completed", "errorMessage": LOCKED},
    ]
    deliver(database, "m1", transactions=items)
    assert causes(database) == [("period_closed", version), ("unclassified", version), (None, None)]
    failed = (Transaction("t1", "PushError", LOCKED), Transaction("t2", "PushError", "Oops"))
    fetch(database, FakeCodat(code=4260, transactions=failed))
    assert [key for key, _ in causes(database)] == ["period_closed", "subscription_ended"]
    assert sync_row(database)["cause_key"] is None
    deliver(database, "m2")
    fetch(database, FakeCodat(code=4040, transactions=()))
    row = sync_row(database)
    assert (row["cause_key"], row["rules_version"]) == ("disconnected", version)


def test_changed_rules_reach_stored_causes_in_small_steps(
    database: Database, theirs: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transactions, whole syncs and the failures by cause; then nothing is written any more."""
    monkeypatch.setattr(reclassify_module, "ROWS_PER_STEP", 3)
    for n in range(7):
        items = [
            {"id": f"t{n}", "status": "PushError", "errorMessage": SEALED.format(n)},
            {"id": "ok", "status": "Completed"},
        ]
        add_event(database, f"m{n}", sync_id=f"s{n}", company_id=f"c{n % 2}", transactions=items)
    project(database)
    deliver(database, "whole", sync_id="whole", at=after(seconds=-1))
    fetch(database, Whole(code=5120, transactions=()))
    with theirs.reading() as connection:
        first = reclassification.list_outdated(connection, 3)
    # three by their transactions, one by its own cause
    assert sum(len(step.sync_pks) for step in first) == 4
    assert asyncio.run(Reclassifier(theirs, Clock()).run()) == "8 syncs were reclassified"
    assert asyncio.run(Reclassifier(theirs, Clock()).run()) == "0 syncs were reclassified"
    version = theirs.classifier.version
    with theirs.reading() as connection:
        stored = connection.execute(select(transactions.c.cause_key, transactions.c.rules_version))
        assert set(map(tuple, stored)) == {("period_closed", version), (None, None)}
        by_cause = connection.execute(select(failed_transactions.c.cause_key)).scalars().all()
        assert by_cause == ["period_closed"] * 7
    whole = sync_row(theirs, "whole")
    assert (whole["cause_key"], whole["rules_version"]) == ("period_closed", version)


def test_the_newest_rules_win_where_workers_differ(database: Database, theirs: Database) -> None:
    """Whichever worker looks first; the older ones leave the rows alone until the newest ended."""
    clock = Clock()
    old, new = Reclassifier(database, clock), Reclassifier(theirs, clock)
    items = [{"id": "t1", "status": "PushError", "errorMessage": SEALED.format("good")}]
    deliver(database, "m1", transactions=items)
    beat(database, "old-1", 0)
    assert run_if_allowed(old) == "0 syncs were reclassified"
    beat(theirs, "new-1", 10)
    beat(database, "old-2", 20)  # a replica of the older one that was restarted
    clock.now = after(seconds=20)
    for _ in range(3):
        assert [run_if_allowed(worker) is None for worker in (old, new)] == [True, False]
        assert causes(database) == [("period_closed", theirs.classifier.version)]
    changed_at = sync_row(database)["updated_at"]
    beat(theirs, "new-1", 80)
    clock.now = after(seconds=80)
    assert run_if_allowed(new) == "0 syncs were reclassified"
    assert sync_row(database)["updated_at"] == changed_at
    with theirs.writing() as connection:
        workers.remove(connection, "new-1")
    beat(database, "old-2", 90)
    assert run_if_allowed(old) == "1 syncs were reclassified"


def test_a_fetch_by_a_worker_with_older_rules_leaves_the_cause_alone(
    database: Database, theirs: Database
) -> None:
    """As long as Codat's answer is the same; a new answer is classified by the rules at hand."""
    for message_id, worker in (("m1", theirs), ("m2", database)):
        deliver(database, message_id)
        fetch(worker, Whole(code=5120, transactions=()))
        row = sync_row(database)
        assert (row["cause_key"], row["rules_version"]) == (
            "period_closed",
            theirs.classifier.version,
        )
    deliver(database, "m3")
    fetch(database, Whole(code=4040, transactions=()))
    assert sync_row(database)["cause_key"] == "disconnected"


def run_if_allowed(reclassifier: Reclassifier) -> str | None:
    """What the scheduler does when the task is due."""
    with reclassifier.database.reading() as connection:
        if not reclassifier.may_run(connection):
            return None
    return asyncio.run(reclassifier.run())


def beat(database: Database, worker_id: str, seconds: float) -> None:
    with database.writing() as connection:
        workers.beat(connection, worker_id, after(seconds=seconds))


@pytest.mark.usefixtures("restored_logging")
def test_different_rules_are_logged_once(
    database: Database, theirs: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", "json")
    old = Reclassifier(database, Clock())
    beat(database, "old", 0)
    beat(theirs, "new", 5)
    for _ in range(3):
        run_if_allowed(old)
    with theirs.writing() as connection:
        workers.remove(connection, "new")
    for _ in range(3):
        run_if_allowed(old)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [
        ("warning", "workers have different rules for causes; the newest apply"),
        ("info", "all workers have the same rules for causes"),
    ]
    assert lines[0]["applied_version"] == theirs.classifier.version


def test_a_step_has_few_syncs_and_few_rows(
    database: Database, theirs: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of the worker holds a company's row; at least one sync per step."""
    for n, rows in enumerate([1, 1, 1, 5, 2]):
        items = [{"id": f"t{n}-{k}", "status": "PushError"} for k in range(rows)]
        add_event(database, f"m{n}", sync_id=f"s{n}", transactions=items)
    project(database)
    monkeypatch.setattr(reclassification, "MAX_SYNCS", 2)
    monkeypatch.setattr(reclassification, "MAX_ROWS", 4)
    with theirs.reading() as connection:
        steps = reclassification.list_outdated(connection, 100)
    assert {step.company_id for step in steps} == {"c1"}
    assert [len(step.sync_pks) for step in steps] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "CAUSES_FILE cannot be read: No such file"),
        (b"\xff", "CAUSES_FILE is not UTF-8"),
        (b"[[rule", "CAUSES_FILE: "),
        (b"[[rule]]\ncause = 'canary'\nmessage = 'x'", "CAUSES_FILE: rule 1"),
    ],
)
def test_an_invalid_file_is_a_settings_error(
    tmp_path: Path, content: bytes | None, text: str
) -> None:
    """One line that names the setting."""
    file = tmp_path / "causes.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_classifier(file)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_a_teams_rules_come_before_the_builtin(tmp_path: Path) -> None:
    """Without a file only the built-in ones count."""
    assert load_classifier(None) is load_builtin()
    file = tmp_path / "causes.toml"
    file.write_text(CUSTOM)
    found = load_classifier(file).classify_transaction(SEALED, status="PushError")
    assert found == "period_closed"
