"""The pages of causes: who has to act, how many failures, which messages."""

import re

from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import update

from app.db.tables import failed_transactions
from app.settings import load_settings
from tests.web.pages.html import form_token, links, read, read_csv, sign_in, text
from tests.web.store import KEY, Store, after, completed_row, failed_row

CLOSED = "The period is closed"


def test_causes_say_who_acts_and_lead_to_their_syncs(store: Store, user: TestClient) -> None:
    store.company("c1", "Toft stores")
    store.failed(rows=(failed_row("t1", CLOSED), failed_row("t2", CLOSED)))
    store.failed("whole", "c2", code=4260, rows=())
    html = user.get("/causes").text
    for expected in (
        "Failures grouped by cause, last 30 days. Show all time",
        "Accounting period closed Customer 2 1 2 ↑ from 0 1 Jan, 09:00",
        "Accounting software subscription ended ✕ 1 cannot sync Customer 0 1 1 ↑ from 0",
    ):
        assert expected in text(html)
    page = read(user, "/causes?company_id=c1")
    assert "Company: Toft stores ×" in page
    assert "subscription ended" not in page
    html = user.get("/causes/period_closed").text
    for expected in (
        "Owner: customer. Ask the customer to reopen the period",
        "2 expenses, 1 company Resend: after the fix First open failure 1 Jan, 09:00",
        "Toft stores 2 2 expenses 2 ↑ from 0",
    ):
        assert expected in text(html)
    assert "/?cause=period_closed" in links(html)
    page = read(user, "/causes/subscription_ended")
    assert "✕ 1 company cannot sync" in page
    assert "c2 ✕ Cannot sync 0 1 whole sync" in page


def test_causes_are_filtered_by_owner_and_sorted(store: Store, user: TestClient) -> None:
    store.failed(rows=(failed_row("t1", CLOSED), failed_row("t2", "Oops")))
    store.failed("s2", "c2", rows=(failed_row("t3", CLOSED),), at=after(hours=-1))

    def titles(query: str) -> list[str]:
        return [
            link.split("/")[2].split("?")[0]
            for link in links(user.get(f"/causes?{query}").text, "/causes/")
        ]

    assert titles("") == ["period_closed", "unclassified"]
    assert titles("sort=open") == ["unclassified", "period_closed"]
    assert titles("sort=-title") == ["unclassified", "period_closed"]
    assert titles("owner=us") == ["unclassified"]
    assert "No failures of this owner." in read(user, "/causes?owner=codat")
    assert user.get("/causes?owner=nobody").status_code == 422
    assert user.get("/causes?sort=-text").status_code == 422
    html = user.get("/causes?sort=-companies").text
    assert 'aria-sort="descending"' in html
    assert "/causes?sort=companies" in links(html)


def test_older_failures_are_shown_when_asked_for(store: Store, user: TestClient) -> None:
    store.failed(at=after(days=-40), rows=(failed_row("t1", CLOSED),))
    html = user.get("/causes").text
    assert "No failures in the last 30 days." in text(html)
    (link,) = links(html, "from=")
    page = read(user, link)
    assert "Accounting period closed Customer 1 1 0 as before" in page
    assert "since 1 Jan 1970. Show the last 30 days" in page


def test_the_page_of_a_cause_groups_equal_messages(store: Store, user: TestClient) -> None:
    store.failed(rows=(failed_row("t1", "Period 2026-01 is closed"), failed_row("t2", CLOSED)))
    latest = failed_row("t3", "Period 2025-12 is closed")
    store.failed("s2", "c2", rows=(latest,), at=after(hours=1))
    page = read(user, "/causes/period_closed")
    assert "✕ 3 open last 30 days" in page
    assert "Period 2025-12 is closed 2 2 2 1 Jan, 10:00" in page
    assert "The period is closed 1 1 1 1 Jan, 09:00" in page
    assert "Period 2026-01" not in page


def test_a_cause_that_is_no_longer_defined_is_still_shown(store: Store, user: TestClient) -> None:
    assert "Cause not found" in read(user, "/causes/our_old_cause", 404)
    store.failed()
    with store.database.writing() as connection:
        connection.execute(update(failed_transactions).values(cause_key="our_old_cause"))
    page = read(user, "/causes/our_old_cause")
    assert "This cause is no longer defined; no owner is known." in page


def test_the_open_items_of_a_cause_are_exported_until_it_is_resolved(
    store: Store, user: TestClient
) -> None:
    store.company("c1", "Toft stores")
    store.failed("old", rows=(failed_row("t8", CLOSED),))
    store.completed("fixed", rows=(completed_row("t8"),), at=after(hours=1))
    assert "Accounting period closed ✓ Resolved" in read(user, "/causes")
    assert not links(user.get("/causes/period_closed").text, "open.csv")
    store.failed("part", rows=(failed_row("t2", CLOSED),), at=after(hours=2))
    store.failed("theirs", "c2", rows=(failed_row("t9", CLOSED),))
    link, semicolons = links(user.get("/causes/period_closed?company_id=c1").text, "open.csv")
    assert read_csv(user, link, "company_name") == {"Toft stores"}
    assert read_csv(user, link, "transaction_id") == {"t2"}
    assert read_csv(user, semicolons, "transaction_id", ";") == {"t2"}
    assert user.get("/causes/period_closed/open.csv?owner=us").status_code == 422


def test_a_note_is_written_on_the_page(store: Store, app: FastAPI) -> None:
    """With the name of the key, until something new fails."""
    app.state.settings = load_settings(api_keys=f"support:{KEY}")
    store.failed(rows=(failed_row("t1", CLOSED),))
    with TestClient(app) as user:
        sign_in(user)
        form = {
            "csrf": form_token(user),
            "text": "Called <them>",
            "is_handled": "true",
            "next": "/causes/period_closed",
        }
        path = "/causes/period_closed/companies/c1/note"
        shown = text(user.post(path, data=form).text)
        assert "– Handled Called <them> support, 1 Jan, 12:00 Edit note" in shown
        assert user.post(path, data=form | {"csrf": "x"}).status_code == 403
        assert user.post("/causes/nothing/companies/c1/note", data=form).status_code == 409
        store.failed("s2", rows=(failed_row("t2", CLOSED),), at=after(hours=1))
        assert "Called" not in read(user, "/causes/period_closed")


def test_all_open_items_of_a_cause_are_retried(
    store: Store, app: FastAPI, user: TestClient
) -> None:
    """After a preview, with progress; again leads to the same progress."""
    store.failed(rows=(failed_row("t1", CLOSED), failed_row("t2", CLOSED)))
    store.failed("s2", "c2", rows=(failed_row("t3", CLOSED),))
    (link,) = links(user.get("/causes/period_closed").text, "/retries")
    assert "Retry is not set up (RETRY_WEBHOOK_URL)." in read(user, link)
    address = SecretStr("https://retry.test/hook")
    app.state.settings = app.state.settings.model_copy(update={"retry_webhook_url": address})
    html = user.get(link).text
    assert "3 open items of 2 syncs at 2 companies" in text(html)
    assert "Resend only after the fix." in text(html)
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', html))
    assert fields["cause"] == "period_closed"
    token = form_token(user)
    form = {**fields, "csrf": token}
    first = user.post("/retries", data=form)
    assert "Retry of 2 syncs 0 of 2 messages delivered" in text(first.text)
    assert "Receiver retry.test" in text(first.text)
    assert user.post("/retries", data=form).url == first.url
    assert user.post("/retries", data={"csrf": token, "from": "soon"}).status_code == 422
    assert user.post("/retries", data={"csrf": token, "cause": "nothing"}).status_code == 409
    (link,) = links(user.get("/companies/c2").text, "/retries")
    assert "1 open item of 1 sync at 1 company" in read(user, link)
    assert "Retry not found" in read(user, "/retries/unknown", 404)
