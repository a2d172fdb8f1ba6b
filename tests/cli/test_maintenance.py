"""Looking after the service from the command line: real processes, both databases."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update

from app.db.engine import open_database
from app.db.keep import keep_all
from app.db.tables import events
from tests.processes import SECRET, Stage, run, wait_for
from tests.reports import delivery
from tests.test_journeys import control


def put(playing: Stage, message_id: str, **more: Any) -> None:
    database = open_database(playing.database_url)
    with database.writing() as connection:
        keep_all(connection, [delivery(message_id, **more)])
    database.close()


def test_prune_removes_old_bodies_and_says_how_many(playing: Stage) -> None:
    """And with 0 it keeps everything."""
    put(playing, "m1")
    database = open_database(playing.database_url)
    long_ago = datetime.now(UTC) - timedelta(days=8)
    with database.writing() as connection:
        connection.execute(update(events).values(received_at=long_ago))
    database.close()
    where = {"DATABASE_URL": playing.database_url}
    kept = run(playing.folder, "prune", KEEP_EVENTS_DAYS="0", **where)
    assert (kept.returncode, "nothing was removed" in kept.stdout) == (0, True)
    assert run(playing.folder, "prune", **where).stdout.startswith("0 raw bodies")
    done = run(playing.folder, "prune", KEEP_EVENTS_DAYS="7", **where)
    assert (done.returncode, done.stdout.startswith("1 raw bodies received before")) == (0, True)


def test_the_doctor_finds_nothing_where_all_is_well(playing: Stage) -> None:
    """The service runs, Codat knows its endpoint. Test databases lie in a folder that is swept."""
    codat = playing.simulate()
    service = playing.serve()
    types = ["SyncFailed", "SyncCompleted"]
    consumer = {"url": "https://us.example/webhooks/codat", "event_types": types, "secret": SECRET}
    control(codat, "/subscriptions", consumer)
    where = {"DATABASE_URL": playing.database_url, "CODAT_BASE_URL": codat}

    def well() -> Any:
        done = run(playing.folder, "doctor", "--json", RECONCILE_EVERY_MINUTES="15", **where)
        told = json.loads(done.stdout)
        found = {each["name"] for each in told["findings"]}
        assert told["ok"] == (done.returncode == 0)
        return found <= {"sqlite_ephemeral"}

    assert wait_for(well)
    assert service.stop() == 0
    done = run(playing.folder, "doctor", CODAT_API_KEY="wrong-canary-key", **where)
    assert done.returncode == 1
    for name in ("worker_silent", "codat_key_refused", "reconcile_off"):
        assert f"{name}: " in done.stdout
    assert "canary" not in done.stdout + done.stderr


def test_the_doctor_goes_on_where_settings_cannot_be_read(tmp_path: Path) -> None:
    """Everything that is wrong is named in one run, and nothing is created by looking."""
    done = run(
        tmp_path,
        "doctor",
        PORT="canary",
        API_KEYS="canary",
        CODAT_WEBHOOK_SECRETS="",
        CODAT_BASE_URL="http://127.0.0.1:1",
        DATABASE_URL=f"sqlite:///{tmp_path}/there/syncs.db",
    )
    found = [line.partition(":")[0] for line in done.stdout.splitlines() if line[:1] not in " "]
    assert done.returncode == 1
    assert found[:3] == ["setting_wrong", "setting_wrong", "setting_missing"]
    assert {"database_missing", "codat_unreachable", "reconcile_off"} <= set(found)
    assert "canary" not in done.stdout + done.stderr
    assert not (tmp_path / "there").exists()
    unreadable = run(tmp_path, "doctor", DATABASE_URL="postgresql://u:canary@h:port/x")
    assert "setting_wrong: DATABASE_URL" in unreadable.stdout
    assert "canary" not in unreadable.stdout + unreadable.stderr


def test_the_doctor_names_what_would_stop_the_start(tmp_path: Path) -> None:
    """Also what is wrong only together with another setting, or with a file."""
    done = run(
        tmp_path,
        "doctor",
        NOTIFY_WEBHOOK_URLS="https://receiver.example/canary",
        NOTIFY_URLS="nosuchservice://canary",
        CAUSES_FILE="nowhere.toml",
        CODAT_BASE_URL="http://127.0.0.1:1",
        DATABASE_URL=f"sqlite:///{tmp_path}/syncs.db",
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("setting_wrong: ")]
    assert [line.split(": ")[1] for line in found] == [
        "NOTIFY_SIGNING_SECRET",
        "CAUSES_FILE",
        "NOTIFY_URLS",
    ]
    assert "database_missing: " in done.stdout
    assert (done.returncode, done.stderr) == (1, "")
    assert "canary" not in done.stdout


def test_erase_asks_first_and_prints_a_receipt(playing: Stage) -> None:
    """Without anybody to ask it is wrong use; and an unknown company is said to be unknown."""
    put(playing, "m1", company_id="c-1")
    put(playing, "m2", company_id="c-2")
    where = {"DATABASE_URL": playing.database_url}
    assert run(playing.folder, "erase", "--company", "c-1", **where).returncode == 2
    done = run(playing.folder, "erase", "--company", "c-1", "--yes", **where)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert {"companies: 1", "events: 1", "fetches: 1", "syncs: 1", "notes: 0"} <= set(lines)
    assert len(lines) == len({line.partition(":")[0] for line in lines})
    rows = sum(int(line.partition(": ")[2]) for line in lines[:-1])
    assert lines[-1].startswith(f"erased {rows} rows of company c-1, ")
    again = run(playing.folder, "erase", "--company", "c-1", "--yes", **where)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "error: nothing of a company c-1 is kept here\n"
