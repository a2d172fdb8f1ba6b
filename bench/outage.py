"""The database fails under load: only 204 and 503 come, in time, and nothing acknowledged is lost.

    python -m bench.outage --seconds 20

Plays every fault while events are delivered, and then SIGTERM during it. The exit code is 1 when
one of these does not hold. SIGKILL is in `bench.kills`.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field

import httpx

from bench.database_faults import FAULTS, Fault
from bench.harness import (
    DURABLE,
    add_database_option,
    chosen_kinds,
    migrated_stage,
    stored_message_ids,
)
from bench.retrying_sender import ANSWER_WITHIN_S, RetryingSender
from tests.processes import TLS, Process, Stage, failed_event

RECOVERS_WITHIN_S = 40.0
STOPS_WITHIN_S = 10.0
UNREADY_WITHIN_S = 8.0


@dataclass
class Result:
    """What one fault led to: the statuses of all answers, and what did not hold."""

    name: str
    answers: Counter[int] = field(default_factory=Counter)
    unready_reasons: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def expect(self, holds: bool, failure: str) -> None:
        """Note a failure unless it holds."""
        if not holds:
            self.failures.append(failure)


def endure(stage: Stage, name: str, fault: Fault, seconds: float) -> Result:
    """Let the database fail for some seconds while events are delivered."""
    result = Result(name)
    process = _serve(stage)
    with RetryingSender(process.webhooks, failed_event) as sender:
        sender.wait_for_more(30)
        with fault(process, stage.database_url):
            _watch_readiness(process, result, seconds)
        recovered = sender.wait_for_more(30, RECOVERS_WITHIN_S)
        result.expect(recovered, "deliveries were not acknowledged again in time")
        result.expect(sender.drain(), "not everything could be delivered in the end")
    result.expect(_becomes_ready(process), "/readyz did not recover")
    _terminate(process, result)
    _check(stage, sender, result)
    return result


def terminate(stage: Stage, name: str, fault: Fault | None = None) -> Result:
    """Send SIGTERM under load, and during a fault when one is given."""
    result = Result(f"SIGTERM, {name}")
    process = _serve(stage)
    with RetryingSender(process.webhooks, failed_event) as sender:
        sender.wait_for_more(50)
        with fault(process, stage.database_url) if fault else nullcontext():
            time.sleep(2 if fault else 0)
            _terminate(process, result)
    _check(stage, sender, result)
    return result


def _serve(stage: Stage) -> Process:
    process = stage.serve(LOG_LEVEL="error")
    _becomes_ready(process)
    return process


def _watch_readiness(process: Process, result: Result, seconds: float) -> None:
    """Ask `/readyz` while the fault lasts, and collect why it is not ready."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        status, reason = _readiness(process)
        if status != 200:
            result.unready_reasons.add(reason)
            took = time.monotonic() - began
            result.expect(took < UNREADY_WITHIN_S, f"/readyz took {took:.1f} s")
        time.sleep(0.3)


def _readiness(process: Process) -> tuple[int, str]:
    try:
        answer = httpx.get(f"{process.address}/readyz", timeout=30, verify=TLS)
    except httpx.HTTPError as error:
        return 0, type(error).__name__
    return answer.status_code, answer.json()["checks"]["database"]


def _becomes_ready(process: Process) -> bool:
    end = time.monotonic() + RECOVERS_WITHIN_S
    while time.monotonic() < end:
        if _readiness(process)[0] == 200:
            return True
        time.sleep(0.3)
    return False


def _terminate(process: Process, result: Result) -> None:
    try:
        code = process.stop(signal.SIGTERM, STOPS_WITHIN_S)
        result.expect(code == 0, f"after SIGTERM the exit code was {code}")
    except subprocess.TimeoutExpired:
        process.stop(signal.SIGKILL)
        result.expect(False, f"SIGTERM took more than {STOPS_WITHIN_S} s")


def _check(stage: Stage, sender: RetryingSender, result: Result) -> None:
    result.answers = sender.answers
    unexpected, slowest = sender.unexpected_answers, sender.slowest_s
    lost = sender.acknowledged.difference(stored_message_ids(stage.database_url))
    result.expect(not unexpected, f"answers other than 204 and 503: {unexpected}")
    result.expect(slowest <= ANSWER_WITHIN_S, f"an answer took {slowest:.1f} s")
    result.expect(not lost, f"{len(lost)} acknowledged events are not stored")


def main() -> int:
    """Play every fault in turn; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="how long each fault lasts")
    add_database_option(parser)
    options = parser.parse_args()
    results = []
    for kind in chosen_kinds(options.database):
        with migrated_stage(kind, DURABLE) as stage:
            for name, fault in (("no fault", None), *FAULTS[kind].items()):
                if fault:
                    results.append(endure(stage, f"{kind} {name}", fault, options.seconds))
                results.append(terminate(stage, f"{kind} {name}", fault))
                for result in results[-2 if fault else -1 :]:
                    print(f"{result.name}: answers {dict(result.answers)}; not ready:"
                          f" {result.unready_reasons or 'never'};"
                          f" {result.failures or 'passed'}", flush=True)  # fmt: skip
    return 1 if any(result.failures for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
