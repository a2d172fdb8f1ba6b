"""Fault injection for API calls: which calls fail, how, and how often."""

import random
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, PrivateAttr

ListFault = Literal["truncated_list", "moving_total", "shifting_page", "pending_left"]
FaultKind = Literal["status", "timeout", "drop", "truncated_body"] | ListFault
LIST_FAULTS: frozenset[str] = frozenset(get_args(ListFault))
FAULT_KINDS = ("status", "timeout", "drop", "truncated_body", *get_args(ListFault))
LIST_CALLS = frozenset({"companies", "sync_list", "transactions", "push"})


class Fault(BaseModel, extra="forbid"):
    """A rule that makes API calls fail.

    `call` is a kind of call as in the counters; empty matches all. `times` is how many calls fail
    (null: until the rules are deleted), each with `probability`.

    - `status` responds with that HTTP status and, if set, a `Retry-After` in seconds.
    - `timeout` delays the response by `hold_seconds` (real).
    - `drop` closes the connection; `truncated_body` sends half of the body.
    - For lists: `truncated_list` omits the last row of a page, `moving_total` raises the total with
      each call, `shifting_page` repeats a row of the page before, `pending_left` reports the first
      transaction as Pending.
    """

    kind: FaultKind
    call: str = ""
    times: int | None = 1
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    status: Annotated[int, Field(ge=300, le=599)] = 503
    retry_after: int | None = None
    hold_seconds: Annotated[float, Field(ge=0)] = 30.0
    _hits: int = PrivateAttr(0)

    @property
    def hits(self) -> int:
        """How many calls it has hit."""
        return self._hits

    def hit(self, call: str, rng: random.Random) -> bool:
        """Decide whether it hits a call of this kind, and count it if so."""
        if self.call not in ("", call) or (self.kind in LIST_FAULTS and call not in LIST_CALLS):
            return False
        if self.times is not None and self._hits >= self.times:
            return False
        if rng.random() >= self.probability:
            return False
        self._hits += 1
        return True
