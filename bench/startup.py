"""Measures how long each process takes to start, and its memory afterwards.

python -m bench.startup --rounds 5
"""

import statistics
import time

from bench.harness import make_parser, migrated_stage, resident_mib
from tests.processes import Stage, answers, count_workers, wait_for

COMMANDS = ("serve", "worker", "migrate")


def measure(stage: Stage, command: str) -> tuple[float, float]:
    """Seconds until it serves, sends heartbeats, or has ended; and its MiB a second later."""
    began = time.perf_counter()
    process = stage.start(command, WORKER_IN_WEB="false")
    is_up = {
        "serve": lambda: answers(process, "/livez"),
        "worker": lambda: count_workers(stage),
        "migrate": lambda: process.popen.poll() is not None,
    }
    wait_for(is_up[command])
    seconds = time.perf_counter() - began
    time.sleep(1)
    mib = 0.0 if command == "migrate" else resident_mib(process)
    process.stop()
    return seconds, mib


def main() -> None:
    """Measure the commands in turn, round by round, and print medians."""
    parser = make_parser("startup", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with migrated_stage("sqlite") as stage:
        found = [[measure(stage, name) for name in COMMANDS] for _ in range(options.rounds)]
    print("| process | s to start | MiB at rest |\n| --- | ---: | ---: |")
    for command, figures in zip(COMMANDS, zip(*found, strict=True), strict=True):
        seconds, mib = map(statistics.median, zip(*figures, strict=True))
        print(f"| {command} | {seconds:.2f} | {mib:.0f} |")


if __name__ == "__main__":
    main()
