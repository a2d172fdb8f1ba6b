"""Syncs over time: outcomes, retries, the scenario, and the command line."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator import Subscription
from simulator.__main__ import main
from simulator.outcomes import OUTCOMES
from simulator.scenario import MORNING_SECONDS, SYNCS
from tests.ports import free_port

from .harness import SECRET, URL, Harness, simulated

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("outcome", "code"), OUTCOMES.items())
async def test_every_outcome_has_its_code_messages_and_rows(outcome: str, code: int) -> None:
    """Failures have error messages, successes and running syncs have empty ones."""
    async with simulated(subscriptions=()) as harness:
        sync = await harness.sync(outcome=outcome, size=4)
        status = sync["status"]
        assert status["syncStatusCode"] == code
        assert bool(status["errorMessage"]) == (code >= 4000)
        assert bool(sync["failed_ids"]) == (code in (5000, 5080, 5120, 5130))
        wrote = any(row["status"] == "Completed" for row in sync["items"])
        assert status["dataPushed"] == wrote
        assert sync["running"] == (code < 2000)


async def test_a_retry_sends_the_failed_transactions_in_a_new_sync() -> None:
    """Also when a size is given, as the chaos runs do."""
    async with simulated(subscriptions=()) as harness:
        company = await harness.company()
        failed = await harness.sync(company, outcome="partly_failed", size=4)
        retry = {"retry_of": failed["sync_id"], "outcome": "all_written", "size": 7}
        retried = await harness.sync(company, **retry)
        assert {row["transactionId"] for row in retried["items"]} == set(failed["failed_ids"])
        assert {row["status"] for row in retried["items"]} == {"Completed"}
        assert (await harness.control("GET", "/truth"))["syncs"] == [failed, retried]


async def test_a_sync_can_be_advanced_without_webhooks() -> None:
    """No shapes means no webhooks; the transactions stay the same."""
    async with simulated() as harness:
        started = await harness.sync(tell_start=False)
        path = f"/syncs/{started['sync_id']}"
        ended = await harness.control(
            "POST", f"{path}/advance", {"outcome": "server_error", "shapes": []}
        )
        assert await harness.control("GET", path) == ended
        assert not ended["running"]
        assert ended["failed_ids"] == [row["transactionId"] for row in started["items"]]
        assert await harness.settle() == []


async def test_an_initiated_sync_can_end_on_its_own() -> None:
    """After the simulated seconds of the setting, with webhooks."""
    async with simulated(speed=1000.0, finish_initiated_after=10.0) as harness:
        path = f"/companies/{await harness.company()}/sync/expenses/syncs"
        await harness.post(path, {"datasetIds": ["a"]})
        deliveries = await harness.settle()
        (sync,) = (await harness.control("GET", "/truth"))["syncs"]
        assert (sync["running"], len(deliveries)) == (False, 2)


async def syncs_of_the_morning(harness: Harness) -> list[dict[str, Any]]:
    """Wait until the whole morning has been played; one sync never ends."""
    for _ in range(200):
        await asyncio.sleep(0.05)
        syncs = (await harness.control("GET", "/truth"))["syncs"]
        if len(syncs) >= SYNCS and sum(sync["running"] for sync in syncs) == 1:
            return list(syncs)
    raise AssertionError("the morning never ended")


async def test_the_morning_contains_everything() -> None:
    """Forty syncs with every code, a running one, a successful retry, duplicates, other events."""
    port = free_port()
    async with (
        await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port),
        simulated(
            subscriptions=(Subscription(f"http://127.0.0.1:{port}", SECRET),),
            scenario="morning",
            speed=10_000.0,
            backdate_seconds=MORNING_SECONDS,
        ) as harness,
    ):
        harness.simulator.start()
        syncs = await syncs_of_the_morning(harness)
        deliveries = harness.receiver.deliveries
        codes = {sync["status"]["syncStatusCode"] for sync in syncs}
        assert {1000, 2000, 2040, 4000, 4040, 4220, 4260, 5000, 5080, 5120, 5130} <= codes
        assert max(Counter(delivery.message_id for delivery in deliveries).values()) == 3
        types = {delivery.json().get("eventType") for delivery in deliveries}
        assert {"expenses.policy.changed", "connection.disconnected", None} <= types
        assert {"svix-id", "webhook-id"} <= set().union(
            *(delivery.headers for delivery in deliveries)
        )
        failed = {name for sync in syncs for name in sync["failed_ids"]}
        successful = [s for s in syncs if s["status"]["syncStatusCode"] == 2000]
        assert failed & {row["transactionId"] for sync in successful for row in sync["items"]}


@pytest.mark.parametrize(
    "options",
    [["--to", URL], ["--secret", "whsec_!!"], ["--scenario", "evening"], ["--speed", "0"]],
)
def test_invalid_options_exit_with_two(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The message contains no secret."""
    with pytest.raises(SystemExit) as exited:
        main(options)
    assert exited.value.code == 2
    assert "whsec_!!" not in capsys.readouterr().err


@pytest.mark.parametrize("until_eof", [False, True])
def test_the_command_serves_drops_connections_and_exits_cleanly(until_eof: bool) -> None:
    """Real HTTP, a broken connection, code 0 on SIGTERM or at the end of its input."""
    command = [sys.executable, "-m", "simulator", "--port", str(free_port()), "--key", "k"]
    with subprocess.Popen(
        [*command, "--until-eof"] if until_eof else command,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout and process.stderr and process.stdin  # noqa: PT018
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        transport = httpx.HTTPTransport(retries=10)  # it may not listen yet
        with httpx.Client(base_url=found[0], transport=transport) as client:
            assert client.get("/_sim").is_success
            client.post("/_sim/faults", json={"kind": "drop"})
            with pytest.raises(httpx.TransportError):
                client.get("/companies", headers={"Authorization": "Basic aw=="})
            assert client.get("/companies", headers={"Authorization": "Basic aw=="}).is_success
        if until_eof:
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
