"""Journeys: the real processes, a simulated Codat, kill -9, on both databases."""

import json
import signal
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from app.db.engine import open_database
from app.db.tables import events, fetches
from tests.processes import API_KEY, SECRET, TLS, Process, Stage, ask, run, signed, wait_for


def control(codat: str, path: str, body: dict[str, Any]) -> Any:
    answer = httpx.post(f"{codat}/_sim{path}", json=body, timeout=10, verify=TLS)
    assert answer.is_success, answer.text
    return answer.json()


def truth(codat: str, sync_id: str) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"{codat}/_sim/syncs/{sync_id}", timeout=10, verify=TLS).json()
    return told


def a_sync(codat: str, **advance: Any) -> tuple[str, str]:
    company = control(codat, "/companies", {"name": "Toft stores"})["id"]
    sync = control(codat, "/syncs", {"company_id": company, **advance})
    return company, sync["sync_id"]


def failing(sync_id: str) -> bytes:
    told = {"RuleType": "Sync Failed", "CompanyId": "c1", "Data": {"syncId": sync_id}}
    return json.dumps(told).encode()


def fetched(service: Process, sync_id: str) -> Any:
    found = ask(service, f"/syncs/{sync_id}")
    over = found and found["state"] != "started"  # it may only have been told to start
    return found if over and found["errors"]["state"] in ("fetched", "not_needed") else None


def test_a_failed_sync_is_known_item_by_item_as_codat_knows_it(playing: Stage) -> None:
    """The main job: Codat's webhook in, every item's error out."""
    codat = playing.simulate()
    service = playing.serve()
    door = f"{service.address}/webhooks/codat"
    control(codat, "/subscriptions", {"url": door, "secret": SECRET})
    _, sync_id = a_sync(codat, outcome="partly_failed", size=5)
    sync = wait_for(lambda: fetched(service, sync_id))
    real = truth(codat, sync_id)
    assert (sync["state"], sync["outcome"]) == ("failed", "partly_failed")
    assert sync["status_code"] == real["status"]["syncStatusCode"]
    assert sync["error_message"] == real["status"]["errorMessage"]
    rows = ask(service, f"/syncs/{sync_id}/transactions")["items"]
    assert [(r["transaction_id"], r["status"], r["message"]) for r in rows] == [
        (i["transactionId"], i["status"], i.get("message")) for i in real["items"]
    ]
    assert sync["transactions"]["total"] == len(real["items"])


def test_no_acknowledged_delivery_is_lost_when_the_service_is_killed(playing: Stage) -> None:
    """kill -9 in a burst, three times; every 204 is in the database."""
    acknowledged: set[str] = set()
    for _ in range(3):
        service = playing.serve(WORKER_IN_WEB="false")
        enough = threading.Event()
        threads = [
            threading.Thread(target=_deliver, args=(service, acknowledged, enough))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        assert enough.wait(20)
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
        for thread in threads:
            thread.join()
    database = open_database(playing.database_url)
    with database.reading() as connection:
        kept = set(connection.execute(select(events.c.message_id)).scalars())
    database.close()
    assert len(acknowledged) >= 150
    assert acknowledged - kept == set()


def _deliver(service: Process, acknowledged: set[str], enough: threading.Event) -> None:
    """Deliver until the service is gone; note what it acknowledged."""
    with httpx.Client(timeout=5) as client:
        for n in range(2000):
            message_id = f"msg_{uuid.uuid4().hex}"
            body = failing(str(uuid.uuid4()))
            try:
                answer = client.post(
                    f"{service.address}/webhooks/codat",
                    content=body,
                    headers=signed(body, message_id),
                )
            except httpx.HTTPError:
                return
            if answer.status_code == 204:
                acknowledged.add(message_id)
            if n == 20:
                enough.set()


def test_a_killed_workers_fetch_is_taken_over_by_another(playing: Stage) -> None:
    """kill -9 while Codat is answering; after the lease the other worker finishes the fetch."""
    codat = playing.simulate()
    company, sync_id = a_sync(codat, outcome="write_error", size=3, shapes=[])
    control(codat, "/faults", {"kind": "timeout", "call": "transactions", "hold_seconds": 20})
    service = playing.serve(WORKER_IN_WEB="false")
    first = playing.start("worker")
    body = json.dumps(
        {"RuleType": "SyncFailed", "CompanyId": company, "Data": {"syncId": sync_id}}
    ).encode()
    answer = httpx.post(
        f"{service.address}/webhooks/codat", content=body, headers=signed(body, "msg_1"), verify=TLS
    )
    assert answer.status_code == 204
    wait_for(lambda: _calls(codat, "transactions"))
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    waiting = ask(service, f"/syncs/{sync_id}")
    assert (waiting["state"], waiting["errors"]["state"]) == ("failed", "waiting")
    _end_leases(playing)
    playing.start("worker")
    sync = wait_for(lambda: fetched(service, sync_id))
    assert sync["transactions"]["failed"] == 3
    assert sync["errors"]["attempts"] == 2


def _calls(codat: str, kind: str) -> int:
    counters = httpx.get(f"{codat}/_sim/counters", timeout=10, verify=TLS).json()
    calls: int = counters["calls"].get(kind, 0)
    return calls


def _end_leases(playing: Stage) -> None:
    """Let a minute pass, as far as leases are concerned."""
    database = open_database(playing.database_url)
    with database.writing() as connection:
        due = connection.execute(select(fetches.c.due)).scalar_one()
        connection.execute(update(fetches).values(due=due - timedelta(minutes=2)))
    database.close()


def test_while_codat_is_away_nothing_blocks_and_it_can_be_seen(playing: Stage) -> None:
    """The sync shows that its errors are not known yet, why, and when the next try is."""
    service = playing.serve(CODAT_BASE_URL="http://127.0.0.1:1")
    body = failing("s1")
    sent = httpx.post(
        f"{service.address}/webhooks/codat", content=body, headers=signed(body, "msg_1"), verify=TLS
    )
    assert sent.status_code == 204

    def tried() -> Any:
        found = ask(service, "/syncs/s1")
        return found if found["errors"]["last_error"] else None

    sync = wait_for(tried)
    assert (sync["state"], sync["errors"]["state"]) == ("failed", "waiting")
    assert "cannot be reached" in sync["errors"]["last_error"]
    assert sync["errors"]["next_attempt_at"] is not None
    assert sync["transactions"]["failed"] is None


def test_no_call_is_made_from_the_rate_limit_event_until_the_reset(playing: Stage) -> None:
    """Codat says that the quota is used up; what is owed waits, and goes on after the reset."""
    codat = playing.simulate()
    service = playing.serve()
    door = f"{service.address}/webhooks/codat"
    control(codat, "/subscriptions", {"url": door, "secret": SECRET})
    control(codat, "/quota/exhaust", {})
    wait_for(lambda: ask(service, "/events")["items"])
    _, sync_id = a_sync(codat, outcome="partly_failed", size=3)
    wait_for(lambda: ask(service, f"/syncs/{sync_id}"))
    time.sleep(2.5)
    assert httpx.get(f"{codat}/_sim/counters", timeout=10, verify=TLS).json()["total"] == 0
    assert ask(service, f"/syncs/{sync_id}")["errors"]["state"] == "waiting"
    control(codat, "/quota/reset", {})
    sync = wait_for(lambda: fetched(service, sync_id))
    assert sync["errors"]["attempts"] == 1


def test_a_given_up_fetch_is_redriven_from_the_command_line(playing: Stage) -> None:
    """A Portal example's sync does not exist: given up at once, and brought back by hand."""
    playing.simulate()
    service = playing.serve()
    body = failing("00000000-0000-0000-0000-000000000000")
    httpx.post(
        f"{service.address}/webhooks/codat", content=body, headers=signed(body, "msg_1"), verify=TLS
    )
    path = "/syncs/00000000-0000-0000-0000-000000000000"

    def given_up() -> bool:
        found = ask(service, path)
        return bool(found and found["errors"]["state"] == "given_up")

    wait_for(given_up)
    done = run(playing.folder, "redrive", "--all-dead", DATABASE_URL=playing.database_url)
    assert (done.returncode, done.stdout) == (0, "1 given-up fetch is due again\n")


@pytest.mark.parametrize("words", [("redrive", "--sync"), ("reconcile", "--company")])
def test_an_id_that_nobody_knows_is_said_to_be_unknown(
    playing: Stage, words: tuple[str, str]
) -> None:
    """A mistyped id must not look like work that was done."""
    where = {"DATABASE_URL": playing.database_url, "CODAT_BASE_URL": playing.simulate()}
    done = run(playing.folder, *words, "00000000-0000-0000-0000-000000000000", **where)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_reconcile_finds_what_no_webhook_told(playing: Stage) -> None:
    """First only counted, then mended; and the calls it cost are told."""
    codat = playing.simulate()
    company, sync_id = a_sync(codat, outcome="write_error", size=2, shapes=[])
    where = {"DATABASE_URL": playing.database_url, "CODAT_BASE_URL": codat}
    counted = run(playing.folder, "reconcile", "--dry-run", **where)
    assert (counted.returncode, counted.stdout) == (
        0,
        "would mend: 1 companies, 1 syncs, 2 calls to Codat: "
        "1 never announced, 0 disagrees, 0 given up, 0 incomplete, 0 stuck\n",
    )
    elsewhere = datetime.now(timezone(timedelta(hours=5))) - timedelta(hours=1)
    for since, found in (
        (elsewhere.isoformat(), 1),
        (f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}", 0),
    ):
        late = run(playing.folder, "reconcile", "--dry-run", "--since", since, **where)
        assert f"{found} never announced" in late.stdout, late.stderr
    done = run(playing.folder, "reconcile", "--company", company, "--since", "2020-01-01", **where)
    assert "1 never announced" in done.stdout
    service = playing.serve()
    sync = wait_for(lambda: fetched(service, sync_id))
    assert (sync["state"], sync["transactions"]["failed"]) == ("failed", 2)


@pytest.mark.parametrize("role", ["serve", "worker"])
def test_sigterm_ends_well_within_ten_seconds(playing: Stage, role: str) -> None:
    """Exit code 0, also while a fetch is in hand; its claim is given back."""
    codat = playing.simulate()
    company, sync_id = a_sync(codat, outcome="write_error", size=1, shapes=[])
    control(codat, "/faults", {"kind": "timeout", "call": "sync_status", "hold_seconds": 30})
    service = playing.serve(WORKER_IN_WEB="true" if role == "serve" else "false")
    process = service if role == "serve" else playing.start("worker")
    body = failing(sync_id).replace(b'"c1"', json.dumps(company).encode())
    httpx.post(
        f"{service.address}/webhooks/codat", content=body, headers=signed(body, "msg_1"), verify=TLS
    )
    wait_for(lambda: _calls(codat, "sync_status"))
    assert process.stop() == 0
    database = open_database(playing.database_url)
    with database.reading() as connection:
        row = connection.execute(select(fetches)).mappings().one()
    database.close()
    assert (row["state"], row["token"], row["attempts"]) == ("owed", None, 0)


def test_send_posts_a_signed_event_that_arrives(playing: Stage) -> None:
    """The operator's own test of the door, in both generations."""
    service = playing.serve(WORKER_IN_WEB="false")
    door = f"{service.address}/webhooks/codat"
    for event, shape, state in (
        ("SyncStarted", "legacy", "started"),
        ("expenses.sync.successful", "new", "completed"),
        ("sync failed", "legacy", "failed"),
    ):
        done = run(playing.folder, "send", event, "--to", door, "--sync", "s1", "--company", "c1",
                   "--shape", shape)  # fmt: skip
        assert (done.returncode, done.stdout[:4]) == (0, "204 "), done.stderr
        assert ask(service, "/syncs/s1")["state"] == state
    wrong = run(playing.folder, "send", "SyncFailed", "--to", door,
                "--secret", "whsec_" + "B" * 32)  # fmt: skip
    assert (wrong.returncode, "401" in wrong.stderr) == (1, True)


def test_send_finds_the_door_on_an_ipv6_address(playing: Stage) -> None:
    """Its colons need brackets in an address."""
    done = run(playing.folder, "send", "SyncFailed", HOST="::1", PORT="1")
    assert "error: http://[::1]:1/webhooks/codat cannot be reached" in done.stderr
    assert "port" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("nonsense",), 2),
        (("send", "NoSuchEvent"), 2),
        (("send", "SyncStarted", "--shape", "new"), 2),
        (("redrive",), 2),
        (("--help",), 0),
        *(((verb, "--help"), 0) for verb in ("serve", "worker", "migrate", "demo", "send")),
    ],
)
def test_wrong_use_is_code_2_and_help_is_there(
    tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    """Scripts depend on it."""
    done = run(tmp_path, *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"CODAT_WEBHOOK_SECRETS": ""}, "CODAT_WEBHOOK_SECRETS"),
        ({"CODAT_WEBHOOK_SECRETS": "whsec_!!canary!!"}, "CODAT_WEBHOOK_SECRETS"),
        ({"API_KEYS": "canary"}, "API_KEYS"),
        ({"CODAT_API_KEY": ""}, "CODAT_API_KEY"),
        ({"DATABASE_URL": "sqlite:///never-migrated.db"}, "app migrate"),
        ({"DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/x"}, "database"),
    ],
)
def test_a_start_that_cannot_work_is_refused_with_one_line(
    tmp_path: Path, settings: dict[str, str], named: str
) -> None:
    """It names what to do and shows no secret."""
    done = run(tmp_path, "serve", **settings)
    assert done.returncode == 1
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "canary" not in done.stderr


def test_migrate_says_what_it_did(tmp_path: Path) -> None:
    """And says so again when there is nothing to do."""
    url = f"sqlite:///{tmp_path}/new/folder/x.db"
    first = run(tmp_path, "migrate", DATABASE_URL=url)
    second = run(tmp_path, "migrate", DATABASE_URL=url)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "was None" in first.stdout
    assert "was up to date" in second.stdout


def test_a_port_in_use_is_an_error_and_not_a_silence(playing: Stage) -> None:
    """Exit code 1, and the address."""
    service = playing.serve(WORKER_IN_WEB="false")
    port = service.address.rsplit(":", 1)[1]
    done = run(playing.folder, "serve", DATABASE_URL=playing.database_url, PORT=port)
    assert done.returncode == 1
    assert port in done.stderr


def test_a_sync_started_here_is_followed_to_its_end_without_any_webhook(playing: Stage) -> None:
    """Codat starts it, tells nobody, and its items are known all the same."""
    codat = playing.simulate()
    company = control(codat, "/companies", {"name": "Toft stores"})["id"]
    service = playing.serve()
    ours = httpx.Client(
        base_url=f"{service.address}/api/v1/companies/{company}",
        headers={"authorization": f"Bearer {API_KEY}"},
        timeout=10,
    )
    order = {"dataset_ids": [str(uuid.uuid4())]}
    with ours:
        answer = ours.post("/syncs", json=order)
        assert answer.status_code == 202, answer.text
        sync_id = answer.json()["sync_id"]
        assert ours.post("/syncs", json=order).status_code == 409
        config = ours.get("/config", params={"download": "true"})
        assert config.json()
        assert config.headers["content-disposition"].startswith("attachment")
    assert ask(service, f"/syncs/{sync_id}")["state"] == "started"
    control(codat, f"/syncs/{sync_id}/advance", {"outcome": "partly_failed", "shapes": []})
    where = {"DATABASE_URL": playing.database_url, "CODAT_BASE_URL": codat}
    assert "1 disagrees" in run(playing.folder, "reconcile", **where).stdout
    path = f"/syncs/{sync_id}"
    wait_for(lambda: ask(service, path)["errors"]["state"] == "fetched")
    sync = ask(service, path)
    assert (sync["state"], sync["outcome"]) == ("failed", "partly_failed")
