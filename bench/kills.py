"""kill -9 under load, at random and at named points: is anything lost that was acknowledged?

    python -m bench.kills --kills 200 --seed 1
    python -m bench.kills --kills 40 --database postgresql --processes 2

One service after the other serves, works and dies (`bench.dying`); the sender and Codat go on. At
the end one more service finishes what is owed, and the database is held against what was
acknowledged and against Codat's truth. Ends with code 1 when they differ.
"""

import argparse
import itertools
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bench import dying
from bench.ground import kept_ids, playing
from bench.sender import Load
from bench.service import Codat
from bench.truth import Difference, compare, end_leases, end_pauses, owed_fetches
from tests.planted import POINTS
from tests.processes import Process, Stage, answers, free_port, wait_for

PARTS = (("sqlite", 1), ("postgresql", 1), ("postgresql", 2))  # the database, how many processes
SYNCS = 24
DRAINED_WITHIN_S = 120.0


@dataclass
class Figures:
    """What one run came to."""

    seed: int
    database: str
    processes: int = 1
    deaths: Counter[str] = field(default_factory=Counter)
    not_reached: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    odd: dict[int, int] = field(default_factory=dict)
    acknowledged: int = 0
    lost: set[str] = field(default_factory=set)
    differences: list[Difference] = field(default_factory=list)
    settled: bool = False
    seconds: float = 0.0

    @property
    def fine(self) -> bool:
        """Nothing acknowledged was lost, only 204 and 503 came, and we are equal to Codat."""
        return self.settled and not (self.lost or self.odd or self.differences)


def deaths(seed: int, kills: int) -> list[str]:
    """How each service is to die: at each named point in turn, every fourth time at random."""
    chance = random.Random(seed)
    points = itertools.cycle(POINTS)
    return [
        "" if n % 4 == 3 else f"{next(points)}:{chance.choice((1, 1, 2, 3, 5))}"
        for n in range(kills)
    ]


def _start(stage: Stage, port: int, point: str, processes: int) -> Process:
    process = stage.start(
        "serve",
        python=("-m", "tests.planted", point) if point else ("-m", "app"),
        PORT=str(port),
        WEB_CONCURRENCY=str(processes),
        LOG_LEVEL="warning",
        FETCH_MAX_ATTEMPTS="10000",  # each death costs one, and there are many
    )
    process.address = f"http://127.0.0.1:{port}"
    return process


def _tell_codat(codat: Codat) -> list[tuple[str, str]]:
    """Failed syncs that Codat knows and nobody was told of; company and sync ids."""
    companies = [codat.say("POST", "/companies", {"name": f"Company {n}"})["id"] for n in range(3)]
    made = []
    for n in range(SYNCS):
        body = {"company_id": companies[n % 3], "outcome": "partly_failed", "size": 5, "shapes": []}
        made.append((companies[n % 3], codat.say("POST", "/syncs", body)["sync_id"]))
    return made


def _sync_of(message_id: str) -> int:
    return int(message_id[-6:], 16) % SYNCS


def kill_often(stage: Stage, figures: Figures, ways: list[str]) -> None:
    """Let one service after the other die under load, then tell of what is left, and compare."""
    began = time.monotonic()
    chance = random.Random(figures.seed)
    codat = Codat(stage.simulate("--seed", str(figures.seed)))
    syncs = _tell_codat(codat)
    port = free_port()

    def body(message_id: str) -> bytes:
        company, sync = syncs[_sync_of(message_id)]
        told = {"RuleType": "Sync Failed", "CompanyId": company, "Data": {"syncId": sync}}
        return json.dumps(told).encode()

    with Load(f"http://127.0.0.1:{port}/webhooks/codat", body) as load:
        for point in ways:
            process = _start(stage, port, point, figures.processes)
            if figures.processes == 1:
                death = dying.die(process, point, chance)
            else:
                death = dying.one_dies(process, figures.processes, point, chance, load)
            figures.deaths[death.where] += 1
            if not death.reached:
                figures.not_reached[death.where] += 1
            end_leases(stage.database_url, datetime.now(UTC))
            end_pauses(stage.database_url, datetime.now(UTC))
        last = _start(stage, port, "", figures.processes)
        wait_for(lambda: answers(last, "/livez"), 60)
        wait_for(lambda: len({_sync_of(each) for each in [*load.acknowledged]}) == SYNCS)
        figures.settled = load.settle() and _drained(stage) and last.stop() == 0
    figures.answers, figures.odd = load.answers, load.odd_answers
    figures.acknowledged = len(load.acknowledged)
    figures.lost = load.acknowledged - set(kept_ids(stage.database_url))
    figures.differences = compare(stage.database_url, codat.say("GET", "/truth"))
    figures.seconds = time.monotonic() - began


def _drained(stage: Stage) -> bool:
    end = time.monotonic() + DRAINED_WITHIN_S
    while owed_fetches(stage.database_url):
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
        end_pauses(stage.database_url, datetime.now(UTC))
    return True


def play(seed: int, kind: str, processes: int, kills: int) -> Figures:
    """One seed on one kind of database, in a place of its own."""
    figures = Figures(seed, kind, processes)
    with playing(kind) as stage:
        kill_often(stage, figures, deaths(seed, kills))
    return figures


def tell(figures: Figures) -> None:
    """The figures, and how a failing run is repeated."""
    f = figures
    part = _part(f.seed, f.database, f.processes)
    print(f"{part}: {f.deaths.total()} kills in {f.seconds:.0f} s;"
          f" {f.acknowledged} acknowledged, {len(f.lost)} lost; answers {dict(f.answers)};"
          f" {len(f.differences)} differences to Codat", flush=True)  # fmt: skip
    print(
        f"  {dict(f.deaths)}"
        + (f"; killed elsewhere: {dict(f.not_reached)}" if f.not_reached else "")
    )
    if f.fine:
        return
    print(f"  settled {f.settled}; odd answers {f.odd}; lost {sorted(f.lost)[:5]}")
    for each in f.differences[:10]:
        print(f"  {each}")
    print(f"  repeat: python -m bench.kills --seed {f.seed} --kills {f.deaths.total()}"
          f" --database {f.database} --processes {f.processes}")  # fmt: skip


def _part(seed: int, kind: str, processes: int) -> str:
    return f"seed {seed} on {kind}" + (f" with {processes} processes" if processes > 1 else "")


def _parts(database: str, processes: int | None) -> list[tuple[str, int]]:
    """What is asked for; on SQLite there is always one process."""
    asked = [(kind, processes or number) for kind, number in PARTS if database in (kind, "both")]
    return [
        (kind, number) for kind, number in dict.fromkeys(asked) if kind != "sqlite" or number == 1
    ]


def main() -> int:
    """Run, print the figures, and fail when something was lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--processes", type=int, help="1, and 2 on PostgreSQL, by default")
    told = parser.parse_args()
    parts = _parts(told.database, told.processes)
    if not parts:
        parser.error("on SQLite there is always one process")
    ended_well = True
    for kind, processes in parts:
        kills = told.kills // len(parts)
        print(f"{_part(told.seed, kind, processes)}: {kills} kills", flush=True)
        figures = play(told.seed, kind, processes, kills)
        tell(figures)
        ended_well &= figures.fine
    return 0 if ended_well else 1


if __name__ == "__main__":
    sys.exit(main())
