"""The chaos run: webhooks lost, doubled, delayed; Codat refusing; our processes killed.

    python -m bench.storm --syncs 200 --seeds 3 --database both

For each seed a fresh database, a simulated Codat and our real processes (on PostgreSQL two replicas
of each). Codat loses, doubles and delays deliveries and answers with errors, time-outs and broken
pages, while our processes get SIGKILL. Then the faults stop, one reconciliation pass runs, the owed
fetches drain, and everything we know is compared with the simulator's truth.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.service import CALLS_A_MINUTE, Codat, Service
from bench.truth import (
    Difference,
    acknowledged_lost,
    compare,
    compare_cures,
    end_leases,
    end_pauses,
    owed_fetches,
)
from tests import databases
from tests.processes import SECRET, Stage, run, stage

OUTCOMES = (
    *("all_written", "partly_failed", "write_error", "nothing_to_write", "config_error"),
    *("deauthorised", "billing_expiry", "server_error", "duplicate_protection"),
    *("validation_error", "in_progress", "disconnected"),
)
# Every message is late by up to five simulated minutes (six seconds), so all orders occur.
WEATHER = {"duplicate": 0.15, "lose": 0.15, "delay": 300}
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
DRAINED_WITHIN_S = 400  # calls are paced at 800 a minute, whatever is owed
CALLS_PER_SYNC = 12  # the budget: status and list, the retries of a stormy day, the final pass


@dataclass
class Figures:
    """What one run came to."""

    seed: int
    database: str
    pace: int = 1
    syncs: int = 0
    kills: int = 0
    calls: int = 0
    at_once: int = 0
    in_a_minute: int = 0
    attempts: int = 0
    acknowledged_lost: int = 0
    seconds: float = 0.0
    differences: list[Difference] = field(default_factory=list)

    @property
    def within_budget(self) -> bool:
        """Calls to Codat stayed within the stated budget and within Codat's own limits."""
        budget = CALLS_PER_SYNC * self.syncs + 100
        return self.calls <= budget and self.at_once <= 10 and self.in_a_minute <= 1000 * self.pace

    @property
    def fine(self) -> bool:
        """Nothing differs, nothing acknowledged was lost, and the budget held."""
        return not self.differences and not self.acknowledged_lost and self.within_budget


def _subscribe(codat: Codat, doors: list[str]) -> None:
    legacy = ["SyncStarted", "SyncFailed", "SyncCompleted"]
    new = ["expenses.sync.successful", "expenses.sync.unsuccessful"]
    for url, types in zip((doors[0], doors[-1]), (legacy, new), strict=True):
        body = {"url": url, "secret": SECRET, "event_types": types}
        codat.say("POST", "/subscriptions", body)


def _storm(codat: Codat, service: Service, chance: random.Random, syncs: int, kills: int) -> None:
    """Play the syncs while everything goes wrong."""
    codat.say("PUT", "/weather", WEATHER)
    for fault in FAULTS:
        codat.say("POST", "/faults", {**fault, "times": None})
    companies = [codat.say("POST", "/companies", {"name": f"Company {n}"})["id"] for n in range(8)]
    kill_at = {chance.randrange(syncs) for _ in range(kills)}
    running: list[str] = []
    failed: list[tuple[str, str]] = []
    for n in range(syncs):
        _one_sync(codat, chance, companies[n % len(companies)], running, failed)
        if n in kill_at:
            service.kill_one()
    for sync_id in running[: len(running) // 2]:
        outcome = chance.choice(OUTCOMES[:5])
        codat.say("POST", f"/syncs/{sync_id}/advance", {"outcome": outcome})


def _one_sync(
    codat: Codat,
    chance: random.Random,
    company: str,
    running: list[str],
    failed: list[tuple[str, str]],
) -> None:
    """Play one sync: one in eight only starts, and one in five sends earlier failures again."""
    outcome = chance.choice(OUTCOMES)
    shapes = chance.choice([["legacy"], ["new"], ["legacy", "new"], ["status"], []])
    body = {"company_id": company, "outcome": outcome, "size": chance.randint(1, 230)}
    if outcome == "in_progress":
        sync = codat.say("POST", "/syncs", {"company_id": company, "tell_start": True})
        running.append(sync["sync_id"])
        return
    if failed and chance.random() < 0.2:
        company, earlier = chance.choice(failed)
        body |= {"company_id": company, "retry_of": earlier}
    sync = codat.say("POST", "/syncs", body | {"shapes": shapes})
    if sync["failed_ids"]:
        failed.append((sync["company_id"], sync["sync_id"]))
    if chance.random() < 0.15:
        also = {"sync_ids": [sync["sync_id"]], "event": "completed", "shapes": ["legacy"]}
        codat.say("POST", "/events", also | {"copies": 2, "shuffle": True})


def _calm(codat: Codat, playing: Stage, pace: int) -> None:
    """Faults stop; what is under way arrives; one pass; what is owed is fetched."""
    codat.say("DELETE", "/faults")
    codat.say("PUT", "/weather", dict.fromkeys(WEATHER, 0))
    codat.say("POST", "/settle", {"seconds": 60})
    end_leases(playing.database_url, datetime.now(UTC))
    _drain(playing, DRAINED_WITHIN_S)
    _reconcile(codat, playing, 90, pace)
    _drain(playing, DRAINED_WITHIN_S)


def _reconcile(codat: Codat, playing: Stage, seconds: float, pace: int) -> None:
    """One pass; while the gate is closed, it is waited for."""
    end = time.monotonic() + seconds
    where = {
        "DATABASE_URL": playing.database_url,
        "CODAT_BASE_URL": codat.address,
        "CODAT_CALLS_PER_MINUTE": str(CALLS_A_MINUTE * pace),
    }
    while (done := run(playing.folder, "reconcile", **where)).returncode:
        if "rest" not in done.stderr or time.monotonic() > end:
            raise RuntimeError(f"reconcile failed: {done.stdout}{done.stderr}")
        time.sleep(2)


def _drain(playing: Stage, seconds: float) -> None:
    """Until nothing is owed. Pauses are cut short: only the clock is sped up."""
    end = time.monotonic() + seconds
    while owed_fetches(playing.database_url):
        if time.monotonic() > end:
            raise RuntimeError(f"fetches are still owed after {seconds} s")
        time.sleep(1.0)
        end_pauses(playing.database_url, datetime.now(UTC))


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'storm.db'}"
        return
    with databases.server() as address:
        yield address


def play(seed: int, kind: str, syncs: int, kills: int, pace: int = 1) -> Figures:
    """One seed on one database; at so many times the pace that Codat really allows."""
    chance = random.Random(seed)
    began = time.monotonic()
    figures = Figures(seed, kind, pace, syncs)
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    with _database(kind, folder) as url, stage(folder, url) as playing:
        run(folder, "migrate", DATABASE_URL=url)
        codat = Codat(playing.simulate("--seed", str(seed)))
        replicas = 1 if kind == "sqlite" else 2
        service = Service(playing, replicas, kind == "sqlite", chance, pace)
        service.start()
        _subscribe(codat, service.doors)
        _storm(codat, service, chance, syncs, kills)
        _calm(codat, playing, pace)
        _measure(figures, codat, url)
        figures.kills = service.kills
    shutil.rmtree(folder, ignore_errors=True)
    figures.seconds = time.monotonic() - began
    return figures


def _measure(figures: Figures, codat: Codat, url: str) -> None:
    log = codat.say("GET", "/deliveries")["attempts"]
    figures.attempts = len(log)
    counters = codat.say("GET", "/counters")
    figures.calls = counters["total"]
    figures.at_once = max(counters["peak_in_flight_by_company"].values(), default=0)
    figures.in_a_minute = counters["minute_peak"]
    figures.acknowledged_lost = acknowledged_lost(url, log)
    truth = codat.say("GET", "/truth")
    figures.differences = compare(url, truth) + compare_cures(url, truth)


def main() -> int:
    """Run, print the figures, and say how a failing seed is repeated."""
    parser = argparse.ArgumentParser(prog="python -m bench.storm", description=__doc__)
    parser.add_argument("--syncs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument(
        "--pace", type=int, default=1, help="times the calls a minute that Codat really allows"
    )
    told = parser.parse_args()
    kinds = ("sqlite", "postgresql") if told.database == "both" else (told.database,)
    print("seed database   syncs kills attempts calls at_once lost differences seconds")
    ended_well = True
    for seed in range(told.first_seed, told.first_seed + told.seeds):
        for kind in kinds:
            figures = play(seed, kind, told.syncs, told.kills, told.pace)
            ended_well &= figures.fine
            _tell(figures, told.kills)
    return 0 if ended_well else 1


def _tell(figures: Figures, kills: int) -> None:
    f = figures
    print(
        f"{f.seed:4} {f.database:10} {f.syncs:5} {f.kills:5} {f.attempts:8} {f.calls:5}"
        f" {f.at_once:7} {f.acknowledged_lost:4} {len(f.differences):11} {f.seconds:7.0f}",
        flush=True,
    )
    if f.fine:
        return
    for each in f.differences[:10]:
        print(f"     {each}")
    print(f"     repeat: python -m bench.storm --first-seed {f.seed} --syncs {f.syncs}"
          f" --kills {kills} --database {f.database}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
