"""The world over time: outcomes, cures, the lively morning, and the command line."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator import SubscriptionSettings, outcomes
from simulator.__main__ import main
from simulator.story import STORY, SYNCS
from tests.ports import free_port

from .stage import SECRET, URL, Stage, staged

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("outcome", "code"), outcomes.OUTCOMES.items())
async def test_every_outcome_has_its_code_text_and_rows(outcome: str, code: int) -> None:
    """Failures explain themselves, successes and running syncs have empty texts."""
    async with staged(subscriptions=()) as stage:
        sync = await stage.sync(await stage.company(), outcome=outcome, size=4)
        status = sync["status"]
        assert status["syncStatusCode"] == code
        assert bool(status["errorMessage"]) == (code >= 4000)
        assert bool(sync["failed_ids"]) == (code in (5000, 5080, 5120, 5130))
        wrote = any(row["status"] == "Completed" for row in sync["items"])
        assert status["dataPushed"] == wrote
        assert sync["running"] == (code < 2000)


async def test_a_retry_cures_what_failed() -> None:
    """The failed transactions go again in a new sync; the truth knows their newest status."""
    async with staged(subscriptions=()) as stage:
        company = await stage.company()
        failed = await stage.sync(company, outcome="partly_failed", size=4)
        cure = await stage.sync(company, retry_of=failed["sync_id"], outcome="all_written")
        assert {row["transactionId"] for row in cure["items"]} == set(failed["failed_ids"])
        truth = await stage.order("GET", "/truth")
        current = truth["companies"][0]["transactions"]
        assert set(current.values()) == {"Completed"}
        assert len(truth["syncs"]) == 2


async def test_a_sync_can_be_advanced_now_or_later_and_without_a_word() -> None:
    """Explicit rows decide the code; `after` waits; no shapes means silence."""
    async with staged(speed=1000.0) as stage:
        sync = (await stage.sync(await stage.company(), tell_start=False))["sync_id"]
        rows = [{"transactionId": "a", "status": None, "integrationType": None}]
        order = {"items": rows, "after": 10, "shapes": []}
        assert (await stage.order("POST", f"/syncs/{sync}/advance", order))["running"]
        await stage.settle()
        now = await stage.order("GET", f"/syncs/{sync}")
        assert (now["code"], now["items"]) == (2000, rows)
        assert stage.receiver.got == []


async def test_a_deauthorised_connection_is_told_and_shown() -> None:
    """connection.disconnected, and the status on the company."""
    every = (SubscriptionSettings(URL, SECRET),)
    async with staged(subscriptions=every) as stage:
        company = await stage.company()
        path = f"/companies/{company}/connection"
        await stage.order("PUT", path, {"status": "Deauthorized"})
        await stage.settle()
        body = json.loads(stage.receiver.got[0].body)
        assert body["eventType"] == "connection.disconnected"
        assert body["payload"]["connection"]["status"] == "Deauthorized"


async def until_played(stage: Stage) -> list[dict[str, Any]]:
    """The syncs of the morning once all are there and at rest."""
    for _ in range(200):
        await asyncio.sleep(0.05)
        syncs = (await stage.order("GET", "/truth"))["syncs"]
        if len(syncs) >= SYNCS and sum(sync["running"] for sync in syncs) == 1:
            return list(syncs)
    raise AssertionError("the morning never ended")


async def test_the_morning_has_everything() -> None:
    """Forty syncs with every code, one left running, a cure, duplicates and an unknown event."""
    every = (SubscriptionSettings(URL, SECRET),)
    async with staged(
        subscriptions=every, scenario="morning", speed=10_000.0, behind_seconds=10_800.0
    ) as stage:
        stage.simulator.start()
        syncs = await until_played(stage)
        codes = Counter(sync["code"] for sync in syncs)
        assert {1000, 2000, 2040, 4000, 4040, 4220, 4260, 5000, 5080, 5120, 5130} <= set(codes)
        seen = Counter(one.message_id for one in stage.receiver.got)
        assert max(seen.values()) == 3
        bodies = b"".join(one.body for one in stage.receiver.got)
        assert b"expenses.policy.changed" in bodies
        assert b"connection.disconnected" in bodies
        assert {"svix-id", "webhook-id"} <= {key for d in stage.receiver.got for key in d.headers}
        failed = {one for sync in syncs for one in sync["failed_ids"]}
        cured = {r["transactionId"] for s in syncs if s["succeeded"] for r in s["items"]}
        assert failed & cured


def test_the_first_failure_comes_early() -> None:
    """Within three seconds at demo speed, with its rows."""
    first = STORY[0]
    assert first.outcome == "partly_failed"
    assert (first.minute + first.lasts) * 60 / 400 < 3


@pytest.mark.parametrize(
    "wrong", [["--to", URL], ["--secret", "whsec_!!"], ["--scenario", "evening"]]
)
def test_wrong_use_ends_with_two(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line says why, and no secret is in it."""
    with pytest.raises(SystemExit) as left:
        main(wrong)
    assert left.value.code == 2
    assert "whsec_!!" not in capsys.readouterr().err


def test_the_command_serves_drops_and_ends_cleanly() -> None:
    """One line when ready, real HTTP, a really broken connection, code 0 on SIGTERM."""
    command = [sys.executable, "-m", "simulator", "--port", str(free_port()), "--key", "k"]
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", ready)
        assert found, ready
        with urllib.request.urlopen(found[0] + "/_sim") as answer:
            assert answer.status == 200
        with httpx.Client(base_url=found[0], trust_env=False) as client:
            client.post("/_sim/faults", json={"kind": "drop"})
            with pytest.raises(httpx.TransportError):
                client.get("/companies", headers={"Authorization": "Basic aw=="})
            assert client.get("/companies", headers={"Authorization": "Basic aw=="}).is_success
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
