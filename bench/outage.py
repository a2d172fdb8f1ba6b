"""Database faults under load: only 204 and 503, in time, and no acknowledged event is lost.

    python -m bench.outage --seconds 20

Causes every fault while events are delivered, and then sends SIGTERM during the fault. The exit
code is 1 when one of these does not hold. `bench.chaos` sends SIGKILL.
"""

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
    make_parser,
    migrated_stage,
    stored_message_ids,
)
from bench.retrying_sender import ANSWER_WITHIN_S, RetryingSender
from tests.processes import TLS, Process, Stage, answers, holds_within

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
    with RetryingSender([process.webhooks]) as sender:
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
    """Send SIGTERM under load, and during a fault when there is one."""
    result = Result(f"SIGTERM, {name}")
    process = _serve(stage)
    with RetryingSender([process.webhooks]) as sender:
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
    return holds_within(RECOVERS_WITHIN_S, lambda: answers(process, "/readyz"))


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
    parser = make_parser("outage", __doc__)
    parser.add_argument("--seconds", type=float, default=20, help="how long each fault lasts")
    add_database_option(parser)
    options = parser.parse_args()
    passed = True
    for kind in options.database:
        with migrated_stage(kind, DURABLE) as stage:
            for name, fault in (("no fault", None), *FAULTS[kind].items()):
                title = f"{kind} {name}"
                results = [endure(stage, title, fault, options.seconds)] if fault else []
                for result in (*results, terminate(stage, title, fault)):
                    passed &= not result.failures
                    print(f"{result.name}: answers {dict(result.answers)}; not ready:"
                          f" {result.unready_reasons or 'never'};"
                          f" {result.failures or 'passed'}", flush=True)  # fmt: skip
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
