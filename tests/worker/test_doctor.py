"""The doctor names each misconfiguration, and nothing where all is well."""

import asyncio
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.codat.client import CodatClient
from app.db import rate_limit, workers
from app.db.engine import Database, open_database
from app.db.tables import jobs, webhook_events
from app.domain.causes.loader import load_builtin, load_custom
from app.domain.checks import Misconfiguration
from app.domain.webhook_loss import Endpoint, endpoint_url
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable
from app.settings import Settings, load_settings
from app.worker.doctor import check_codat, check_database, check_settings, check_sqlite_file
from tests.factories import T0, add_event, after, deliver
from tests.worker.test_channels import SECRET
from tests.worker.test_dispatcher import send

GOOD = Endpoint("https://us.example/webhooks/codat", False, ("SyncFailed", "SyncCompleted"))
KEY = "tTq4h9mZx2Lk8WvB1sYd"


def make_settings(**overrides: Any) -> Settings:
    values = {"codat_webhook_secrets": SECRET, "codat_api_key": "codat-key", "api_keys": KEY}
    return load_settings(**values | overrides)


def names(found: list[Misconfiguration]) -> list[str]:
    assert all(finding.text and finding.action for finding in found)
    return [finding.name for finding in found]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, []),
        ({"codat_webhook_secrets": ""}, ["setting_missing"]),
        ({"codat_api_key": None, "api_keys": ""}, ["setting_missing"] * 2),
        ({"codat_webhook_secrets": f"{SECRET},v1,{SECRET}"},
         ["webhook_secret_wrong", "webhook_secret_repeated"]),
        ({"codat_webhook_secrets": "whsec_canary"}, ["webhook_secret_wrong"]),
        ({"api_keys": f"{KEY},{KEY}"}, ["api_key_repeated"]),
        ({"api_keys": "aaaaaaaabbbbbbbb"}, ["api_key_weak"]),  # length alone is not enough
        ({"api_keys": "Change-me-please-now"}, ["api_key_weak"]),
        ({"codat_api_key": KEY}, ["api_key_shared"]),
        ({"codat_base_url": "http://codat.internal"}, ["codat_in_clear"]),
        ({"codat_base_url": "http://127.0.0.1:9000"}, []),  # a simulator on the same machine
        ({"codat_base_url": "http://[::1]:9000"}, []),
        ({"reconcile_every_minutes": 0}, ["reconcile_off"]),
    ],
)  # fmt: skip
def test_each_wrong_setting_is_a_finding(overrides: dict[str, Any], expected: list[str]) -> None:
    """By name, and without its value."""
    found = list(check_settings(make_settings(**overrides)))
    assert names(found) == expected
    assert not any(secret in str(found) for secret in (SECRET, KEY, "canary"))


def test_settings_that_cannot_be_read_are_not_also_missing() -> None:
    """One cause, one finding."""
    problems = ["PORT must be a number.", "API_KEYS must be longer."]
    found = list(check_settings(make_settings(api_keys=""), problems))
    assert names(found) == ["setting_wrong", "setting_wrong"]
    assert [finding.text for finding in found] == problems


def beat(database: Database, at: datetime = T0) -> None:
    with database.writing() as connection:
        workers.beat(connection, "w", at)


def test_a_worker_that_is_gone_is_a_finding(database: Database) -> None:
    """Never seen, or not for a minute; but new work is not."""
    assert names(check_database(database, T0)) == ["worker_silent"]
    beat(database)
    deliver(database, "m1")
    add_event(database, "m2")
    assert check_database(database, T0) == []
    assert names(check_database(database, after(minutes=2))) == ["worker_silent"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"state": "dead"}, ["fetches_given_up"]),
        ({"run_at": T0 - timedelta(minutes=20)}, ["fetches_stalled"]),
        ({"run_at": after(hours=1), "attempts": 5}, ["fetches_stalled"]),
    ],
)
def test_fetches_that_make_no_progress_are_a_finding(
    database: Database, values: dict[str, Any], expected: list[str]
) -> None:
    """Dead, claimed by no worker, or failed many times; but not while calls pause."""
    beat(database)
    deliver(database, "m1")
    with database.writing() as connection:
        connection.execute(update(jobs).values(values))
    assert names(check_database(database, T0)) == expected
    with database.writing() as connection:
        rate_limit.pause(connection, after(hours=1), "429", T0)
    is_only_late = "run_at" in values and "attempts" not in values
    assert names(check_database(database, T0)) == ([] if is_only_late else expected)


def test_workers_with_different_rules_are_a_finding(database: Database, database_url: str) -> None:
    """It names those whose rules do not apply. One rule is enough of a difference."""
    beat(database)
    rule = '[[rule]]\ncause = "period_closed"\nmessage = "sealed"'
    other = open_database(database_url, classifier=load_custom(rule, load_builtin()))
    with other.writing() as connection:
        workers.beat(connection, "newer", after(seconds=1))
    (found,) = check_database(other, after(seconds=1))
    other.close()
    assert found.name == "cause_rules_differ"
    assert "Those of newer apply, the newest; older ones: w." in found.text


def test_messages_that_were_given_up_are_a_finding(database: Database) -> None:
    beat(database)
    send(database, "webhook:a", "webhook:b")
    assert check_database(database, T0) == []
    with database.writing() as connection:
        dead = update(jobs).where(jobs.c.group_key == "webhook:a").values(state="dead")
        connection.execute(dead)
    (found,) = check_database(database, T0)
    assert (found.name, found.text[-3:]) == ("messages_given_up", " 1.")


def test_events_that_failed_or_wait_for_long_are_findings(database: Database) -> None:
    deliver(database, "m1")
    with database.writing() as connection:
        connection.execute(update(webhook_events).values(projection_error="KeyError: x"))
    add_event(database, "m2")
    beat(database, after(minutes=6))
    found = check_database(database, after(minutes=6))
    assert names(found) == ["events_failed", "events_behind"]
    assert "1 webhook events are waiting" in found[1].text


def test_a_missing_schema_is_a_finding(empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    (found,) = check_database(database, T0)
    database.close()
    assert found.name == "schema_outdated"
    assert "migrate" in found.action


def test_a_database_that_is_down_is_a_finding_without_its_url() -> None:
    """URLs contain passwords."""
    database = open_database("postgresql://u:canary@127.0.0.1:1/x")
    (found,) = check_database(database, T0)
    database.close()
    assert found.name == "database_unreachable"
    assert "Connection refused" in found.text
    assert "canary" not in str(found)


@dataclass
class FakeCodat(CodatClient):
    consumers: list[Endpoint] = field(default_factory=lambda: [GOOD])
    error: CodatError | None = None
    clock_skew: timedelta | None = timedelta()

    async def list_consumers(self) -> list[Endpoint]:
        if self.error:
            raise self.error
        return self.consumers


def failing(error: CodatError) -> FakeCodat:
    return FakeCodat(error=error)


LOCAL, PUBLIC = "127.0.0.1", "0.0.0.0"
DOWN = CodatUnavailable("Cannot connect to Codat (ConnectError)")


@pytest.mark.parametrize(
    ("codat", "host", "expected"),
    [
        (FakeCodat(), LOCAL, []),
        (FakeCodat(), PUBLIC, []),
        (FakeCodat([]), LOCAL, ["endpoint_missing"]),
        (FakeCodat([replace(GOOD, disabled=True)]), LOCAL, ["endpoint_disabled"]),
        (FakeCodat([replace(GOOD, event_types=("SyncFailed",))]), LOCAL, ["event_types_missing"]),
        # webhooks are rejected from five minutes on, so this warns in time
        (FakeCodat(clock_skew=timedelta(seconds=-60)), LOCAL, []),
        (FakeCodat(clock_skew=timedelta(seconds=61)), LOCAL, ["clock_skewed"]),
        (FakeCodat(clock_skew=None), LOCAL, []),
        (failing(CodatRefused("no", status=401)), LOCAL, ["codat_key_refused"]),
        (failing(CodatRefused("no", status=403)), LOCAL, ["codat_key_refused"]),
        (failing(CodatRefused("plan", status=402)), LOCAL, ["codat_refuses"]),
        (failing(CodatRateLimited("wait", status=429)), LOCAL, ["codat_rate_limited"]),
        (failing(DOWN), LOCAL, ["codat_unreachable"]),
        # the sign of TLS is the URL by which Codat reaches us
        (failing(DOWN), PUBLIC, ["codat_unreachable", "host_exposed"]),
        (FakeCodat([replace(GOOD, url="http://us/webhooks/codat")]), "::", ["host_exposed"]),
        (failing(DOWN), "our-host", ["codat_unreachable", "host_exposed"]),
        *((failing(DOWN), host, ["codat_unreachable"]) for host in ("localhost", "::1")),
    ],
)
def test_each_problem_with_codat_is_a_finding(
    codat: FakeCodat, host: str, expected: list[str]
) -> None:
    assert names(asyncio.run(check_codat(codat, host))) == expected


@pytest.mark.parametrize(
    ("public_url", "root_path", "endpoint", "expected"),
    [
        ("https://us.example", "", "https://us.example/webhooks/codat", []),
        ("https://us.example", "/a", "https://us.example/a/webhooks/codat/", []),
        ("https://us.example/a/", "", "https://us.example/a/webhooks/codat", []),
        ("https://us.example/a", "", "https://us.example/webhooks/codat", ["endpoint_missing"]),
        ("https://us.example", "", "https://test.example/webhooks/codat", ["endpoint_missing"]),
        ("", "", "https://test.example/any/webhooks/codat", []),
        ("", "", "https://test.example//webhooks/codat", ["endpoint_missing", "host_exposed"]),
    ],
)
def test_the_public_url_decides_which_endpoint_is_ours(
    public_url: str, root_path: str, endpoint: str, expected: list[str]
) -> None:
    settings = make_settings(public_url=public_url or None, root_path=root_path)
    ours = endpoint_url(settings.public_url, settings.root_path)
    codat = FakeCodat([replace(GOOD, url=endpoint)])
    assert names(asyncio.run(check_codat(codat, PUBLIC, ours))) == expected


def test_a_secret_in_an_endpoint_url_is_not_shown() -> None:
    """The finding names the endpoint without user, password and query."""
    url = "https://u:canary@us.example:8443/webhooks/codat?token=canary#canary"
    codat = FakeCodat([replace(GOOD, url=url, disabled=True)], clock_skew=timedelta(seconds=-90))
    disabled, skewed = asyncio.run(check_codat(codat, "127.0.0.1"))
    assert disabled.text.endswith(" https://us.example:8443/webhooks/codat.")
    assert "90 s behind" in skewed.text


def test_a_restore_beside_an_old_wal_is_a_finding(tmp_path: Path) -> None:
    """SQLite would apply the log to the backup; a service that runs or crashed has none of it."""
    file, backup = tmp_path / "syncs.db", tmp_path / "backup.db"
    code = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode=WAL')\n"
        "c.execute('CREATE TABLE IF NOT EXISTS t (x)')\n"
        "c.execute('INSERT INTO t VALUES (1)')\n"
        "print(flush=True); sys.stdin.read(1); os._exit(1)\n"  # a crash: the log stays
    )
    command = [sys.executable, "-c", code, str(file)]
    for _ in range(2):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            writer.stdout.readline()
            assert check_sqlite_file(file) is None
            file.touch()  # as a checkpoint does
            assert check_sqlite_file(file) is None
            writer.communicate(b"x")
    log = (tmp_path / "syncs.db-wal").read_bytes()
    (tmp_path / "syncs.db-wal").write_bytes(log)
    assert check_sqlite_file(file) is None
    backup.write_bytes(file.read_bytes())
    shutil.copystat(file, backup)
    os.replace(backup, file)  # noqa: PTH105 - as `mv` does, with the time of the backup
    found = check_sqlite_file(file)
    assert found
    assert found.name == "sqlite_old_wal"
    (tmp_path / "syncs.db-wal").unlink()
    assert check_sqlite_file(file) is None


def test_a_read_only_database_is_a_finding(postgresql_url: str) -> None:
    database = open_database(postgresql_url + "?options=-cdefault_transaction_read_only%3Don")
    (found,) = check_database(database, T0)
    database.close()
    assert found.name == "database_unusable"
    assert "read-only" in found.text
