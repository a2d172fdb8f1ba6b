"""Causes at our services' door: groups, their numbers, their words, and the filters."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db.queries import causes as queries_causes
from app.db.queries.causes import CauseFilter
from app.db.recount import recount
from app.db.tables import syncs, transactions
from app.domain.models import Item
from tests.db.test_queries_plans import plans
from tests.web.shelf import T0, Shelf, after, done_item, failed_item

V1 = "/api/v1"
LOCKED = "The document date cannot be before the end of year lock date, currently set at {}"
WORDS = {"cause", "title", "text", "customer", "who", "next_step", "send_again"}
NUMBERS = {"companies", "transactions", "open", "syncs", "first_seen_at", "last_seen_at"}


@pytest.fixture
def filled(shelf: Shelf) -> Shelf:
    """Two companies, two causes, one cured transaction, one sync that failed as a whole."""
    locked = [failed_item(f"t{n}", LOCKED.format(f"31-Jul-201{n}")) for n in range(3)]
    shelf.failed("s1", "c1", items=(locked[0], locked[0], failed_item("t9", "Oops")))
    shelf.failed("s2", "c2", at=after(days=1), items=(locked[1], locked[2]))
    shelf.failed("s3", "c2", at=after(days=2), items=(locked[1],))
    shelf.done("s4", "c2", at=after(days=3), items=(done_item("t1"),))
    shelf.sync("s5", "c3", code=4040, at=after(days=4), error_message="Company c3 is gone")
    return shelf


def causes(client: TestClient, **query: Any) -> dict[str, Any]:
    items = client.get(f"{V1}/causes", params=query).json()["items"]
    return {each["cause"]: each for each in items}


def test_failures_are_grouped_by_cause_with_its_words(filled: Shelf, client: TestClient) -> None:
    """What most is open of comes first; every transaction of a company counts once."""
    told = client.get(f"{V1}/causes").json()
    keys = [each["cause"] for each in told["items"]]
    assert (keys, told["next"]) == (["period_closed", "unclassified", "disconnected"], None)
    first = told["items"][0]
    assert set(first) == WORDS | NUMBERS | {"group_count", "groups"}
    assert first["title"] == "The accounting period is closed"
    assert (first["who"], first["send_again"]) == ("customer", "after_next_step")
    assert (first["companies"], first["transactions"], first["open"]) == (2, 3, 2)
    assert first["first_seen_at"] == "2026-01-01T09:00:00Z"
    assert first["last_seen_at"] == "2026-01-03T09:00:00Z"


def test_open_is_what_failed_of_this_cause_and_was_not_written_since(
    shelf: Shelf, client: TestClient
) -> None:
    """Another cause of the same transaction may be open; a row without an id is for ever."""
    shelf.failed("s1", items=(failed_item("t1", "Oops"), failed_item("t2", "Oops")))
    shelf.done("s2", at=after(days=1), items=(done_item("t1"),))
    shelf.failed("s3", at=after(days=2), items=(failed_item("t1", LOCKED), failed_item(None)))
    told = {key: (each["transactions"], each["open"]) for key, each in causes(client).items()}
    assert told == {"unclassified": (3, 2), "period_closed": (1, 1)}


def test_one_sentence_over_all_companies_is_one_group(filled: Shelf, client: TestClient) -> None:
    """With the sentence, and the newest message as it came."""
    told = causes(client)["period_closed"]
    assert told["group_count"] == 1
    (group,) = told["groups"]
    assert group["like"].endswith("end of year lock date, currently set at #")
    assert group["example"] == LOCKED.format("31-Jul-2011")
    assert {name: group[name] for name in NUMBERS} == {name: told[name] for name in NUMBERS}


def test_a_sync_that_failed_as_a_whole_is_told_too(filled: Shelf, client: TestClient) -> None:
    """It has no transaction to count."""
    told = causes(client)["disconnected"]
    assert (told["companies"], told["transactions"], told["syncs"]) == (1, 0, 1)
    assert told["groups"][0]["example"] == "Company c3 is gone"
    sync = client.get(f"{V1}/syncs/s5").json()
    assert sync["cause"] == "disconnected"
    assert client.get(f"{V1}/syncs/s1").json()["cause"] is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"company_id": "c1"}, {"period_closed": 1, "unclassified": 1}),
        ({"company_id": "nobody"}, {}),
        ({"from": "2026-01-02"}, {"period_closed": 2, "disconnected": 0}),
        ({"to": "2026-01-01"}, {"period_closed": 1, "unclassified": 1}),
        ({"from": "2026-01-05", "to": "2026-01-05"}, {"disconnected": 0}),
    ],
)
def test_causes_are_filtered(
    filled: Shelf, client: TestClient, query: dict[str, str], found: dict[str, int]
) -> None:
    """By company and by the time of their syncs."""
    told = causes(client, **query)
    assert {key: each["transactions"] for key, each in told.items()} == found


def test_one_cause_has_its_own_page(filled: Shelf, client: TestClient) -> None:
    """In words also where nothing fails of it; only an unknown key is not found."""
    one = client.get(f"{V1}/causes/period_closed").json()
    assert one == causes(client)["period_closed"]
    quiet = client.get(f"{V1}/causes/rate_limited", params={"company_id": "c1"}).json()
    assert (quiet["title"], quiet["transactions"], quiet["groups"]) == ("Too many calls", 0, [])
    assert quiet["first_seen_at"] is None
    assert client.get(f"{V1}/causes/nothing").status_code == 404
    assert client.get(f"{V1}/causes", params={"who": "us"}).status_code == 422


def test_the_largest_groups_are_shown_and_the_rest_is_counted(
    shelf: Shelf, client: TestClient
) -> None:
    """Sentences that nobody knows are many."""
    letters = "abcdefghijkl"
    items = tuple(failed_item(f"t{each}", f"Strange {each * 3}") for each in letters)
    shelf.failed(items=(*items, failed_item("more", "Strange lll")))
    told = causes(client)["unclassified"]
    assert (told["group_count"], len(told["groups"])) == (12, 10)
    assert (told["groups"][0]["like"], told["groups"][0]["transactions"]) == ("strange lll", 2)
    assert len(client.get(f"{V1}/causes/unclassified").json()["groups"]) == 12


def test_syncs_and_failed_transactions_are_filtered_by_cause(
    filled: Shelf, client: TestClient
) -> None:
    """A sync by the cause of its transactions, or by its own."""

    def ids(path: str, cause: str) -> list[str]:
        told = client.get(f"{V1}/{path}", params={"cause": cause}).json()
        return [each["sync_id"] for each in told["items"]]

    assert sorted(ids("syncs", "period_closed")) == ["s1", "s2", "s3"]
    assert ids("syncs", "disconnected") == ["s5"]
    assert ids("push-errors", "period_closed") == ["s3", "s2", "s2", "s1", "s1"]
    assert ids("push-errors", "disconnected") == []


def test_a_failed_transaction_says_its_cause_in_words(filled: Shelf, client: TestClient) -> None:
    """In every answer that has transactions, and in the CSV."""
    row = client.get(f"{V1}/syncs/s2/transactions").json()["items"][0]
    assert (row["cause"], row["cause_title"]) == (
        "period_closed", "The accounting period is closed",
    )  # fmt: skip
    assert row["cause_who"] == "customer"
    assert row["cause_customer"].startswith("Your accounting software does not accept")
    assert row["cause_next_step"].endswith(".")
    assert len(row["fingerprint"]) == 16
    past = client.get(f"{V1}/companies/c2/transactions/t1").json()["history"]
    assert [each["cause"] for each in past] == [None, "period_closed", "period_closed"]
    assert past[0]["cause_title"] is None
    sheet = client.get(f"{V1}/push-errors", params={"format": "csv"}).text
    assert "The accounting period is closed" in sheet


def test_a_cause_that_no_rule_knows_any_more_stands_for_itself(
    filled: Shelf, client: TestClient
) -> None:
    """A team took it out of its file, and the rows are not decided anew yet."""
    with filled.database.writing() as connection:
        connection.execute(update(transactions).values(cause="gone"))
        connection.execute(update(syncs).values(cause=None))
    assert recount(filled.database)
    told = causes(client)["gone"]
    assert (told["title"], told["text"], told["who"]) == ("gone", None, None)
    row = client.get(f"{V1}/syncs/s2/transactions").json()["items"][0]
    assert (row["cause_title"], row["cause_who"]) == ("gone", None)


def test_causes_are_counted_without_walking_through_everything(shelf: Shelf) -> None:
    """From the syncs that have failures to their rows, by indexes."""
    shelf.failed("s1", items=(failed_item(), Item("t2", "Completed")))
    wanted = CauseFilter(since=T0, until=after(days=1))
    plan = plans(shelf.database, lambda each: queries_causes.list_causes(each, wanted))
    assert "Seq Scan" not in plan, plan
    for table in ("syncs", "transactions"):
        assert f"SCAN {table}\n" not in plan, plan
