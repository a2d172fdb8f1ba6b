"""How fast is the door? Against a null application, the database alone, and an afternoon's work.

    python -m bench.door --rounds 7 --plot docs/door.svg

All in one go on one machine: in every round each contender has its turn at 1, 16 and 64
connections, so that whatever else the machine does hits all alike. Medians of the rounds, and their
ratios, are what counts; a number alone says more about the machine. Afterwards every acknowledged
event must be in the database.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from bench import pgbench
from bench.contenders import KINDS, Contender, contenders, postgresql
from bench.plot import bars
from tests.processes import ROOT, SECRET

PGBENCH = "pgbench, 1 row"
CONNECTIONS = (1, 16, 64)
SUPPLY = {1: 4_000, 16: 15_000, 64: 15_000}  # requests per second that we are ready for


@dataclass(frozen=True)
class Turn:
    """One contender's turn."""

    per_second: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    refused: int = 0


Turns = dict[tuple[str, int], list[Turn]]


def load(contender: Contender, connections: int, seconds: float) -> Turn:
    """Send for some seconds over this many connections."""
    options = {
        "port": contender.port,
        "connections": connections,
        "seconds": seconds,
        "supply": round(SUPPLY[connections] * seconds),
        "secret": SECRET,
        "acknowledged": contender.acknowledged,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    if contender.database_url is None:
        words.append("--again")  # it keeps nothing, so it cannot tell
    command = [sys.executable, "-m", "bench.load", *words]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(said.stdout)
    refused = sum(told["refused"].values())
    return Turn(told["per_second"], told["p50_ms"], told["p99_ms"], refused)


def measure(
    field: list[Contender], server: str, rounds: int, seconds: float, at: tuple[int, ...]
) -> Turns:
    """All rounds; one more before them, which warms up and is not counted."""
    turns: Turns = defaultdict(list)
    for number in range(rounds + 1):
        print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
        pgbench.checkpoint(server)
        for connections in at:
            for contender in field:
                turns[contender.name, connections].append(load(contender, connections, seconds))
            if pgbench.is_here():
                alone = pgbench.per_second(server, connections, max(1, seconds))
                turns[PGBENCH, connections].append(Turn(alone))
    print(file=sys.stderr)
    return {key: found[1:] for key, found in turns.items()}


def medians(turns: Turns) -> dict[tuple[str, int], Turn]:
    """Of each figure by itself."""
    return {
        key: Turn(
            statistics.median(turn.per_second for turn in found),
            statistics.median(turn.p50_ms for turn in found),
            statistics.median(turn.p99_ms for turn in found),
            sum(turn.refused for turn in found),
        )
        for key, found in turns.items()
    }


def tell(middle: dict[tuple[str, int], Turn]) -> None:
    """The table: each contender beside the null application and the afternoon's receiver."""
    heads = ("contender", "connections", "per second", "of null", "× afternoon", "p50 ms", "p99 ms")
    print("| " + " | ".join((*heads, "refused")) + " |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (name, connections), turn in sorted(middle.items(), key=lambda each: each[0][1]):
        null = middle["null app", connections].per_second
        slow = middle.get((_yardstick(name), connections))
        times = f"{turn.per_second / slow.per_second:.1f}" if slow else ""
        waits = f"{turn.p50_ms:.1f} | {turn.p99_ms:.1f}" if turn.p50_ms else " | "
        print(
            f"| {name} | {connections} | {turn.per_second:.0f} | {turn.per_second / null:.2f}"
            f" | {times} | {waits} | {turn.refused or ''} |"
        )


def _yardstick(name: str) -> str:
    return f"afternoon, {KINDS[1] if name.endswith(KINDS[1]) else KINDS[0]}"


def tell_what_was_left(field: list[Contender], middle: dict[tuple[str, int], Turn]) -> None:
    """What our door only wrote down: how fast that is worked off, and both together."""
    most = max(connections for _, connections in middle)
    for contender in field:
        if contender.name.startswith("ours"):
            pace = contender.worked_off()
            door = middle[contender.name, most].per_second
            slow = middle[_yardstick(contender.name), most].per_second
            whole = 1 / (1 / door + 1 / pace)
            print(
                f"{contender.name}: the journal is worked off at {pace / door:.1f} times the pace"
                f" of the door; one after the other, {whole / slow:.1f} × afternoon"
            )


def main() -> int:
    """Measure, tell, draw; 1 when an acknowledged event is lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.door", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--plot", type=Path)
    told = parser.parse_args()
    with postgresql() as server, contenders(server, tuple(told.kinds)) as field:
        pgbench.prepare(server)
        turns = measure(field, server, told.rounds, told.seconds, tuple(told.connections))
        lost = {contender.name: contender.lost() for contender in field}
        middle = medians(turns)
        tell(middle)
        tell_what_was_left(field, middle)
    print("acknowledged and lost:", ", ".join(f"{name}: {n}" for name, n in lost.items() if n) or 0)
    if told.plot:
        told.plot.write_text(bars({k: turn.per_second for k, turn in middle.items()}))
    return 1 if any(lost.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
