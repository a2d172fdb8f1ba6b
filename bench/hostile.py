"""Hostile requests against the real process: no 5xx but 503, nothing stored, memory flat.

    python -m bench.hostile --requests 100000 --seed 1

The exit code is 1 when one of these does not hold; the seed repeats the run.
"""

import random
import socket
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse

from bench.harness import KINDS, make_parser, migrated_stage, resident_mib, row_counts
from bench.hostile_requests import BODY_LIMIT, HostileRequest, hostile_request
from tests.processes import Process, deliver, failed_event

THREADS = 4
ANSWER_WITHIN_S = 10.0
GROWTH_LIMIT_MIB = 24.0
"""Of resident memory, between the first fifth of a run and its end."""


@dataclass
class Result:
    """The figures of one run; a status is 0 where the connection ended without an answer."""

    answers: Counter[int] = field(default_factory=Counter)
    bad: list[tuple[int, int]] = field(default_factory=list)  # the number and its status
    stored: dict[str, int] = field(default_factory=dict)
    grown_mib: float = 0.0
    log: str = ""
    accepts_valid: bool = False

    @property
    def passed(self) -> bool:
        """No bad answer, nothing stored or logged, memory flat, and valid events are accepted."""
        is_flat = self.grown_mib < GROWTH_LIMIT_MIB
        return self.accepts_valid and is_flat and not (self.bad or self.stored or self.log)


def send_all(process: Process, url: str, seed: int, count: int) -> Result:
    """Send the requests of the seed to a process that uses this database."""
    result = Result()
    rows_before = row_counts(url)
    host, port = process.address.removeprefix("http://").split(":")
    address = (host, int(port))

    def send_range(numbers: range) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            statuses = pool.map(lambda n: send(hostile_request(seed, n), address), numbers)
            for number, status in zip(numbers, statuses, strict=True):
                result.answers[status] += 1
                is_bad = status == 204 or (status >= 500 and status != 503)
                if is_bad or (status == 0 and hostile_request(seed, number).complete):
                    result.bad.append((number, status))

    send_range(range(count // 5))
    early = resident_mib(process)
    send_range(range(count // 5, count))
    result.grown_mib = resident_mib(process) - early
    changed = {name: rows - rows_before[name] for name, rows in row_counts(url).items()}
    result.stored = {name: rows for name, rows in changed.items() if rows}
    result.accepts_valid = deliver(process, "msg_valid", failed_event("valid")) == 204
    result.log = process.logged()
    return result


def send(request: HostileRequest, address: tuple[str, int]) -> int:
    """The status of the answer; 0 when the service closed the connection without one."""
    with socket.create_connection(address, timeout=ANSWER_WITHIN_S) as connection:
        with suppress(OSError):  # it may answer before everything was sent
            connection.sendall(request.data)
            if not request.complete:
                connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection, method=request.method)
        try:
            response.begin()
            response.read()
            return response.status
        except (OSError, HTTPException):
            return 0
        finally:
            response.close()


def main() -> int:
    """Play, print the figures; 1 when something did not hold."""
    parser = make_parser("hostile", __doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    options = parser.parse_args()
    settings = {"WORKER_IN_WEB": "false", "MAX_BODY_BYTES": str(BODY_LIMIT), "LOG_LEVEL": "error"}
    with migrated_stage(options.database) as stage:
        process = stage.serve(**settings)
        r = send_all(process, stage.database_url, options.seed, options.requests)
        r.accepts_valid &= process.stop() == 0
    print(f"seed {options.seed}, {options.requests} requests on {options.database}: answers"
          f" {dict(sorted(r.answers.items()))}; stored {r.stored or 'nothing'}; memory grew by"
          f" {r.grown_mib:.0f} MiB; {'passed' if r.passed else 'FAILED'}")  # fmt: skip
    for number, status in r.bad[:10]:
        request = hostile_request(options.seed, number)
        print(f"  {number} ({request.kind}): {status}: {request.data[:300]!r}")
    print(r.log[:2000])
    return 0 if r.passed else 1


if __name__ == "__main__":
    sys.exit(main())
