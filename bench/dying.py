"""How a service under load is made to die: at a named point of the code, or at any moment.

Of several processes that serve together a point is the end of one child, whose heir must serve
before the rest may end; and chance takes a child or the parent, whose children must then end by
themselves. Everything else that happens to them raises RuntimeError.
"""

import json
import os
import random
import signal
import subprocess
import time
from typing import NamedTuple

from bench.sender import Load
from tests.processes import Process, answers, children, is_there, wait_for

WITHIN_S = 20.0
ALONE_WITHIN_S = 15.0
GOES_ON = 10  # deliveries that are acknowledged after a child was replaced
MISSED = "serving processes died"


class Death(NamedTuple):
    """Where it came; a point that was not reached in time was not waited for any longer."""

    where: str
    reached: bool


def die(process: Process, point: str, chance: random.Random) -> Death:
    """A service of one process: its death at the point (`name:N`), or at random."""
    where = _name(point) or "random"
    reached = _ends(process) if point else _serves_a_while(process, chance)
    _kill(process, where)
    return Death(where, reached)


def one_dies(process: Process, count: int, point: str, chance: random.Random, load: Load) -> Death:
    """A service of so many: the death of a child at the point, or at random of anybody."""
    where = _name(point) or chance.choice(("random child", "random parent"))
    if where == "random parent":
        _serves_a_while(process, chance)
        orphans = children(process)
        _kill(process, where)
        wait_for(lambda: not any(map(is_there, orphans)), ALONE_WITHIN_S)
        return Death(where, reached=True)
    reached = _misses_one(process) if point else _serves_a_while(process, chance)
    if not (point and reached):
        family = wait_for(lambda: _all(process, count))
        os.kill(chance.choice(sorted(family)), signal.SIGKILL)
    wait_for(lambda: _missed(process))
    _goes_on(process, count, load)
    if point and reached and len(_missed(process)) > 1:
        raise RuntimeError(f"{where}: more than one died: {process.log.read_text()}")
    return Death(where, reached)


def _name(point: str) -> str:
    return point.partition(":")[0]


def _ends(process: Process) -> bool:
    try:
        process.popen.wait(WITHIN_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _serves_a_while(process: Process, chance: random.Random) -> bool:
    wait_for(lambda: answers(process, "/livez"), 60)
    time.sleep(chance.uniform(0, 1.0))
    return True


def _kill(process: Process, where: str) -> None:
    code = process.stop(signal.SIGKILL)
    if code != -signal.SIGKILL:
        raise RuntimeError(f"{where}: it ended by itself with {code}: {process.log.read_text()}")


def _missed(process: Process) -> list[int]:
    """The exit codes of the children that the parent has missed."""
    lines = process.log.read_text().splitlines()
    told = [json.loads(line)["exit_codes"] for line in lines if MISSED in line]
    return [code for codes in told for code in codes]


def _misses_one(process: Process) -> bool:
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end and process.popen.poll() is None:
        if _missed(process):
            return True
        time.sleep(0.05)
    return False


def _all(process: Process, count: int) -> set[int] | None:
    found = children(process)
    return found if len(found) == count else None


def _goes_on(process: Process, count: int, load: Load) -> None:
    """They are as many as before, deliveries go on, and SIGTERM ends all of them well."""
    wait_for(lambda: _all(process, count))
    grown = load.grow(GOES_ON)
    code, missed = process.stop(), _missed(process)
    if not grown or code or {*missed} != {-signal.SIGKILL}:
        raise RuntimeError(f"{grown=} {code=} {missed=}: {process.log.read_text()}")
