"""The page of a sync: what is known, what is not, and what can be done."""

import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.settings import load_settings
from tests.web.pages.html import form_token, links, read, sign_in, text
from tests.web.store import KEY, T0, Store, after, completed_row, failed_row

WRAPPED = (
    "An error occurred in a downstream service. Correlation ID: "
    "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb. Message:  Account code '429' is not active."
)
TAX = "A tax rate is required for account 400."
CLOSED = "The period is closed"
FROM_WEBHOOK: dict[str, Any] = {
    "rows": (), "transactions_source": "webhook", "transactions_complete": False,
    "fetched_at": None, "expected": None,
}  # fmt: skip
REPORTED_FAILED: dict[str, Any] = {"code": None, "failed_received_at": T0, "reported_ended_at": T0}


@pytest.mark.parametrize(
    ("fields", "tone", "sentence"),
    [
        ({"code": 5130, "rows": (failed_row(), completed_row("t2"))}, "part",
         "1 of 2 items was not recorded. The reasons are below."),
        ({"code": 5130, "rows": (failed_row(), failed_row("t2"))}, "bad",
         "2 of 2 items were not recorded. The reasons are below."),
        ({"code": 4260, "rows": (), "failure_stage": "Push"}, "bad",
         "The whole sync failed at the stage “Push”. Nothing was recorded."),
        ({"code": 5130}, "bad", "The sync failed. Codat has not returned the item list yet. "
         "Treat all items as not recorded."),
        ({"code": 2000, "rows": (completed_row(),)}, "good", "1 item recorded."),
        ({"code": 2040, "rows": ()}, "calm", "There was nothing to record."),
        ({"code": 2000}, "unknown", "Finished, but not confirmed. Codat has not returned the final "
         "status and item list. Don't treat it as successful yet."),
        ({}, "wait", "Codat is still processing this sync."),
        ({"code": 7000}, "unknown", "Codat returned an unknown status code."),
    ],
)  # fmt: skip
def test_each_outcome_has_its_sentence_and_only_a_proved_success_is_green(
    store: Store, user: TestClient, fields: dict[str, Any], tone: str, sentence: str
) -> None:
    store.sync(**fields)
    html = user.get("/syncs/s1").text
    assert sentence in text(html)
    assert f'class="card result {tone}"' in html


@pytest.mark.parametrize(
    ("job", "fields", "sentence"),
    [
        ({"state": "done"}, {}, "Complete list from Codat, updated 1 Jan 2026, 09:00:00 UTC."),
        ({"state": "done"}, {"rows": ()}, "Codat returned no items for this sync (1 Jan 2026"),
        ({"run_at": T0, "lease_token": "x"}, {"transactions_complete": False, "expected": 9},
         "Item list incomplete. Codat announced 9 items; 1 received so far. An attempt is running"),
        ({"state": "dead", "attempts": 12, "last_error": "Codat refused the key"}, {"rows": None},
         "Stopped after 12 attempts: Codat refused the key. Fix this, then select Refresh."),
        ({"run_at": after(hours=4), "attempts": 2, "last_error": "could not connect to Codat"},
         {"rows": None}, "Waiting for Codat. Next attempt 1 Jan 2026, 13:00:00 UTC. "
         "2 attempts so far. Last error: could not connect to Codat."),
        ({"run_at": after(minutes=5)}, {"rows": None}, "Waiting for Codat. The next attempt is "
         "overdue (was due 1 Jan 2026, 09:05:00 UTC). "),
        ({"run_at": after(hours=4), "last_error": "Codat answered 429: retry later."},
         {"rows": None}, "13:00:00 UTC. Last error: Codat answered 429: retry later. "),
    ],
)  # fmt: skip
def test_a_page_says_how_much_of_the_list_was_fetched(
    store: Store, user: TestClient, job: dict[str, Any], fields: dict[str, Any], sentence: str
) -> None:
    store.job(store.failed(**fields), **job)
    assert sentence in read(user, "/syncs/s1")


@pytest.mark.parametrize(
    ("job", "fields"),
    [
        ({"run_at": after(hours=4)}, FROM_WEBHOOK | REPORTED_FAILED),
        ({"state": "dead", "attempts": 3}, FROM_WEBHOOK),
        ({"run_at": after(hours=4)}, FROM_WEBHOOK | {"expected": 9}),
    ],
    ids=["waiting", "given up", "incomplete"],
)
def test_an_empty_list_that_codat_did_not_return_is_shown_as_unknown(
    store: Store, user: TestClient, job: dict[str, Any], fields: dict[str, Any]
) -> None:
    store.company("c1", "Toft stores")
    store.job(store.failed(**fields), **job)
    page = read(user, "/syncs/s1")
    assert "Codat has not returned the item list yet." in page
    assert "Items failed" not in page
    assert "Items written" not in page
    assert "Nothing to retry yet: Codat has not returned the items." in page
    assert "No item list yet." in page
    assert "whole sync failed" not in page
    for path in ("/", "/companies/c1"):
        page = read(user, path)
        assert " 0 of 0" not in page
        assert "– (whole sync failed)" not in page


def test_items_show_the_plain_message_first_then_cause_and_correlation_id(
    store: Store, user: TestClient
) -> None:
    pk = store.failed(rows=(failed_row("t1", WRAPPED), completed_row("t2")), failure_stage="Push")
    store.log(pk, "Codat status 5130 (data write error): 1 of 2 items failed")
    page = read(user, "/syncs/s1")
    for expected in (
        "Account code '429' is not active. Full message An error occurred",
        "Correlation ID aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb",
        "Other items (1 item) ✓ Completed t2 expenses Timeline",
        "Checked with Codat Codat status 5130 (data write error): 1 of 2 items failed",
        "Status code 5130 Data write error",
        "Failure stage Push",
    ):
        assert expected in page
    assert "Target" not in page


def test_reasons_are_grouped_and_lead_to_their_items(store: Store, user: TestClient) -> None:
    taxes = (failed_row(f"t{n}", TAX) for n in range(3))
    store.failed(rows=(failed_row("z", CLOSED), *taxes, completed_row("d")))
    html = user.get("/syncs/s1").text
    page = text(html)
    assert re.search(r"Tax rate missing \(3 items\).* Accounting period closed \(1 item\)", page)
    assert "Owner: customer. Ask the customer to reopen the period" in page
    assert "Message to customer Your accounting software didn't accept" in page
    assert "Show the 4 failed items" in page
    link = "/syncs/s1?failed=true&cause=period_closed#items"
    assert link in links(html)
    assert links(user.get(link).text, "/transactions/") == ["/companies/c1/transactions/z"]


def test_items_are_searched_filtered_and_paged(store: Store, user: TestClient) -> None:
    rows = (failed_row("alpha", TAX), completed_row("beta"), failed_row("gamma", CLOSED))
    store.failed(rows=rows)
    assert "beta" not in read(user, "/syncs/s1?failed=true")
    page = read(user, "/syncs/s1?q=tax&status=pusherror")
    assert "alpha" in page
    assert "gamma" not in page
    assert "No items match." in read(user, "/syncs/s1?status=Pending")
    first = user.get("/syncs/s1?limit=2").text
    (following,) = links(first, "cursor=")
    page = user.get(following).text
    assert "beta" in page
    assert "alpha" not in page
    assert "gamma" in first
    assert "End of list." in page
    (previous,) = links(page, "before=")
    assert links(user.get(previous).text, "/transactions/") == links(first, "/transactions/")


def test_items_are_grouped_by_cause_over_all_pages(store: Store, user: TestClient) -> None:
    rows = [failed_row(f"tax-{n}", TAX) if n % 3 else failed_row(f"shut-{n}", CLOSED)
            for n in range(12)]  # fmt: skip
    store.failed(rows=(*rows[:6], completed_row("fine"), *rows[6:]))
    found, following = [], ["/syncs/s1?limit=5"]
    while following:
        html = user.get(following[0]).text
        found += [link.rsplit("/", 1)[1] for link in links(html, "/transactions/")]
        following = links(html, "cursor=")
    tax, shut = ([f"{kind}-{n}" for n in range(12) if bool(n % 3) == (kind == "tax")]
                 for kind in ("tax", "shut"))  # fmt: skip
    assert found == [*tax, *shut, "fine"]
    page = read(user, "/syncs/s1")
    assert page.index("Tax rate missing (8 items)") < page.index(
        "Accounting period closed (4 items)"
    )
    assert page.index("(4 items)") < page.index("Other items (1 item)")


def test_what_became_of_an_item_is_shown_where_its_status_does_not_say_it(
    store: Store, user: TestClient
) -> None:
    store.failed(
        "s1", rows=(failed_row("mended", TAX), failed_row("open", TAX), completed_row("ok"))
    )
    store.completed("s2", rows=(completed_row("mended"), failed_row("ok", TAX)), at=after(hours=1))
    page = read(user, "/syncs/s1")
    assert "In the books Recorded by a later sync" in page
    assert page.count("Not in the books") == 1
    assert "1 still open" in page


@pytest.mark.parametrize(
    ("job", "fields", "sentence"),
    [
        ({"state": "pending", "run_at": after(hours=4), "attempts": 1,
          "last_error": "could not connect to Codat"}, {},
         "Refresh failed 1 Jan 2026, 11:00:00 UTC: could not connect to Codat. What is shown may "
         "be out of date. Next attempt 1 Jan 2026, 13:00:00 UTC."),
        ({"state": "dead", "attempts": 12, "last_error": "Codat refused the key."}, {},
         "Refresh failed 1 Jan 2026, 11:00:00 UTC: Codat refused the key. What is shown may be out "
         "of date. Fix this, then select Refresh."),
        ({"state": "dead", "attempts": 2, "last_error": "Codat refused the key"},
         {"code": 2000, "rows": (completed_row(),)}, "Refresh failed 1 Jan 2026, 11:00:00 UTC"),
        ({"state": "dead", "attempts": 2, "last_error": "Codat refused the key"}, {"rows": None},
         "Stopped after 2 attempts (1 Jan 2026, 11:00:00 UTC): Codat refused the key."),
        ({"state": "pending", "attempts": 0}, {}, "A refresh is under way."),
        ({"state": "done"}, {}, "Complete list from Codat"),
    ],
)  # fmt: skip
def test_a_refresh_that_failed_is_shown_beside_the_result(
    store: Store, user: TestClient, job: dict[str, Any], fields: dict[str, Any], sentence: str
) -> None:
    pk = store.failed(**fields)
    store.job(pk, **job)
    store.log(pk, "Codat status 5130", at=T0)
    store.log(pk, "Could not connect to Codat", at=after(hours=2))
    page = read(user, "/syncs/s1")
    assert sentence in page
    assert page.index(sentence) < page.index("Timeline")
    assert ("Refresh failed" in page) == ("Refresh failed" in sentence)


def test_an_exception_message_is_shown_if_it_adds_something(store: Store, user: TestClient) -> None:
    error = "Push 8a6f1b2c-0000-1111-2222-333344445555 failed"
    same = "Push 11111111-0000-1111-2222-333344445555 failed"
    store.failed("same", rows=(), error_message=error, exception_message=same)
    store.failed("more", rows=(), error_message=error, exception_message="Out of memory")
    assert "Exception message" not in read(user, "/syncs/same")
    assert "Exception message from Codat Out of memory" in read(user, "/syncs/more")


def test_a_sync_id_of_two_companies_needs_the_company(store: Store, user: TestClient) -> None:
    store.failed("same", "c1")
    store.completed("same", "c2")
    assert user.get("/syncs/same/json?company_id=c1").json()["outcome"] == "failed"
    assert "Not possible now" in read(user, "/syncs/same", 409)
    assert "Written" in read(user, "/syncs/same?company_id=c2")
    found = links(user.get("/?q=same").text)
    assert {"/syncs/same?company_id=c1", "/syncs/same?company_id=c2"} <= set(found)


def test_the_timeline_shows_titles_times_and_webhooks(store: Store, user: TestClient) -> None:
    pk = store.failed()
    store.log(pk, "Codat reported: failed (SyncFailed)", "delivery", message_id="m/1")
    store.log(pk, "Could not connect to Codat. Next attempt 2026-01-01T09:00:02Z.")
    store.log(pk, "Codat answered 2026-13-45T99:00:00Z", "some-kind")
    html = user.get("/syncs/s1").text
    page = text(html)
    assert "Webhook received Codat reported: failed (SyncFailed). View webhook" in page
    assert "/events/m%2F1" in links(html)
    assert "Next attempt 1 Jan 2026, 09:00:02 UTC." in page
    assert "Some kind Codat answered 2026-13-45T99:00:00Z" in page


def test_refresh_queues_a_fetch_and_shows_a_notice_once(store: Store, user: TestClient) -> None:
    store.failed("a/b", "c1")
    store.failed("a/b", "c2")
    token = form_token(user)
    response = user.post("/syncs/a%2Fb/refresh", data={"csrf": token, "company_id": "c2"})
    assert "Refreshing from Codat… This page updates" in text(response.text)
    assert str(response.url).endswith("/syncs/a%2Fb?company_id=c2")
    page = read(user, "/syncs/a%2Fb?company_id=c2")
    assert "Refreshing from Codat" not in page
    assert "Refresh requested" in page
    assert "Refresh requested" not in read(user, "/syncs/a%2Fb?company_id=c1")
    assert user.post("/syncs/a%2Fb/refresh", data={"csrf": token}).status_code == 409
    assert user.post("/syncs/other/refresh", data={"csrf": token}).status_code == 404
    for company_id in ("x" * 2000, "\0"):
        data = {"csrf": token, "company_id": company_id}
        assert user.post("/syncs/a%2Fb/refresh", data=data).status_code == 404
    response = user.get("/syncs/a%2Fb/refresh", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/syncs/a%2Fb")


def test_retry_is_offered_where_it_can_work(store: Store, app: FastAPI, user: TestClient) -> None:
    store.failed()
    store.completed("s2", rows=(completed_row("t9"),))
    store.failed("s3", code=4260, rows=())
    disabled = re.compile(r"<button[^>]*disabled[^>]*>Retry failed items")
    assert "Retry is not set up (RETRY_WEBHOOK_URL)." in read(user, "/syncs/s1")
    assert "Nothing to retry: no item failed." in read(user, "/syncs/s2")
    assert "Fix the cause, then start a new sync." in read(user, "/syncs/s3")
    token = form_token(user)
    assert user.post("/syncs/s1/retry", data={"csrf": token}).status_code == 409
    address = SecretStr("https://retry.test/hook")
    app.state.settings = app.state.settings.model_copy(update={"retry_webhook_url": address})
    assert not disabled.search(user.get("/syncs/s1").text)
    assert disabled.search(user.get("/syncs/s2").text)
    response = user.post("/syncs/s1/retry", data={"csrf": token})
    assert "Retry requested. Your expense system will resend 1 item" in text(response.text)
    assert "Retry requested 1 failed item (" in read(user, "/syncs/s1")
    repeated = user.post("/syncs/s1/retry", data={"csrf": token})
    assert "Retry already requested; not sent again." in text(repeated.text)
    assert "being delivered to retry.test" in text(repeated.text)
    refused = user.post("/syncs/s2/retry", data={"csrf": token})
    assert refused.status_code == 409
    assert "Nothing to retry" in text(refused.text)


def test_the_timeline_names_the_key_of_the_session(store: Store, app: FastAPI) -> None:
    """Each session has the name of the key that it was started with."""
    store.failed()
    retry = {
        "retry_webhook_url": "https://retry.test/hook",
        "notify_signing_secret": "whsec_" + "A" * 40,
    }
    app.state.settings = load_settings(api_keys=f"billing:{KEY}-2,support:{KEY}", **retry)
    with TestClient(app) as user:
        sign_in(user)
        token = form_token(user)
        for action in ("refresh", "retry", "retry"):
            assert user.post(f"/syncs/s1/{action}", data={"csrf": token}).status_code == 200
        shown = read(user, "/syncs/s1")
    assert "Refresh requested Requested by support" in shown
    assert "Retry requested 1 failed item, requested by support (" in shown
    assert "Retry already requested; not sent again, requested by support (" in shown
    assert "billing" not in shown


def test_a_sync_whose_failures_were_recorded_later_asks_for_nothing(
    store: Store, app: FastAPI, user: TestClient
) -> None:
    """Neither here nor in a list."""
    address = SecretStr("https://retry.test/hook")
    app.state.settings = app.state.settings.model_copy(update={"retry_webhook_url": address})
    store.failed(rows=(failed_row("t1"), failed_row("t2")))
    store.completed("s2", at=after(days=1), rows=(completed_row("t1"),))
    partly = read(user, "/syncs/s1")
    assert "1 of 2 items is still not recorded; later syncs have recorded 1 of the 2" in partly
    assert "1 still open" in partly
    assert "Resolved" not in partly + read(user, "/")
    store.completed("s3", at=after(days=2), rows=(completed_row("t2"),))
    page = user.get("/syncs/s1").text
    assert re.search(r"<button[^>]*disabled[^>]*>Retry failed items", page)
    assert "2 items failed; later syncs have recorded them. Nothing to do." in text(page)
    assert "Resolved" in text(page)
    assert "Owner: " not in text(page)
    assert "Resolved" in read(user, "/")
