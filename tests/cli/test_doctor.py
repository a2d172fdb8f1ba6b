"""`doctor`: all misconfigurations in one run."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import RunVerb

UNREACHABLE = {"CODAT_BASE_URL": "http://127.0.0.1:1"}


def test_it_continues_when_settings_cannot_be_used(run_verb: RunVerb, tmp_path: Path) -> None:
    result = run_verb(
        "doctor",
        PORT="70000",
        API_KEYS="canary",
        CODAT_WEBHOOK_SECRETS="",
        DATABASE_URL=f"sqlite:///{tmp_path}/there/syncs.db",
        **UNREACHABLE,
    )
    names = [line.partition(":")[0] for line in result.stdout.splitlines() if line[:1] != " "]
    assert result.exit_code == 1
    assert names[:3] == ["setting_wrong", "setting_wrong", "setting_missing"]
    assert {"database_missing", "codat_unreachable", "reconcile_off"} <= set(names)
    assert "canary" not in result.output
    assert not (tmp_path / "there").exists()


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # in apprise
def test_it_names_what_would_stop_the_start(run_verb: RunVerb, tmp_path: Path) -> None:
    result = run_verb(
        "doctor",
        NOTIFY_WEBHOOK_URLS="https://receiver.example/canary",
        NOTIFY_URLS="nosuchservice://canary",
        CAUSES_FILE="nowhere.toml",
        DATABASE_URL=f"sqlite:///{tmp_path}/syncs.db",
        **UNREACHABLE,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("setting_wrong: ")]
    assert [line.split()[1].rstrip(":") for line in lines] == [
        "NOTIFY_SIGNING_SECRET",
        "CAUSES_FILE",
        "NOTIFY_URLS",
    ]
    assert "database_missing: " in result.stdout
    assert result.exit_code == 1
    assert "canary" not in result.output


def test_an_unreadable_database_url_is_a_finding(run_verb: RunVerb) -> None:
    result = run_verb("doctor", DATABASE_URL="postgresql://u:canary@h:port/x", **UNREACHABLE)
    assert "setting_wrong: DATABASE_URL" in result.stdout
    assert "canary" not in result.output


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_json_has_the_same_findings(run_verb: RunVerb, database_url: str) -> None:
    result = run_verb("doctor", "--json", DATABASE_URL=database_url, **UNREACHABLE)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (1, False)
    names = {finding["name"] for finding in report["findings"]}
    assert {"worker_silent", "codat_unreachable", "reconcile_off"} <= names
    assert all(finding["text"] and finding["action"] for finding in report["findings"])


def test_an_sqlite_file_that_cannot_be_written_is_a_finding(run_verb: RunVerb) -> None:
    result = run_verb("doctor", DATABASE_URL="sqlite:////proc/self/status", **UNREACHABLE)
    assert "database_unusable: DATABASE_URL: cannot write /proc/" in result.stdout
    assert "Traceback" not in result.output
