"""The chaos run, small; and the comparison with the simulator's truth, which must find errors."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete, update

from app.db.engine import Database
from app.db.tables import syncs, transactions
from bench.chaos import play
from bench.truth import acknowledged_lost, compare, compare_resolutions
from tests.factories import deliver
from tests.processes import Stage
from tests.worker.fakes import FakeCodat, fetch


@pytest.mark.timeout(300)
def test_after_chaos_we_are_equal_to_codat(stage: Stage) -> None:
    """Events lost, doubled and reordered, calls failing, processes killed."""
    result = play(stage, seed=7, syncs=10, kills=4)
    assert [str(difference) for difference in result.differences] == []
    assert result.acknowledged_lost == 0
    assert result.attempts > 10
    assert result.deaths.total() >= 4
    assert result.is_within_budget
    assert [process.log for process in stage.processes if "Traceback" in process.logged()] == []


@pytest.fixture
def truth(database: Database) -> list[dict[str, Any]]:
    """One failed sync, stored and fetched, as Codat has it."""
    deliver(database, "m1")
    codat = FakeCodat()
    fetch(database, codat)
    items = [
        {"transactionId": row.transaction_id, "status": row.status, "message": row.message,
         "integrationType": row.integration_type}
        for row in codat.transactions
    ]  # fmt: skip
    answer = asyncio.run(codat.get_status("c1", "s1"))
    status = {
        "syncStatusCode": answer.status_code,
        "errorMessage": answer.error_message,
        "syncExceptionMessage": answer.exception_message,
        "syncUtc": "2024-01-01T00:00:00Z",
    }
    sync = {"company_id": "c1", "sync_id": "s1", "status": status, "running": False}
    return [{**sync, "items": items}]


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@on_sqlite
def test_equal_data_has_no_difference(database_url: str, truth: list[dict[str, Any]]) -> None:
    assert compare(database_url, {"syncs": truth}) == []
    assert acknowledged_lost(database_url, [{"message_id": "m1", "status": 204}]) == 0


@on_sqlite
@pytest.mark.parametrize(
    "statement",
    [
        update(syncs).values(state="completed"),
        update(syncs).values(status_code=2000),
        update(syncs).values(error_message=None),
        update(syncs).values(exception_message="another"),
        update(syncs).values(sync_id="s2"),
        update(transactions).where(transactions.c.position == 1).values(status="PushError"),
        update(transactions).where(transactions.c.position == 0).values(message="another"),
        delete(transactions).where(transactions.c.position == 1),
    ],
    ids=lambda statement: str(statement)[:40],
)
def test_every_kind_of_difference_is_found(
    database: Database, database_url: str, truth: list[dict[str, Any]], statement: Any
) -> None:
    with database.writing() as connection:
        connection.execute(statement)
    assert compare(database_url, {"syncs": truth})


@on_sqlite
@pytest.mark.usefixtures("truth")
def test_a_lost_acknowledged_event_is_counted(database_url: str) -> None:
    attempts = [{"message_id": "m1", "status": 204}, {"message_id": "gone", "status": 204},
                {"message_id": "refused", "status": 503}]  # fmt: skip
    assert acknowledged_lost(database_url, attempts) == 1


@on_sqlite
def test_resolutions_follow_from_the_truth_alone(
    database_url: str, truth: list[dict[str, Any]]
) -> None:
    """A later sync of the company completed the transaction, and only Codat has that sync."""
    (sync,) = truth
    assert compare_resolutions(database_url, {"syncs": truth}) == []
    completed = [{**item, "status": "Completed"} for item in sync["items"]]
    later = {"sync_id": "s2", "items": completed, "status": {"syncUtc": "2024-01-02T00:00:00Z"}}
    (found,) = compare_resolutions(database_url, {"syncs": [sync, {**sync, **later}]})
    assert (found.ours, found.codats) == (None, "s2")
