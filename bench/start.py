"""Small at rest: how long each process takes to be there, and how much memory it then has.

    python -m bench.start --rounds 5

Real processes on a migrated SQLite database. Python itself tells what its imports cost; the table
names the packages in which most of that time goes, each without what it imports in turn.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import Process, Stage, a_worker_lives, answers, run, stage, wait_for

TELL = "PYTHONPROFILEIMPORTTIME"
VERBS = ("serve", "worker", "migrate")
MOST = 10


@dataclass
class Found:
    """What one kind of process came to, round by round."""

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    modules: int = 0
    imports: dict[str, list[float]] = field(default_factory=dict)


def resident_mb(process: Process) -> float:
    """The memory a process has, in MB."""
    command = ["ps", "-o", "rss=", "-p", str(process.popen.pid)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def is_there(playing: Stage, verb: str, process: Process) -> bool:
    """`serve` answers, `worker` has said that it lives; `migrate` has ended."""
    if verb == "migrate":
        return process.popen.poll() is not None
    return answers(process, "/livez") if verb == "serve" else a_worker_lives(playing)


def start(playing: Stage, verb: str, **settings: str) -> tuple[Process, float]:
    """Start a process; how many seconds it took to be there."""
    began = time.perf_counter()
    process = playing.start(verb, WORKER_IN_WEB="false", **settings)
    wait_for(lambda: is_there(playing, verb, process))
    return process, time.perf_counter() - began


def measure(playing: Stage, verb: str, found: Found) -> None:
    """One round: once as it is, once with Python telling what it imports."""
    process, seconds = start(playing, verb)
    found.seconds.append(seconds)
    if verb != "migrate":
        time.sleep(1)
        found.megabytes.append(resident_mb(process))
    process.stop()
    process, _ = start(playing, verb, **{TELL: "1"})
    process.stop()
    cost: Counter[str] = Counter()
    lines = [line for line in process.log.read_text().splitlines() if line.startswith("import ")]
    for line in lines[1:]:
        own, _, name = line.removeprefix("import time:").split("|")
        cost[name.strip().split(".")[0]] += int(own)
    found.modules = len(lines) - 1
    for package, microseconds in cost.items():
        found.imports.setdefault(package, []).append(microseconds / 1000)


def tell(all_found: dict[str, Found]) -> None:
    """Two tables: the processes, and where their imports' time goes."""
    print("| process | seconds until there | MB at rest | modules | imports ms |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for verb, found in all_found.items():
        rest = f"{statistics.median(found.megabytes):.0f}" if found.megabytes else ""
        middle = {package: statistics.median(ms) for package, ms in found.imports.items()}
        seconds = statistics.median(found.seconds)
        print(f"| {verb} | {seconds:.2f} | {rest} | {found.modules} | {sum(middle.values()):.0f} |")
    print()
    for verb, found in all_found.items():
        middle = {package: statistics.median(ms) for package, ms in found.imports.items()}
        most = sorted(middle.items(), key=lambda each: -each[1])[:MOST]
        print(f"{verb}: " + ", ".join(f"{package} {ms:.0f}" for package, ms in most))


def main() -> None:
    """Measure the processes in turn, round by round."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    all_found = {verb: Found() for verb in VERBS}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'syncs.db'}"
        run(folder, "migrate", DATABASE_URL=url)
        with stage(folder, url) as playing:
            for _ in range(told.rounds):
                for verb, found in all_found.items():
                    measure(playing, verb, found)
    tell(all_found)


if __name__ == "__main__":
    main()
