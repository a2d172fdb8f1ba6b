"""Our services' door: what it answers, in which form, and what it refuses."""

import csv
import io
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.db import rate_limit as gate
from app.db.engine import Database
from app.domain.models import Item
from tests.web.shelf import T0, Shelf, after, done_item, failed_item

V1 = "/api/v1"
NAMES = {
    "company_id", "company_name", "sync_id", "state", "status_code", "status_text", "outcome",
    "failure_stage", "error_message", "exception_message", "data_pushed", "started_at",
    "finished_at", "first_seen_at", "updated_at", "source_platform", "transactions", "errors",
    "cause",
}  # fmt: skip


def test_a_sync_has_every_field_of_the_contract(shelf: Shelf, client: TestClient) -> None:
    """Times in UTC, the status in words, counts and the state of its errors."""
    shelf.company("c1", "Toft stores")
    number = shelf.failed(items=(failed_item(), done_item("t2")))
    shelf.fetch(number, "settled", attempts=1)
    told = client.get(f"{V1}/syncs/s1").json()
    assert set(told) == NAMES
    assert told["company_name"] == "Toft stores"
    assert (told["status_text"], told["outcome"]) == ("Data write error", "partly_failed")
    assert told["started_at"] == "2026-01-01T09:00:00Z"
    assert told["source_platform"] is None
    assert told["transactions"] == {
        "total": 2, "completed": 1, "failed": 1, "pending": 0, "other": 0, "expected": 2,
    }  # fmt: skip
    assert told["errors"] == {
        "state": "fetched", "attempts": 1, "next_attempt_at": None,
        "fetched_at": "2026-01-01T09:00:00Z", "last_error": None,
    }  # fmt: skip


def test_what_is_not_known_is_null_and_never_zero(shelf: Shelf, client: TestClient) -> None:
    """A failed sync whose list has not been read shows when it is asked for again."""
    number = shelf.failed(items=None)
    shelf.fetch(number, due=after(minutes=5), attempts=2, last_error="Codat said 503")
    told = client.get(f"{V1}/syncs/s1").json()
    assert set(told["transactions"].values()) == {None}
    assert told["errors"]["state"] == "waiting"
    assert told["errors"]["next_attempt_at"] == "2026-01-01T09:05:00Z"
    assert told["errors"]["last_error"] == "Codat said 503"


def test_while_calls_rest_the_next_attempt_is_when_they_may_be_made(
    shelf: Shelf, client: TestClient, database: Database
) -> None:
    """A fetch that is due waits at the gate: its own time, and no reason, would explain nothing."""
    shelf.fetch(shelf.failed("s1", items=None), due=T0)
    shelf.fetch(shelf.failed("s2", items=None), due=after(hours=9), last_error="Codat said 503")
    with database.writing() as connection:
        gate.close(connection, after(hours=5), "Codat answered 429", T0)

    def told() -> list[tuple[str, str | None]]:
        found = [client.get(f"{V1}/syncs/{each}").json()["errors"] for each in ("s1", "s2")]
        return [(each["next_attempt_at"], each["last_error"]) for each in found]

    later = ("2026-01-01T18:00:00Z", "Codat said 503")
    assert told() == [("2026-01-01T14:00:00Z", "Codat answered 429"), later]
    with database.writing() as connection:
        gate.open_again(connection, after(minutes=1))
    assert told() == [("2026-01-01T09:00:00Z", None), later]


def test_a_list_pages_with_next_until_it_is_null(shelf: Shelf, client: TestClient) -> None:
    """The same filters, the cursor of the page before."""
    for n in range(5):
        shelf.failed(f"s{n}", updated_at=after(minutes=n))
    asked: dict[str, Any] = {"limit": 2, "state": "failed", "from": "2026-01-01"}
    seen = []
    while True:
        page = client.get(f"{V1}/syncs", params=asked).json()
        seen += [each["sync_id"] for each in page["items"]]
        if page["next"] is None:
            break
        asked["cursor"] = page["next"]
    assert seen == ["s4", "s3", "s2", "s1", "s0"]


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ("from=2026-01-01&to=2026-01-01", 1),
        ("from=2026-01-01T09:00:00Z&to=2026-01-01T09:00:01Z", 1),
        ("to=2026-01-01T09:00:00Z", 0),
        ("from=2026-01-01T10:00:00%2B01:00", 1),
        ("from=2026-01-01T10:00:00+01:00&to=2026-01-02", 1),
        ("from=2026-01-01T09:00:01", 0),
    ],
)
def test_times_are_dates_or_rfc_3339(
    shelf: Shelf, client: TestClient, asked: str, count: int
) -> None:
    """From is inclusive, to is not, and a date takes in its whole day."""
    shelf.failed(at=T0)
    for path in ("syncs", "push-errors"):
        assert len(client.get(f"{V1}/{path}?{asked}").json()["items"]) == count
    assert client.get(f"{V1}/stats?{asked}").json()["total"] == count


def test_ids_may_hold_slashes_and_anything_else(shelf: Shelf, client: TestClient) -> None:
    """As long as they are percent-encoded."""
    shelf.company("c/1 ä")
    shelf.failed("s/1", "c/1 ä", items=(failed_item("t/1?#%2F"),))
    shelf.event("msg/1", company_id="c/1 ä", sync_id="s/1")
    sync, company, item = "s%2F1", "c%2f1%20%C3%A4", "t%2F1%3F%23%252F"
    for path in (
        f"syncs/{sync}",
        f"syncs/{sync}/transactions",
        f"syncs/{sync}/transactions/{item}",
        f"syncs/{sync}/timeline",
        f"companies/{company}",
        f"companies/{company}/syncs/latest",
        f"companies/{company}/transactions/{item}",
        "events/msg%2F1",
    ):
        assert client.get(f"{V1}/{path}").status_code == 200, path
    assert client.get(f"{V1}/syncs/s/1").status_code == 404


def test_a_colliding_sync_id_is_409_until_the_company_is_named(
    shelf: Shelf, client: TestClient
) -> None:
    """On every call about one sync."""
    shelf.failed("s1", "c1")
    shelf.failed("s1", "c2")
    for path in ("", "/transactions", "/transactions/t1", "/timeline"):
        assert client.get(f"{V1}/syncs/s1{path}").status_code == 409
        assert client.get(f"{V1}/syncs/s1{path}?company_id=c2").status_code == 200
    assert client.post(f"{V1}/syncs/s1/refresh").status_code == 409


def test_a_known_answer_is_not_sent_again(shelf: Shelf, client: TestClient) -> None:
    """304 while nothing has changed, and a new tag once it has."""
    number = shelf.failed()
    shelf.company("c1")
    shelf.event("m1")
    for path in ("syncs/s1", "companies/c1", "companies/c1/syncs/latest", "events/m1"):
        first = client.get(f"{V1}/{path}")
        tag = first.headers["etag"]
        for told in (tag, f'W/{tag}, "other"', "*"):
            again = client.get(f"{V1}/{path}", headers={"If-None-Match": told})
            assert (again.status_code, again.content) == (304, b""), path
            assert again.headers["etag"] == tag
        other = client.get(f"{V1}/{path}", headers={"If-None-Match": '"other"'})
        assert other.status_code == 200
    before = client.get(f"{V1}/syncs/s1").headers["etag"]
    shelf.fetch(number, attempts=1)
    assert client.get(f"{V1}/syncs/s1").headers["etag"] != before


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_every_row_in_the_order_asked_for(shelf: Shelf, client: TestClient) -> None:
    """More than a page; by `Accept` or by `format`; at most `limit` rows where it is given."""
    for n in range(205):
        shelf.sync(f"s{n:03}")
    answer = client.get(f"{V1}/syncs?sort=company_id", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert "syncs.csv" in answer.headers["content-disposition"]
    assert [row["sync_id"] for row in rows_of(answer.text)] == [f"s{n:03}" for n in range(205)]
    some = client.get(f"{V1}/syncs?format=csv&limit=3&sort=company_id").text
    assert [row["sync_id"] for row in rows_of(some)] == ["s000", "s001", "s002"]
    assert len(rows_of(client.get(f"{V1}/syncs?format=csv&company_id=none").text)) == 0


def test_csv_cells_are_no_formulas(shelf: Shelf, client: TestClient) -> None:
    """What Codat's platforms wrote is text, also in a spreadsheet."""
    hostile = '=HYPERLINK("http://x","y")\r\n,ä'
    shelf.failed(items=(failed_item("t1", hostile), Item("-2", "Failed", None)))
    told = rows_of(client.get(f"{V1}/push-errors?format=csv").text)
    assert [row["message"] for row in told] == ["", "'" + hostile]
    assert told[0]["transaction_id"] == "'-2"
    assert told[1]["failed"] == "true"


def test_a_wrong_csv_request_is_a_problem_and_no_torn_file(client: TestClient) -> None:
    """The first page is read before the answer begins."""
    answer = client.get(f"{V1}/syncs?format=csv&cursor=zzz")
    assert (answer.status_code, answer.json()["errors"][0]["name"]) == (422, "cursor")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json, text/csv;q=0.5", "application/json"),
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("text/csv;q=0", "application/json"),
        ("text/csv;q=x", "application/json"),
    ],
)
def test_accept_is_weighed(client: TestClient, accept: str, kind: str) -> None:
    """JSON unless CSV is liked at least as much."""
    answer = client.get(f"{V1}/syncs", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(kind)


def test_a_transactions_history_says_whether_it_reached_the_books(
    shelf: Shelf, client: TestClient
) -> None:
    """The current outcome, what cured it, and every sync that had it."""
    shelf.failed("s1", at=T0)
    shelf.done("s2", at=after(hours=1))
    told = client.get(f"{V1}/companies/c1/transactions/t1").json()
    assert (told["current"], told["cured_by"]) == ("completed", "s2")
    assert [(row["sync_id"], row["cured_by"]) for row in told["history"]] == [
        ("s2", None),
        ("s1", "s2"),
    ]
    shelf.failed("s3", at=after(hours=2))
    told = client.get(f"{V1}/companies/c1/transactions/t1").json()
    assert (told["current"], told["cured_by"]) == ("failed", None)


def test_a_syncs_transactions_are_listed_as_they_came(shelf: Shelf, client: TestClient) -> None:
    """Identical rows and unknown words included."""
    shelf.failed(items=(failed_item(), failed_item(), Item(None, "Brewing", "?", "teapots")))
    items = client.get(f"{V1}/syncs/s1/transactions").json()["items"]
    assert [item["position"] for item in items] == [0, 1, 2]
    assert items[2]["status"] == "Brewing"
    assert (items[2]["current"], items[2]["transaction_id"]) == ("other", None)
    assert len(client.get(f"{V1}/syncs/s1/transactions/t1").json()["items"]) == 2
    assert len(client.get(f"{V1}/syncs/s1/transactions?failed=true").json()["items"]) == 2


def test_companies_and_stats_name_every_outcome(shelf: Shelf, client: TestClient) -> None:
    """Also those that did not happen."""
    shelf.company("c1", "Toft stores")
    shelf.failed()
    company = client.get(f"{V1}/companies/c1").json()
    assert company["syncs"] == {
        "total": 1, "in_progress": 0, "all_written": 0, "nothing_to_write": 0,
        "partly_failed": 0, "failed": 1, "unknown": 0,
    }  # fmt: skip
    assert company["open_failures"] == 1
    assert company["last_sync"]["sync_id"] == "s1"
    assert client.get(f"{V1}/companies").json() == {"items": [company], "next": None}
    assert client.get(f"{V1}/companies?q=TOFT").json()["items"] == [company]
    assert client.get(f"{V1}/companies?q=c2").json()["items"] == []
    shelf.done("s2", at=after(days=-1))
    assert client.get(f"{V1}/companies/c1/syncs/last-successful").json()["sync_id"] == "s2"
    told = client.get(f"{V1}/stats?from=2026-01-01").json()
    assert told["by_outcome"] == company["syncs"]
    assert told["by_day"] == [{"day": "2026-01-01", **company["syncs"]}]
    assert told["by_status_code"] == [
        {"status_code": 5130, "status_text": "Data write error", "total": 1}
    ]


def test_a_body_is_shown_only_when_asked_for(shelf: Shelf, client: TestClient) -> None:
    """As text where it is text, else in base64."""
    shelf.event("m1", body=b'{"a": 1}')
    shelf.event("m2", body=b"\xff\x00", reading="unreadable", reason="no JSON")
    shelf.event("m3")
    assert "body" not in client.get(f"{V1}/events/m1").json()
    told = {n: client.get(f"{V1}/events/m{n}?body=true").json() for n in (1, 2, 3)}
    assert (told[1]["body"], told[1]["body_encoding"]) == ('{"a": 1}', "utf-8")
    assert (told[2]["body"], told[2]["body_encoding"]) == ("/wA=", "base64")
    assert told[3]["body"] is None
    odd = client.get(f"{V1}/events?reading=unreadable").json()["items"]
    assert [(each["event_id"], each["reason"]) for each in odd] == [("m2", "no JSON")]
    assert len(client.get(f"{V1}/events?reading=ok").json()["items"]) == 2


def test_a_refresh_asks_codat_again(app: FastAPI, shelf: Shelf, client: TestClient) -> None:
    """202 for a known sync, in its own company; 404 for others."""
    shelf.failed("s/1")
    answer = client.post(f"{V1}/syncs/s%2F1/refresh")
    assert (answer.status_code, answer.json()) == (202, {"company_id": "c1", "sync_id": "s/1"})
    assert app.state.asked == [("c1", "s/1")]
    assert client.post(f"{V1}/syncs/nope/refresh").status_code == 404
    app.state.owe = lambda _company, _sync: False
    assert client.post(f"{V1}/syncs/s%2F1/refresh").status_code == 404


def test_a_sync_that_did_not_fail_has_no_failure_stage(shelf: Shelf, client: TestClient) -> None:
    """A webhook told one, and then Codat said that everything was written."""
    shelf.failed("s1", failure_stage="Pushing")
    shelf.done("s2", failure_stage="Pushing")
    stages = [client.get(f"{V1}/syncs/{each}").json()["failure_stage"] for each in ("s1", "s2")]
    assert stages == ["Pushing", None]


def test_a_body_without_a_type_has_no_empty_brackets(shelf: Shelf, client: TestClient) -> None:
    """Codat's status as a body names no event; the timeline must not say `None` for it."""
    shelf.failed()
    shelf.event("m1", company_id="c1", sync_id="s1", event_type=None)
    (step,) = client.get(f"{V1}/syncs/s1/timeline").json()["items"]
    assert step["reason"] == "sync failed"


def test_the_timeline_pages(shelf: Shelf, client: TestClient) -> None:
    """Oldest first, each step with its reason."""
    number = shelf.failed()
    shelf.event("m1", company_id="c1", sync_id="s1")
    shelf.note(number, after(seconds=1), "fetch", "Codat says 5130")
    first = client.get(f"{V1}/syncs/s1/timeline?limit=1").json()
    assert first["items"][0]["event_id"] == "m1"
    assert "SyncFailed" in first["items"][0]["reason"]
    rest = client.get(f"{V1}/syncs/s1/timeline", params={"cursor": first["next"]}).json()
    assert rest == {
        "items": [
            {
                "at": "2026-01-01T09:00:01Z",
                "kind": "fetch",
                "reason": "Codat says 5130",
                "event_id": None,
            }
        ],
        "next": None,
    }


def test_the_database_is_only_read(database: Database, client: TestClient) -> None:
    """An empty service answers every list."""
    for path in ("syncs", "companies", "push-errors", "events"):
        assert client.get(f"{V1}/{path}").json() == {"items": [], "next": None}
