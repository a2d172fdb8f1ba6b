"""A webhook sender for destructive runs: like Codat, it repeats what is not acknowledged."""

import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from tests.processes import SECRET, TLS, failed_event, holds_within, signed

ANSWER_WITHIN_S = 12.0
NO_ANSWER_AFTER_S = 30.0
PAUSE_S = 0.02
RETRY_AFTER_S = 0.2


@dataclass
class RetryingSender:
    """Threads that deliver events to these URLs, at random, until the block ends.

    Each delivery is signed with all `secrets`, as while Codat rotates them. `answers` counts
    statuses: 0 when the connection failed, -1 when no answer came in time.
    """

    urls: Sequence[str]
    threads: int = 6
    secrets: Sequence[str] = (SECRET,)
    answers: Counter[int] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    slowest_s: float = 0.0

    def __post_init__(self) -> None:
        self._retries: deque[str] = deque()
        self._stopped = threading.Event()
        self._draining = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(self.threads)]

    def __enter__(self) -> "RetryingSender":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def drain(self, seconds: float = 60) -> bool:
        """Send nothing new; True when everything sent is acknowledged in time."""
        self._draining.set()
        return holds_within(seconds, lambda: self.acknowledged == self.sent)

    def wait_for_more(self, count: int, seconds: float = 30) -> bool:
        """Wait for so many further acknowledgments; False when they do not come in time."""
        wanted = len(self.acknowledged) + count
        return holds_within(seconds, lambda: len(self.acknowledged) >= wanted)

    @property
    def unexpected_answers(self) -> dict[int, int]:
        """All answers but 204, 503 and a failed connection."""
        return {status: n for status, n in self.answers.items() if status not in (0, 204, 503)}

    def _work(self) -> None:
        with httpx.Client(timeout=NO_ANSWER_AFTER_S, verify=TLS) as client:
            while not self._stopped.is_set():
                if message_id := self._next_message_id():
                    self._deliver(client, message_id)
                time.sleep(PAUSE_S)

    def _next_message_id(self) -> str | None:
        try:
            return self._retries.popleft()
        except IndexError:
            if self._draining.is_set():
                return None
        message_id = f"msg_{uuid.uuid4().hex}"
        self.sent.add(message_id)
        return message_id

    def _deliver(self, client: httpx.Client, message_id: str) -> None:
        body = failed_event(message_id)
        headers = signed(body, message_id, *self.secrets)
        began = time.monotonic()
        try:
            status = client.post(
                random.choice(self.urls), content=body, headers=headers
            ).status_code
        except httpx.ReadTimeout:
            status = -1
        except httpx.TransportError:
            status = 0
        if status:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.answers[status] += 1
        if status == 204:
            self.acknowledged.add(message_id)
            return
        self._retries.append(message_id)
        self._stopped.wait(RETRY_AFTER_S * random.uniform(0.5, 1.5))
