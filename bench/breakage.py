"""The database breaks under load: only 204 and 503 come, in time, and afterwards all is there.

    python -m bench.breakage --seconds 20 --rounds 3

Ends with code 1 when one of these does not hold. What dies instead is in `bench.kills`.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import httpx

from bench import harm
from bench.ground import kept_ids, playing
from bench.hostile import sync_body
from bench.sender import ANSWER_WITHIN_S, Load
from tests.processes import TLS, Process, Stage

BACK_WITHIN_S = 40.0
ENDS_WITHIN_S = 10.0
READY_WITHIN_S = 8.0

Harm = Callable[[Process, str], AbstractContextManager[None]]


def _on_url(of: Callable[[str], AbstractContextManager[None]]) -> Harm:
    return lambda _, url: of(url)


HARMS: dict[str, dict[str, Harm]] = {
    "postgresql": {
        "gone": _on_url(harm.gone),
        "restarted": _on_url(harm.restarted),
        "full": _on_url(harm.full),
        "locked": _on_url(harm.locked),
        "slow": _on_url(harm.slow),
        "frozen": _on_url(harm.frozen),
    },
    "sqlite": {
        "locked": _on_url(harm.sqlite_locked),
        "slow": _on_url(harm.sqlite_slow),
        "full": lambda process, _: harm.sqlite_full(process),
    },
}
UNREADY = {"gone", "frozen"}
"""In these the database cannot be asked anything, and `/readyz` must say so."""
REASONS = {"the database cannot be reached", "the database does not answer"}


@dataclass
class Figures:
    """What one breakage came to."""

    what: str
    answers: Counter[int] = field(default_factory=Counter)
    odd: dict[int, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    reasons: set[str] = field(default_factory=set)
    unready_slowest_s: float = 0.0
    back: bool = False
    settled: bool = False
    ready_again: bool = False
    missing: set[str] = field(default_factory=set)
    exit_code: int | None = 0
    exit_s: float = 0.0

    def faults(self) -> list[str]:
        """What did not hold, in words; none is fine."""
        told = [
            (self.odd, f"answers that are neither 204 nor 503: {self.odd}"),
            (self.slowest_s > ANSWER_WITHIN_S, f"an answer took {self.slowest_s:.1f} s"),
            (not self.back, "deliveries were not acknowledged again soon"),
            (not self.settled, "not everything could be delivered in the end"),
            (not self.ready_again, "/readyz did not recover"),
            (self.unready_slowest_s > READY_WITHIN_S, "/readyz did not answer in time"),
            (self.missing, f"{len(self.missing)} acknowledged deliveries are not kept"),
            (self.exit_code != 0, f"SIGTERM ended it with {self.exit_code}"),
            (self.exit_s > ENDS_WITHIN_S, f"SIGTERM took {self.exit_s:.1f} s"),
        ]
        return [words for wrong, words in told if wrong]


def _readiness(process: Process) -> tuple[int, str, float]:
    began = time.monotonic()
    try:
        answer = httpx.get(f"{process.address}/readyz", timeout=30, verify=TLS)
    except httpx.HTTPError as error:
        return 0, type(error).__name__, time.monotonic() - began
    return answer.status_code, answer.json()["checks"]["database"], time.monotonic() - began


def _watch(process: Process, figures: Figures, seconds: float) -> None:
    """Ask `/readyz` while the harm lasts; note each reason why it is not ready."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status, reason, took = _readiness(process)
        if status != 200:
            figures.reasons.add(reason)
            figures.unready_slowest_s = max(figures.unready_slowest_s, took)
        time.sleep(0.3)


def _ready_within(process: Process, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if _readiness(process)[0] == 200:
            return True
        time.sleep(0.3)
    return False


def _be_durable(stage: Stage) -> None:
    if not stage.database_url.startswith("sqlite"):
        harm.durable(stage.database_url)


def _door(process: Process) -> str:
    return f"{process.address}/webhooks/codat"


def endure(stage: Stage, what: str, harming: Harm, seconds: float) -> Figures:
    """One harm of so many seconds while deliveries come in, and what came of it."""
    figures = Figures(what)
    _be_durable(stage)
    process = stage.serve(LOG_LEVEL="error")
    _ready_within(process, 30)
    with Load(_door(process), sync_body) as load:
        load.grow(30)
        with harming(process, stage.database_url):
            _watch(process, figures, seconds)
        figures.back = load.grow(30, BACK_WITHIN_S)
        figures.settled = load.settle()
    figures.ready_again = _ready_within(process, BACK_WITHIN_S)
    figures.exit_code, figures.exit_s = _ended(process)
    _count(stage, figures, load)
    return figures


def terminate(stage: Stage, what: str, harming: Harm | None = None) -> Figures:
    """SIGTERM in the midst of deliveries, and of a harm, if one is given."""
    figures = Figures(f"SIGTERM, {what}", back=True, settled=True, ready_again=True)
    _be_durable(stage)
    process = stage.serve(LOG_LEVEL="error")
    with Load(_door(process), sync_body) as load:
        load.grow(50)
        broken = harming(process, stage.database_url) if harming else nullcontext()
        with broken:
            time.sleep(2 if harming else 0)
            figures.exit_code, figures.exit_s = _ended(process)
    _count(stage, figures, load)
    return figures


def _ended(process: Process) -> tuple[int | None, float]:
    began = time.monotonic()
    try:
        code: int | None = process.stop(signal.SIGTERM, 3 * ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        code = None
        process.stop(signal.SIGKILL)
    return code, time.monotonic() - began


def _count(stage: Stage, figures: Figures, load: Load) -> None:
    figures.answers, figures.odd = load.answers, load.odd_answers
    figures.slowest_s = load.slowest_s
    figures.missing = load.acknowledged - set(kept_ids(stage.database_url))


def tell(figures: Figures) -> bool:
    """One line, and each fault in another; True when there is none."""
    faults = figures.faults()
    answers = " ".join(f"{status}:{n}" for status, n in sorted(figures.answers.items()))
    unready = ", ".join(sorted(figures.reasons)) or "never"
    print(f"{figures.what}: answers {answers}; slowest {figures.slowest_s:.1f} s;"
          f" not ready: {unready}; ended in {figures.exit_s:.1f} s", flush=True)  # fmt: skip
    for fault in faults:
        print(f"  FAULT {fault}", flush=True)
    return not faults


def main() -> int:
    """Break everything in turn, on both databases."""
    parser = argparse.ArgumentParser(prog="python -m bench.breakage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="how long each harm lasts")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    told = parser.parse_args()
    kinds = ("sqlite", "postgresql") if told.database == "both" else (told.database,)
    ended_well = True
    for _ in range(told.rounds):
        for kind in kinds:
            with playing(kind) as stage:
                for name, harming in HARMS[kind].items():
                    ended_well &= tell(endure(stage, f"{kind} {name}", harming, told.seconds))
                for name, also in ({"in peace": None} | HARMS[kind]).items():
                    ended_well &= tell(terminate(stage, f"{kind} {name}", also))
    return 0 if ended_well else 1


if __name__ == "__main__":
    sys.exit(main())
