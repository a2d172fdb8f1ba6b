"""Faults on demand: which API calls go wrong, how, and how often.

A rule is taken by the calls it matches, in the order the rules were set; scripted ("the next 3")
or with a probability drawn from the simulator's seed.
"""

import random
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

ANSWERING = frozenset({"status", "timeout", "drop", "truncated_body"})
DISTORTING = frozenset({"truncated_list", "moving_total", "shifting_page", "pending_left"})
KINDS = ANSWERING | DISTORTING
LIST_CALLS = frozenset({"companies", "sync_list", "transactions", "push"})


@dataclass
class Fault:
    """One rule.

    `kind` is one of KINDS. `path` is a prefix of the decoded path, or a pattern with `*`; `call`
    is a kind of call as the counters name them; `method` an HTTP method; empty matches all.
    `times` calls go wrong (None: until cleared) after `skip` matching ones went well.
    `status`, `error` and `retry_after` (seconds, or `date:` and seconds for an HTTP date) belong to
    `status`; `hold_seconds` (real) to `timeout`; `rows` says how many rows a distortion touches.
    """

    kind: str
    fault_id: str = ""
    path: str = ""
    call: str = ""
    method: str = ""
    times: int | None = 1
    skip: int = 0
    probability: float = 1.0
    status: int = 503
    error: str | None = None
    retry_after: str | None = None
    hold_seconds: float = 30.0
    rows: int = 1
    fired: int = 0

    def matches(self, method: str, path: str, call: str) -> bool:
        """Whether this call is meant; distortions mean list calls only."""
        if self.kind in DISTORTING and call not in LIST_CALLS:
            return False
        if self.method and self.method.upper() != method:
            return False
        if self.call and self.call != call:
            return False
        return path.startswith(self.path) or fnmatchcase(path, self.path)

    @property
    def spent(self) -> bool:
        """Whether it has gone off as often as it should."""
        return self.times is not None and self.fired >= self.times


class FaultPlan:
    """The rules in force."""

    def __init__(self, rng: random.Random) -> None:
        """No rules; `rng` decides the probabilities."""
        self._rng = rng
        self._rules: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force after the others. ValueError for an unknown kind."""
        if fault.kind not in KINDS:
            raise ValueError(f"unknown kind of fault {fault.kind!r}; known: {sorted(KINDS)}")
        fault.fault_id = fault.fault_id or f"fault_{len(self._rules) + 1}"
        self._rules.append(fault)
        return fault

    def clear(self) -> int:
        """Take all rules out of force; returns how many there were."""
        count = len(self._rules)
        self._rules.clear()
        return count

    def take(self, method: str, path: str, call: str) -> Fault | None:
        """The fault this call meets, which is counted by that; None when it goes well."""
        for fault in self._rules:
            if fault.spent or not fault.matches(method, path, call):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.probability < 1.0 and self._rng.random() >= fault.probability:
                continue
            fault.fired += 1
            return fault
        return None

    def listing(self) -> list[dict[str, Any]]:
        """Every rule with how often it fired."""
        return [asdict(fault) for fault in self._rules]
