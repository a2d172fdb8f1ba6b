"""The chaos run: lost, duplicated and reordered webhooks, Codat errors, killed processes.

    python -m bench.chaos --syncs 200 --seeds 3
    python -m bench.chaos --syncs 100 --kills 100 --calm --database sqlite

For each seed: a fresh database, a simulated Codat and our real processes (on PostgreSQL two of
`serve` and two of `worker`). The simulator loses, duplicates and delays deliveries and answers with
errors, time-outs and broken pages (without `--calm`), while our processes get SIGKILL: three in
four at a named point of the code (`tests.planted`), the others at any moment, in a burst of
deliveries. Then the faults stop, one reconciliation runs, and the queue drains. No acknowledged
event may be lost, and the database must equal the simulator's truth.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple

from bench.harness import add_database_option, make_parser, migrated_stage
from bench.truth import (
    Difference,
    acknowledged_lost,
    compare,
    compare_resolutions,
    skip_backoff,
    unfinished,
)
from tests.planted import DISARMED, POINTS
from tests.processes import SECRET, Process, SimulatedCodat, Stage, answers, free_port, wait_for

OUTCOMES = (
    *("all_written", "partly_failed", "write_error", "nothing_to_write", "config_error"),
    *("deauthorised", "billing_expiry", "server_error", "duplicate_protection"),
    *("validation_error", "in_progress", "disconnected"),
)
# Each message is late by up to five simulated minutes (six seconds), so every order occurs.
DELIVERY_FAULTS = {"duplicate": 0.15, "lose": 0.15, "delay": 300}
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 503, "probability": 0.06},
    {"kind": "status", "status": 500, "probability": 0.04},
    {"kind": "status", "status": 429, "retry_after": 1, "probability": 0.01},
    {"kind": "drop", "probability": 0.03},
    {"kind": "truncated_body", "probability": 0.04},
    {"kind": "truncated_list", "probability": 0.05},
    {"kind": "moving_total", "probability": 0.05},
    {"kind": "shifting_page", "probability": 0.05},
    {"kind": "pending_left", "probability": 0.05},
    {"kind": "timeout", "probability": 0.01, "hold_seconds": 3},
)
DRAINED_WITHIN_S = 400
PLANNED_WITHIN_S = 5.0
RESTARTS_WITHIN_S = 1.0
SETTLE_S = 10  # what Codat delivers later, after hours of its retry schedule, is reconciled before
RECONCILED_WITHIN_S = 90
CALLS = {"CODAT_CALLS_PER_MINUTE": "800"}  # what the service allows itself of Codat's thousand
CALLS_PER_SYNC = 12  # status, list, retries, the final reconciliation
CALLS_PER_KILL = 20  # status and list of the ten fetches that a worker may have in hand


class Replica(NamedTuple):
    """One of our processes; `plan` is where it will kill itself (`tests.planted`), if anywhere."""

    role: str
    port: int
    plan: str
    process: Process


class Replicas:
    """Our processes, which are killed and started again on the same ports."""

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        self._stage, self._rng = stage, rng
        is_alone = stage.database_url.startswith("sqlite")
        self._settings = {
            **CALLS,
            "WORKER_IN_WEB": str(is_alone).lower(),
            "LOG_LEVEL": "warning",
            "FETCH_MAX_ATTEMPTS": "1000",  # a death costs one
        }
        points = rng.sample(POINTS, len(POINTS))
        of_endpoint = [point for point in points if point.startswith(("store", "answer"))]
        of_worker = [point for point in points if point not in of_endpoint]
        self._points = {
            "serve": cycle(points if is_alone else of_endpoint),
            "worker": cycle(of_worker),
        }
        self.deaths: Counter[str] = Counter()
        roles = ("serve",) if is_alone else ("serve", "worker") * 2
        self.running = [self._start(role, free_port(), "") for role in roles]

    def _start(self, role: str, port: int, plan: str) -> Replica:
        python = ("-m", "tests.planted", plan) if plan else ("-m", "app")
        process = self._stage.start(role, python=python, PORT=str(port), **self._settings)
        return Replica(role, port, plan, process)

    def _replace(self, replica: Replica, plan: str = "") -> None:
        """Send SIGKILL unless it has died as planned, and start a successor with this plan."""
        died_as_planned = replica.process.popen.poll() is not None
        point = replica.plan.partition(":")[0]
        self.deaths[point if died_as_planned else f"{replica.role} at a random moment"] += 1
        code = replica.process.stop(signal.SIGKILL)
        if code != -signal.SIGKILL:
            log = replica.process.logged()
            raise RuntimeError(f"{replica.role} {replica.plan} ended with {code}: {log}")
        place = self.running.index(replica)
        self.running[place] = self._start(replica.role, replica.port, plan)

    def kill_one(self) -> None:
        """Kill one whose successor may kill itself at a later visit of some point."""
        replica = self._rng.choice(self.running)
        visit = self._rng.choice((1, 1, 2, 3, 5))
        plan = "" if self._rng.random() < 0.25 else f"{next(self._points[replica.role])}:{visit}"
        with suppress(subprocess.TimeoutExpired):
            replica.process.popen.wait(PLANNED_WITHIN_S if replica.plan else 0)
        self._replace(replica, plan)
        time.sleep(RESTARTS_WITHIN_S)

    def survive(self) -> None:
        """Disarm the kill points, and replace processes that were killed."""
        (self._stage.folder / DISARMED).touch()
        time.sleep(0.2)
        for replica in [found for found in self.running if found.process.popen.poll() is not None]:
            self._replace(replica)

    def webhook_urls(self) -> list[str]:
        """Where events can be delivered, once all answer."""
        servers = [replica.process for replica in self.running if replica.role == "serve"]
        wait_for(lambda: all(answers(process, "/livez") for process in servers))
        return [process.webhooks for process in servers]


@dataclass
class Result:
    """The figures of one run."""

    syncs: int
    attempts: int = 0
    calls: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    concurrent_calls: int = 0
    calls_in_a_minute: int = 0
    acknowledged_lost: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_within_budget(self) -> bool:
        """Calls to Codat stayed within the stated budget and Codat's own limits."""
        within_limits = self.concurrent_calls <= 10 and self.calls_in_a_minute <= 1000
        repeated = CALLS_PER_KILL * self.deaths.total()
        return within_limits and self.calls <= CALLS_PER_SYNC * self.syncs + repeated + 100

    @property
    def passed(self) -> bool:
        """Nothing differs, nothing acknowledged was lost, and the budget held."""
        return not self.differences and not self.acknowledged_lost and self.is_within_budget


def play(stage: Stage, seed: int, syncs: int, kills: int, *, calm: bool = False) -> Result:
    """Play one seed on a migrated, empty database."""
    rng = random.Random(seed)
    codat = SimulatedCodat(stage.simulate("--seed", str(seed)))
    replicas = Replicas(stage, rng)
    _subscribe(codat, replicas.webhook_urls())
    codat.call("PUT", "/weather", DELIVERY_FAULTS)
    for fault in () if calm else FAULTS:
        codat.call("POST", "/faults", {**fault, "times": None})
    _play_syncs(codat, replicas, rng, syncs, kills)
    replicas.survive()
    codat.call("DELETE", "/faults")
    codat.call("PUT", "/weather", dict.fromkeys(DELIVERY_FAULTS, 0))
    codat.call("POST", "/settle", {"seconds": SETTLE_S})
    drain(stage.database_url)
    _reconcile(stage)
    drain(stage.database_url)
    return _collect(stage.database_url, codat, Result(syncs, deaths=replicas.deaths))


def _subscribe(codat: SimulatedCodat, urls: list[str]) -> None:
    legacy = ["SyncStarted", "SyncFailed", "SyncCompleted"]
    new = ["expenses.sync.successful", "expenses.sync.unsuccessful"]
    for url, event_types in zip((urls[0], urls[-1]), (legacy, new), strict=True):
        body = {"url": url, "secret": SECRET, "event_types": event_types}
        codat.call("POST", "/subscriptions", body)


def _play_syncs(
    codat: SimulatedCodat, replicas: Replicas, rng: random.Random, syncs: int, kills: int
) -> None:
    companies = [codat.create_company() for _ in range(8)]
    kill_at = Counter(rng.choices(range(syncs), k=kills))
    running: list[str] = []
    failed: list[tuple[str, str]] = []
    for n in range(syncs):
        _play_sync(codat, rng, companies[n % len(companies)], running, failed)
        for _ in range(kill_at[n]):
            burst = {"sync_ids": [sync_id for _, sync_id in failed[-20:]], "copies": 3}
            codat.call("POST", "/events", burst)
            replicas.kill_one()
    for sync_id in running[: len(running) // 2]:
        codat.call("POST", f"/syncs/{sync_id}/advance", {"outcome": rng.choice(OUTCOMES[:5])})


def _play_sync(
    codat: SimulatedCodat,
    rng: random.Random,
    company: str,
    running: list[str],
    failed: list[tuple[str, str]],
) -> None:
    """Play one sync: one in twelve only starts, and one in five retries earlier failures."""
    outcome = rng.choice(OUTCOMES)
    shapes = rng.choice([["legacy"], ["new"], ["legacy", "new"], ["status"], []])
    if outcome == "in_progress":
        running.append(codat.call("POST", "/syncs", {"company_id": company})["sync_id"])
        return
    body: dict[str, Any] = {"outcome": outcome, "size": rng.randint(1, 230), "shapes": shapes}
    if failed and rng.random() < 0.2:
        company, body["retry_of"] = rng.choice(failed)
    sync = codat.call("POST", "/syncs", body | {"company_id": company})
    if sync["failed_ids"]:
        failed.append((sync["company_id"], sync["sync_id"]))
    if rng.random() < 0.15:
        events = {"sync_ids": [sync["sync_id"]], "event": "completed", "copies": 2, "shuffle": True}
        codat.call("POST", "/events", events)


def _reconcile(stage: Stage) -> None:
    """Reconcile once; that fails while a rate-limit pause lasts, and is then repeated."""
    end = time.monotonic() + RECONCILED_WITHIN_S
    while (done := stage.run("reconcile", **CALLS)).returncode:
        if time.monotonic() > end:
            raise RuntimeError(f"reconcile failed: {done.stdout}{done.stderr}")
        time.sleep(2)


def drain(url: str) -> None:
    """Wait until no event is pending and no job is left, without waiting for back-off."""
    end = time.monotonic() + DRAINED_WITHIN_S
    while left := unfinished(url):
        if time.monotonic() > end:
            raise RuntimeError(f"{left} events and jobs are unfinished")
        time.sleep(1.0)
        skip_backoff(url)


def _collect(url: str, codat: SimulatedCodat, result: Result) -> Result:
    attempts = codat.call("GET", "/deliveries")["attempts"]
    counters = codat.call("GET", "/counters")
    truth = codat.call("GET", "/truth")
    result.attempts = len(attempts)
    result.calls = counters["total"]
    result.concurrent_calls = max(counters["peak_in_flight_by_company"].values(), default=0)
    result.calls_in_a_minute = counters["minute_peak"]
    result.acknowledged_lost = acknowledged_lost(url, attempts)
    result.differences = compare(url, truth) + compare_resolutions(url, truth)
    return result


def main() -> int:
    """Play all seeds and print the figures; 0 only if all passed."""
    parser = make_parser("chaos", __doc__)
    parser.add_argument("--syncs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--calm", action="store_true", help="Codat answers every call")
    add_database_option(parser)
    options = parser.parse_args()
    print("seed database   syncs attempts calls concurrent lost differences seconds")
    passed = True
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for kind in options.database:
            began = time.monotonic()
            with migrated_stage(kind) as stage:
                r = play(stage, seed, options.syncs, options.kills, calm=options.calm)
            passed &= r.passed
            print(f"{seed:4} {kind:10} {r.syncs:5} {r.attempts:8} {r.calls:5}"
                  f" {r.concurrent_calls:10} {r.acknowledged_lost:4} {len(r.differences):11}"
                  f" {time.monotonic() - began:7.0f}{'' if r.passed else '  FAILED'}"
                  f"\n     {r.deaths.total()} SIGKILLs: {dict(r.deaths)}", flush=True)  # fmt: skip
            for difference in r.differences[:10]:
                print("     ", *difference)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
