"""Measures memory over a backlog of events and an export.

    python -m bench.memory --events 100000 --syncs 100000

Compares the peak memory of the real process after all of the work with its peak after the first
tenth, to detect what grows with the work. The target is at most a tenth more.
"""

import subprocess
import sys
import time

import httpx

from bench.data import fill
from bench.harness import IS_PENDING, KINDS, count_where, make_parser, migrated_stage, resident_mib
from tests.processes import AUTHORIZED, ROOT, SECRET, Process, Stage

TARGET = 1.1


def store_and_project(kind: str, events: int) -> tuple[float, float]:
    """Store events while no worker runs, then let one project the backlog."""
    with migrated_stage(kind) as stage:
        server = stage.serve(WORKER_IN_WEB="false", LOG_LEVEL="warning")
        _send(server, stage, events // 10)
        early = resident_mib(server, peak=True)
        _send(server, stage, events - events // 10)
        stored = resident_mib(server, peak=True) / early
        worker = stage.start("worker", CODAT_CALLS_PER_MINUTE="10", LOG_LEVEL="warning")
        early = 0.0
        while left := count_where(stage.database_url, IS_PENDING):
            if not early and left <= 0.9 * events:
                early = resident_mib(worker, peak=True)
            if worker.popen.poll() is not None:
                raise RuntimeError(worker.logged()[-2000:])
            time.sleep(0.1)
        return stored, resident_mib(worker, peak=True) / early


def _send(server: Process, stage: Stage, count: int) -> None:
    command = [sys.executable, "-m", "bench.load", f"--secret={SECRET}", "--seconds=240"]
    command += [f"--port={httpx.URL(server.address).port}", f"--requests={count}"]
    command += [f"--acknowledged={stage.folder / 'acknowledged'}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def export(kind: str, syncs: int) -> float:
    """Read the list of all syncs as CSV."""
    with migrated_stage(kind) as stage:
        fill(stage.database_url, syncs)
        server = stage.serve(WORKER_IN_WEB="false", LOG_LEVEL="warning")
        url, early = f"{server.address}/api/v1/syncs?format=csv", 0.0
        with httpx.stream("GET", url, headers=AUTHORIZED, timeout=None) as answer:
            for n, _ in enumerate(answer.iter_lines()):
                if n == syncs // 10:
                    early = resident_mib(server, peak=True)
        return resident_mib(server, peak=True) / early


def main() -> int:
    """Measure and print; 0 only if the target is met."""
    parser = make_parser("memory", __doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--syncs", type=int, default=100_000)
    parser.add_argument("--database", choices=KINDS, default="postgresql")
    options = parser.parse_args()
    stored, projected = store_and_project(options.database, options.events)
    found = {
        f"serve: {options.events} events stored": stored,
        f"worker: {options.events} events projected": projected,
        f"serve: CSV of {options.syncs} syncs": export(options.database, options.syncs),
    }
    print(f"| work | peak memory, whole / first tenth | ≤ {TARGET:g} |\n| --- | ---: | --- |")
    for name, growth in found.items():
        print(f"| {name} | {growth:.2f} | {'yes' if growth <= TARGET else '**no**'} |")
    return 0 if max(found.values()) <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
