"""Syncs: their fields, lists, filters, ETags, refresh."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import logging
from app.db import rate_limit
from app.settings import load_settings
from tests.processes import SECRET
from tests.web.store import KEY, T0, Store, after, completed_row, failed_row

V1 = "/api/v1"
FIELDS = {
    "company_id", "company_name", "sync_id", "state", "status_code", "status_text", "outcome",
    "failure_stage", "error_message", "exception_message", "data_pushed", "started_at",
    "finished_at", "first_seen_at", "updated_at", "source_platform", "transactions", "errors",
    "cause", "open_failures",
}  # fmt: skip


def test_a_sync_has_every_field_of_the_contract(store: Store, client: TestClient) -> None:
    store.company("c1", "Toft stores", platform="Xero")
    reported: dict[str, Any] = {
        "error_message": "no",
        "exception_message": "because",
        "data_pushed": False,
    }
    pk = store.failed(rows=(failed_row(), completed_row("t2")), **reported)
    store.job(pk, "done", attempts=1)
    sync = client.get(f"{V1}/syncs/s1").json()
    assert set(sync) == FIELDS | {"no_retry_reason", "last_retry"}
    assert set(client.get(f"{V1}/syncs").json()["items"][0]) == FIELDS
    assert sync.items() >= reported.items()
    assert (sync["company_name"], sync["source_platform"]) == ("Toft stores", "Xero")
    assert (sync["status_text"], sync["outcome"]) == ("Data write error", "partly_failed")
    assert sync["started_at"] == "2026-01-01T09:00:00Z"
    assert sync["transactions"] == {
        "total": 2, "completed": 1, "failed": 1, "pending": 0, "other": 0, "expected": 2,
    }  # fmt: skip
    assert sync["errors"] == {
        "state": "fetched", "attempts": 1, "next_attempt_at": None,
        "fetched_at": "2026-01-01T09:00:00Z", "last_error": None,
    }  # fmt: skip


def test_unknown_values_are_null_and_never_zero(store: Store, client: TestClient) -> None:
    """Nor is the `run_at` of a job that is leased the next attempt."""
    pk = store.failed(rows=None)
    store.job(pk, run_at=after(minutes=5), attempts=2, last_error="Codat answered 503")
    sync = client.get(f"{V1}/syncs/s1").json()
    assert set(sync["transactions"].values()) == {None}
    assert sync["errors"] == {
        "state": "waiting", "attempts": 2, "next_attempt_at": "2026-01-01T09:05:00Z",
        "fetched_at": None, "last_error": "Codat answered 503",
    }  # fmt: skip
    store.job(store.failed("s2", rows=None), lease_token="mine", attempts=3)
    errors = client.get(f"{V1}/syncs/s2").json()["errors"]
    assert (errors["attempts"], errors["next_attempt_at"]) == (3, None)


def test_during_a_pause_the_next_attempt_is_at_its_end(store: Store, client: TestClient) -> None:
    """A due job that waits for the end of the pause also shows the reason for the pause."""
    store.job(store.failed("s1", rows=None), run_at=T0)
    store.job(store.failed("s2", rows=None), run_at=after(hours=9), last_error="Codat answered 503")
    with store.database.writing() as connection:
        rate_limit.pause(connection, after(hours=5), "Codat answered 429", T0)

    def next_attempts() -> list[tuple[str, str | None]]:
        syncs = [client.get(f"{V1}/syncs/{sync_id}").json() for sync_id in ("s1", "s2")]
        return [(s["errors"]["next_attempt_at"], s["errors"]["last_error"]) for s in syncs]

    later = ("2026-01-01T18:00:00Z", "Codat answered 503")
    assert next_attempts() == [("2026-01-01T14:00:00Z", "Codat answered 429"), later]
    with store.database.writing() as connection:
        rate_limit.resume(connection, after(minutes=1))
    assert next_attempts() == [("2026-01-01T09:00:00Z", None), later]


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize(
    ("keys", "reason"),
    [(f"support:{KEY}", "Requested by support"), (KEY, "From the page or the API")],
)
def test_the_timeline_and_the_log_name_the_key(
    store: Store,
    app: FastAPI,
    client: TestClient,
    capsys: pytest.CaptureFixture[str],
    keys: str,
    reason: str,
) -> None:
    app.state.settings = load_settings(api_keys=keys)
    store.failed()
    logging.configure("info", "json")
    assert client.post(f"{V1}/syncs/s1/refresh").status_code == 202
    timeline = client.get(f"{V1}/syncs/s1/timeline").json()["items"]
    assert [(entry["kind"], entry["reason"]) for entry in timeline] == [("refresh", reason)]
    lines = capsys.readouterr().err
    (line,) = [json.loads(text) for text in lines.splitlines() if "refresh requested" in text]
    assert line["sync_id"] == "s1"
    assert line.get("actor") == ("support" if keys != KEY else None)
    assert KEY not in lines


def test_a_sync_that_failed_as_a_whole_has_a_cause(store: Store, client: TestClient) -> None:
    """And a stage; otherwise its transactions have causes."""
    store.sync("s1", code=4040, error_message="Company c1 is gone", failure_stage="Pushing")
    store.completed("s2", failure_stage="Pushing")
    store.failed("s3")
    first, second, third = (client.get(f"{V1}/syncs/s{n}").json() for n in (1, 2, 3))
    assert (first["failure_stage"], second["failure_stage"]) == ("Pushing", None)
    cause = first["cause"]
    assert set(cause) == {
        "key", "title", "owner", "next_step", "customer_message", "retry_advice",
    }  # fmt: skip
    assert (cause["key"], cause["owner"]) == ("disconnected", "customer")
    assert third["cause"] is None


def test_a_list_pages_until_next_is_null(store: Store, client: TestClient) -> None:
    for n in range(5):
        store.failed(f"s{n}", updated_at=after(minutes=n))
    params: dict[str, Any] = {"limit": 2, "state": "failed", "from": "2026-01-01"}
    seen = []
    while True:
        page = client.get(f"{V1}/syncs", params=params).json()
        seen += [sync["sync_id"] for sync in page["items"]]
        if page["next"] is None:
            break
        params["cursor"] = page["next"]
    assert seen == ["s4", "s3", "s2", "s1", "s0"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("from=2026-01-01&to=2026-01-01", 1),
        ("from=2026-01-01T09:00:00Z&to=2026-01-01T09:00:01Z", 1),
        ("to=2026-01-01T09:00:00Z", 0),
        ("from=2026-01-01T10:00:00%2B01:00", 1),
        ("from=2026-01-01T10:00:00+01:00&to=2026-01-02", 1),
        ("from=2026-01-01T09:00:01", 0),
        ("from=2025-12-31T23:00:00Z&to=2026-01-02T01:00:00Z", 1),
    ],
)
def test_times_are_dates_or_rfc_3339(
    store: Store, client: TestClient, query: str, count: int
) -> None:
    """From is inclusive, to is exclusive, and a date in `to` includes its whole day."""
    store.failed(at=T0)
    for path in ("syncs", "push-errors"):
        assert len(client.get(f"{V1}/{path}?{query}").json()["items"]) == count
    assert client.get(f"{V1}/stats?{query}").json()["total"] == count


def test_ids_may_contain_slashes_and_anything_else(store: Store, client: TestClient) -> None:
    """As long as they are percent-encoded."""
    store.company("c/1 ä")
    store.failed("s/1", "c/1 ä", rows=(failed_row("t/1?#%2F"),))
    store.event("msg/1", company_id="c/1 ä", sync_id="s/1")
    sync, company, transaction = "s%2F1", "c%2f1%20%C3%A4", "t%2F1%3F%23%252F"
    for path in (
        f"syncs/{sync}",
        f"syncs/{sync}/transactions",
        f"syncs/{sync}/transactions/{transaction}",
        f"syncs/{sync}/timeline",
        f"companies/{company}",
        f"companies/{company}/syncs/latest",
        f"companies/{company}/transactions/{transaction}",
        "events/msg%2F1",
    ):
        assert client.get(f"{V1}/{path}").status_code == 200, path
    assert client.get(f"{V1}/syncs/s/1").status_code == 404


@pytest.mark.parametrize(
    "odd", ["\u00a0no\u00a0break\u00a0", "\ufeffa\u200db", "so\u00adft", " s "]
)
def test_an_id_with_invisible_characters_is_itself_everywhere(
    store: Store, client: TestClient, odd: str
) -> None:
    """In paths, lists, filters, searches and Codat's paths; nobody finds one without them."""
    store.failed(odd, f"c{odd}", rows=(failed_row(f"t{odd}"),))
    sync, company, transaction = quote(odd, safe=""), quote(f"c{odd}"), quote(f"t{odd}")
    found = client.get(f"{V1}/syncs/{sync}").json()
    assert (found["sync_id"], found["company_id"]) == (odd, f"c{odd}")
    rows = client.get(f"{V1}/syncs/{sync}/transactions/{transaction}").json()["items"]
    assert [row["transaction_id"] for row in rows] == [f"t{odd}"]
    assert client.get(f"{V1}/companies/{company}/transactions/{transaction}").status_code == 200
    for query in ({"company_id": f"c{odd}"}, *({"q": f"{kind}{odd}"} for kind in ("", "c", "t"))):
        listed = client.get(f"{V1}/syncs", params=query).json()["items"]
        assert [item["sync_id"] for item in listed] == [odd], query
    codat = f"/codat/companies/{company}/sync/expenses/syncs"
    assert client.get(f"{codat}/{sync}/status").json()["syncId"] == odd
    assert client.get(f"{codat}/list/status").json()[0]["companyId"] == f"c{odd}"
    plain = "".join(filter(str.isalpha, odd))
    assert client.get(f"{V1}/syncs/{plain}").status_code == 404


def test_an_ambiguous_sync_id_is_409_without_its_company(store: Store, client: TestClient) -> None:
    store.failed("s1", "c1")
    store.failed("s1", "c2")
    for path in ("", "/transactions", "/transactions/t1", "/timeline"):
        assert client.get(f"{V1}/syncs/s1{path}").status_code == 409
        assert client.get(f"{V1}/syncs/s1{path}?company_id=c2").status_code == 200
    assert client.post(f"{V1}/syncs/s1/refresh").status_code == 409


def test_an_unchanged_resource_is_not_sent_again(store: Store, client: TestClient) -> None:
    """304 while nothing has changed, and a new ETag afterwards."""
    pk = store.failed()
    store.event("m1")
    for path in ("syncs/s1", "companies/c1", "companies/c1/syncs/latest", "events/m1"):
        first = client.get(f"{V1}/{path}")
        etag = first.headers["etag"]
        for tags in (etag, f'W/{etag}, "other"', "*"):
            again = client.get(f"{V1}/{path}", headers={"If-None-Match": tags})
            assert (again.status_code, again.content) == (304, b""), path
            assert again.headers["etag"] == etag
        other = client.get(f"{V1}/{path}", headers={"If-None-Match": '"other"'})
        assert other.status_code == 200
    before = client.get(f"{V1}/syncs/s1").headers["etag"]
    store.job(pk, attempts=1)
    assert client.get(f"{V1}/syncs/s1").headers["etag"] != before


def test_a_refresh_enqueues_a_fetch_and_wakes_the_worker(
    app: FastAPI, store: Store, client: TestClient
) -> None:
    store.failed("s/1", rows=None)
    answer = client.post(f"{V1}/syncs/s%2F1/refresh")
    assert (answer.status_code, answer.json()) == (202, {"company_id": "c1", "sync_id": "s/1"})
    sync = client.get(f"{V1}/syncs/s%2F1").json()
    assert sync["errors"]["next_attempt_at"] == "2026-01-01T12:00:00Z"
    entries = client.get(f"{V1}/syncs/s%2F1/timeline").json()["items"]
    assert [entry["kind"] for entry in entries] == ["refresh"]
    assert len(app.state.wakes) == 1
    assert client.post(f"{V1}/syncs/nope/refresh").status_code == 404
    assert len(app.state.wakes) == 1


def test_the_timeline_pages_oldest_first(store: Store, client: TestClient) -> None:
    pk = store.failed()
    store.log(pk, "Codat reported: failed (SyncFailed)", "delivery", message_id="m1")
    store.log(pk, "Codat status 5130", at=after(seconds=1))
    first = client.get(f"{V1}/syncs/s1/timeline?limit=1").json()
    assert first["items"][0]["message_id"] == "m1"
    rest = client.get(f"{V1}/syncs/s1/timeline", params={"cursor": first["next"]}).json()
    assert rest == {
        "items": [
            {
                "at": "2026-01-01T09:00:01Z", "kind": "fetch", "reason": "Codat status 5130",
                "message_id": None,
            }
        ],
        "next": None,
    }  # fmt: skip


def test_statistics_name_every_outcome(store: Store, client: TestClient) -> None:
    store.failed()
    store.completed("s2", at=after(days=-1))
    totals = {
        "total": 1, "in_progress": 0, "all_written": 0, "nothing_to_write": 0,
        "partly_failed": 0, "failed": 1, "unknown": 0,
    }  # fmt: skip
    stats = client.get(f"{V1}/stats?from=2026-01-01").json()
    assert stats["by_outcome"] == totals
    assert stats["by_day"] == [{"day": "2026-01-01", **totals}]
    assert stats["by_status_code"] == [
        {"status_code": 5130, "status_text": "Data write error", "total": 1}
    ]


def test_an_empty_service_has_empty_lists(client: TestClient) -> None:
    for path in ("syncs", "companies", "push-errors", "events", "causes", "changes", "alerts"):
        assert client.get(f"{V1}/{path}").json() == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("rows", "code", "later", "reason"),
    [
        (("t1",), 5130, (), None),
        (("t1",), 5130, ("t1",), "1 item failed; a later sync has recorded it. Nothing to do."),
        (("t1", "t2"), 5130, ("t1",), None),
        (
            ("t1", "t2"),
            5130,
            ("t1", "t2"),
            "2 items failed; later syncs have recorded them. Nothing to do.",
        ),
        (None, 5130, (), "Nothing to retry yet: Codat has not returned the items."),
        (
            (),
            4260,
            (),
            "Nothing to retry: Codat returned no items. Fix the cause, then start a new sync.",
        ),
    ],
)
def test_a_sync_says_what_is_open_and_why_nothing_can_be_retried(
    store: Store,
    app: FastAPI,
    client: TestClient,
    rows: tuple[str, ...] | None,
    code: int,
    later: tuple[str, ...],
    reason: str | None,
) -> None:
    """The refusal of a retry says the same."""
    app.state.settings = load_settings(
        api_keys=KEY, retry_webhook_url="https://pushes.example/x", notify_signing_secret=SECRET
    )
    pk = store.failed(rows=rows if rows is None else tuple(map(failed_row, rows)), code=code)
    store.job(pk, "pending" if rows is None else "done")
    if later:
        store.completed("s2", at=after(days=1), rows=tuple(map(completed_row, later)))
    sync = client.get(f"{V1}/syncs/s1").json()
    (listed,) = (one for one in client.get(f"{V1}/syncs").json()["items"] if one["sync_id"] == "s1")
    number_open = None if rows is None else len(set(rows) - set(later))
    assert sync["open_failures"] == listed["open_failures"] == number_open
    assert sync["no_retry_reason"] == reason
    answer = client.post(f"{V1}/syncs/s1/retry")
    if reason is None:
        assert (answer.status_code, answer.json()["transactions"]) == (202, number_open)
        retry = client.get(f"{V1}/syncs/s1").json()["last_retry"]
        assert retry["message_id"] == answer.json()["message_id"]
        assert (retry["recipient_host"], retry["state"]) == ("pushes.example", "waiting")
    else:
        assert (answer.status_code, answer.json()["detail"]) == (409, reason)
