"""Alerts: one is open per cause and company, and it resolves itself."""

import json

import pytest
from sqlalchemy import select

from app.db import alerts, outgoing
from app.db.alerts import CANNOT_SYNC_PREFIX, FAILURE_PREFIX, AlertChanges
from app.db.engine import Database
from app.db.queries import alerts as queries
from app.db.tables import alerts as table
from app.db.tables import outgoing_messages
from app.domain.models import SYNC_COMPLETED, Transaction
from app.domain.webhook_loss import Finding, FinishedSync
from tests.db.stored import COMPLETED_ROW, FAILED_ROW, answered, reported, write
from tests.factories import STARTED, T0, after, deliver

LOST = Finding("webhooks_lost", "c1", "no webhook for an hour")


def sync_alerts(database: Database, *findings: Finding, hours: float = 0) -> AlertChanges:
    causes = {"webhooks_lost", *(finding.cause for finding in findings)}
    with database.writing() as connection:
        return alerts.sync_alerts(connection, causes, findings, after(hours=hours))


def open_now(database: Database) -> list[tuple[str, str, str]]:
    with database.reading() as connection:
        found = queries.open_alerts(connection).items
    return [(alert.cause, alert.company_id, alert.text) for alert in found]


def test_an_alert_stays_open_until_its_finding_is_gone(database: Database) -> None:
    """Meanwhile it has the latest text."""
    assert sync_alerts(database, LOST) == AlertChanges([LOST], 0)
    longer = Finding("webhooks_lost", "c1", "for two hours")
    assert sync_alerts(database, longer, hours=1) == AlertChanges([], 0)
    assert open_now(database) == [("webhooks_lost", "c1", "for two hours")]
    assert sync_alerts(database, hours=2) == AlertChanges([], 1)
    assert open_now(database) == []
    assert sync_alerts(database, LOST, hours=3) == AlertChanges([LOST], 0)
    with database.reading() as connection:
        times = connection.execute(
            select(table.c.opened_at, table.c.resolved_at).order_by(table.c.id)
        ).all()
    assert [tuple(row) for row in times] == [(T0, after(hours=2)), (after(hours=3), None)]


def test_other_causes_and_companies_are_left_alone(database: Database) -> None:
    other = Finding("endpoint_missing", "", "no endpoint")
    another = Finding("webhooks_lost", "c2", "x")
    sync_alerts(database, LOST, other, another)
    assert sync_alerts(database, LOST) == AlertChanges([], 1)
    assert sorted(open_now(database))[0] == ("endpoint_missing", "", "no endpoint")


def test_webhooks_and_notifications_report_both_ends(database: Database) -> None:
    sync_alerts(database, LOST)
    sync_alerts(database, LOST)
    sync_alerts(database)
    with database.writing() as connection:
        outgoing.address(connection, ["webhook:a", "notification:n", "retry:r"], T0)
        found = connection.execute(
            select(outgoing_messages.c.recipient, outgoing_messages.c.body)
        ).all()
    sent = {(recipient, json.loads(body)["type"]): json.loads(body) for recipient, body in found}
    assert len(found) == len(sent) == 4
    for recipient in ("notification:n", "webhook:a"):
        opened, resolved = (sent[recipient, f"alert.{end}"] for end in ("opened", "resolved"))
        assert opened["data"] == {
            "cause": "webhooks_lost",
            "text": "no webhook for an hour",
            "opened_at": "2026-01-01T09:00:00Z",
            "resolved_at": None,
            "company_id": "c1",
        }
        assert resolved["data"]["resolved_at"] == "2026-01-01T09:00:00Z"


def test_alerts_about_the_service_are_those_not_about_failures(database: Database) -> None:
    """With the company's name. An underscore is no wildcard."""
    deliver(database, "m1", company_name="Toft Stores")
    failures = [Finding(f"{prefix}x", "c1", "x") for prefix in (FAILURE_PREFIX, CANNOT_SYNC_PREFIX)]
    sync_alerts(database, LOST, Finding("pushXerror:x", "", "text"), *failures)
    with database.reading() as connection:
        found = queries.alerts_about_service(connection)
        assert queries.count_open_causes(connection) == 4
    assert [(alert.text, alert.company_name) for alert in found] == [
        ("text", None),
        ("no webhook for an hour", "Toft Stores"),
    ]


def test_unresolved_failures_are_found_by_cause_and_company(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their latest failure; resolved ones and older ones are left out."""
    for n, day in enumerate((0, 2)):
        at = after(days=day)
        row = Transaction(f"old-{n}", *FAILED_ROW[1:])
        sync = reported(f"s{n}", company_id=f"c{n}", at=at)
        write(database, answered(sync, row, at=at), row)
    second = answered(reported("s9", company_id="c1", at=after(days=2)), FAILED_ROW)
    write(database, second, FAILED_ROW)
    resolved = reported("s10", SYNC_COMPLETED, company_id="c1", at=after(days=3))
    write(database, answered(resolved, COMPLETED_ROW, code=2000, at=after(days=3)), COMPLETED_ROW)
    with database.reading() as connection:
        found = list(alerts.open_failures(connection, after(days=1)))
        assert [company_id for _, company_id in found] == ["c1"]
        monkeypatch.setattr(alerts, "PAIRS_PER_STEP", 1)
        everything = list(alerts.open_failures(connection, T0))
    assert [company_id for _, company_id in everything] == ["c0", "c1"]
    assert all(cause_key for cause_key, _ in everything)


def test_unreported_syncs_are_told_from_reported_ones(database: Database) -> None:
    """Those that are still running are left out."""
    deliver(database, "m1", sync_id="s1")
    deliver(database, "m2", sync_id="s2", company_id="c2", event_type=STARTED)
    unreported = answered(reported("s3", at=after(hours=1))._replace(failed_received_at=None))
    write(database, unreported._replace(sync_utc=after(hours=1)))
    with database.reading() as connection:
        assert alerts.companies_with_unreported_syncs(connection, T0) == ["c1"]
        assert alerts.companies_with_unreported_syncs(connection, after(hours=2)) == []
        recent = alerts.recent_finished_syncs(connection, "c1", T0)
        assert alerts.recent_finished_syncs(connection, "c2", T0) == []
        assert len(alerts.recent_finished_syncs(connection, "c1", after(days=-2))) == 0
    assert recent == [FinishedSync(after(hours=1), False), FinishedSync(T0, True)]
