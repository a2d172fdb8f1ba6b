"""Alerts: one is open per cause and company, and it resolves itself."""

import pytest
from sqlalchemy import select

from app.db import alerts
from app.db.alerts import FAILURE_PREFIX, AlertChanges
from app.db.engine import Database
from app.db.tables import alerts as table
from app.db.tables import outgoing_messages
from app.domain.models import SYNC_COMPLETED, Transaction
from app.domain.outgoing import Recipients
from app.domain.webhook_loss import Finding, FinishedSync
from app.errors import BadRequest
from tests.db.stored import COMPLETED_ROW, FAILED_ROW, answered, reported, write
from tests.factories import STARTED, T0, after, deliver

LOST = Finding("webhooks_lost", "c1", "no webhook for an hour")


def sync_alerts(database: Database, *findings: Finding, hours: float = 0) -> AlertChanges:
    causes = {"webhooks_lost", *(each.cause for each in findings)}
    with database.writing() as connection:
        return alerts.sync_alerts(connection, causes, findings, after(hours=hours))


def open_now(database: Database) -> list[tuple[str, str, str]]:
    with database.reading() as connection:
        rows = alerts.open_alerts(connection).rows
    return [(row["cause"], row["company_id"], row["text"]) for row in rows]


def test_an_alert_stays_open_until_its_finding_is_gone(database: Database) -> None:
    assert sync_alerts(database, LOST) == AlertChanges([LOST], 0)
    assert sync_alerts(database, LOST, hours=1) == AlertChanges([], 0)
    assert open_now(database) == [("webhooks_lost", "c1", "no webhook for an hour")]
    assert sync_alerts(database, hours=2) == AlertChanges([], 1)
    assert open_now(database) == []
    assert sync_alerts(database, LOST, hours=3) == AlertChanges([LOST], 0)
    with database.reading() as connection:
        times = connection.execute(
            select(table.c.opened_at, table.c.resolved_at).order_by(table.c.id)
        ).all()
    assert [tuple(row) for row in times] == [(T0, after(hours=2)), (after(hours=3), None)]


def test_an_open_alert_has_the_latest_text(database: Database) -> None:
    sync_alerts(database, LOST)
    sync_alerts(database, Finding("webhooks_lost", "c1", "for two hours"))
    assert open_now(database) == [("webhooks_lost", "c1", "for two hours")]


def test_other_causes_and_companies_are_left_alone(database: Database) -> None:
    other = Finding("endpoint_missing", "", "no endpoint")
    another = Finding("webhooks_lost", "c2", "x")
    sync_alerts(database, LOST, other, another)
    assert sync_alerts(database, LOST) == AlertChanges([], 1)
    assert sorted(open_now(database))[0] == ("endpoint_missing", "", "no endpoint")


def test_webhooks_and_notifications_report_both_ends(database: Database) -> None:
    recipients = Recipients(webhooks=("webhook:a",), notifications=("notification:n",))
    database.engine.update_execution_options(recipients=recipients)
    sync_alerts(database, LOST)
    sync_alerts(database, LOST)
    sync_alerts(database)
    with database.reading() as connection:
        sent = connection.execute(
            select(outgoing_messages.c.recipient, outgoing_messages.c.kind)
        ).all()
    assert sorted(map(tuple, sent)) == [
        (recipient, kind)
        for recipient in ("notification:n", "webhook:a")
        for kind in ("alert.opened", "alert.resolved")
    ]


def test_open_alerts_are_read_in_pages_newest_first(database: Database) -> None:
    sync_alerts(database, *(Finding("x", f"c{n}", "text") for n in range(5)))
    with database.reading() as connection:
        first = alerts.open_alerts(connection, limit=3)
        rest = alerts.open_alerts(connection, limit=3, cursor=first.next)
        with pytest.raises(BadRequest, match="cursor"):
            alerts.open_alerts(connection, cursor="x")
    seen = [row["company_id"] for row in (*first.rows, *rest.rows)]
    assert seen == ["c4", "c3", "c2", "c1", "c0"]
    assert rest.next is None


def test_alerts_about_failures_are_summed_up_by_cause(database: Database) -> None:
    """The others come one by one, with the company's name."""
    deliver(database, "m1", company_name="Toft Stores")
    many = [Finding(f"{FAILURE_PREFIX}closed", f"c{n}", "x") for n in range(3)]
    sync_alerts(database, LOST, *many, Finding(f"{FAILURE_PREFIX}vat", "c1", "x"))
    with database.reading() as connection:
        assert alerts.open_except(connection, FAILURE_PREFIX) == [
            ("no webhook for an hour", T0, "c1", "Toft Stores")
        ]
        assert alerts.open_by_cause(connection, FAILURE_PREFIX) == [
            ("closed", 3, T0),
            ("vat", 1, T0),
        ]
        found = alerts.open_causes(connection, FAILURE_PREFIX)
    assert found == {f"{FAILURE_PREFIX}closed", f"{FAILURE_PREFIX}vat"}


def test_a_prefix_is_taken_literally(database: Database) -> None:
    """An underscore is no wildcard."""
    sync_alerts(database, Finding("pushXerror:x", "", "text"))
    with database.reading() as connection:
        assert alerts.open_causes(connection, FAILURE_PREFIX) == set()
        assert len(alerts.open_except(connection, FAILURE_PREFIX)) == 1


def test_resolved_alerts_are_pruned(database: Database) -> None:
    """Open ones never."""
    sync_alerts(database, LOST, Finding("x", "c2", "text"))
    sync_alerts(database, hours=1)
    with database.writing() as connection:
        assert alerts.prune(connection, after(hours=1), 10) == 0
        assert alerts.prune(connection, after(days=9), 10) == 1
        assert connection.execute(select(table.c.cause)).scalars().all() == ["x"]


def test_unresolved_failures_are_found_by_cause_and_company(database: Database) -> None:
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
        found = alerts.open_failures(connection, after(days=1))
        assert [each.company_id for each in found] == ["c1"]
        everything = alerts.open_failures(connection, T0)
    assert [each.company_id for each in everything] == ["c0", "c1"]
    assert all(each.cause_key for each in everything)


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
