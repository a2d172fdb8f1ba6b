"""The chaos run, small: whatever is lost, doubled, refused or killed, we end equal to Codat."""

from typing import Any, cast

import pytest
from sqlalchemy import delete, select, update

from app.db.engine import Database
from app.db.keep import keep_all
from app.db.tables import syncs, transactions
from bench.storm import play
from bench.truth import acknowledged_lost, compare, compare_cures
from tests.reports import delivery
from tests.worker.test_fetcher import FakeCodat, fetch

STATUS = {
    "syncStatusCode": 5130,
    "errorMessage": "said",
    "syncExceptionMessage": "thrown",
}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_after_a_storm_we_are_equal_to_codat(kind: str) -> None:
    """Twenty-five syncs, three deliveries in ten harmed, many calls refused, two kills."""
    figures = play(7, kind, syncs=25, kills=2)
    assert [str(each) for each in figures.differences] == []
    assert (figures.kills, figures.acknowledged_lost) == (2, 0)
    assert figures.attempts > 25
    assert figures.within_budget


@pytest.fixture
def truth(database: Database) -> dict[str, object]:
    """One failed sync, kept and fetched, and Codat's truth of it."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    codat = FakeCodat()
    fetch(database, codat)
    items = [
        {"transactionId": i.transaction_id, "status": i.status, "message": i.message,
         "integrationType": i.integration_type}
        for i in codat.items
    ]  # fmt: skip
    sync = {"company_id": "c1", "sync_id": "s1", "status": STATUS, "running": False}
    return {"syncs": [{**sync, "items": items}]}


def test_the_checker_sees_no_difference_where_there_is_none(
    database: Database, database_url: str, truth: dict[str, object]
) -> None:
    """Else the storm would never be over."""
    assert compare(database_url, truth) == []
    assert acknowledged_lost(database_url, [{"message_id": "m1", "status": 204}]) == 0


@pytest.mark.parametrize(
    "spoil",
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
def test_the_checker_sees_every_kind_of_difference(
    database: Database, database_url: str, truth: dict[str, object], spoil: object
) -> None:
    """A checker that cannot fail proves nothing."""
    with database.writing() as connection:
        connection.execute(spoil)  # type: ignore[call-overload]
        assert connection.execute(select(syncs.c.id)).all()
    assert compare(database_url, truth)


def test_a_lost_acknowledged_delivery_is_counted(
    database: Database, database_url: str, truth: dict[str, object]
) -> None:
    """Answered with 204 and not kept."""
    log = [{"message_id": "m1", "status": 204}, {"message_id": "gone", "status": 204},
           {"message_id": "refused", "status": 503}]  # fmt: skip
    assert acknowledged_lost(database_url, log) == 1


def test_the_checker_works_out_cures_by_itself(
    database: Database, database_url: str, truth: dict[str, object]
) -> None:
    """A later sync of the company completed the item, and only Codat knows of that sync."""
    (sync,) = cast(list[dict[str, Any]], truth["syncs"])
    sync["status"] = STATUS | {"syncUtc": "2024-01-01T00:00:00Z"}
    assert compare_cures(database_url, truth) == []
    cured = [{**item, "status": "Completed"} for item in sync["items"]]
    later = {"sync_id": "s2", "items": cured, "status": {"syncUtc": "2024-01-02T00:00:00Z"}}
    (found,) = compare_cures(database_url, {"syncs": [sync, {**sync, **later}]})
    assert (found.ours, found.codats) == (None, "s2")
