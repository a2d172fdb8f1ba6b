"""A sender under whose load things break: it delivers on and on and, like Codat, tries again."""

import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from bench.hostile import signed_headers

ANSWER_WITHIN_S = 12.0
NO_ANSWER_AFTER_S = 30.0
PAUSE_S = 0.01
RETRY_AFTER_S = 0.2


@dataclass
class Load:
    """Threads that deliver to one door until the block ends.

    What is not acknowledged is delivered again. `answers` counts statuses, 0 where nobody
    listened or the connection broke, -1 where no answer came at all.
    """

    door: str
    body: Callable[[str], bytes]
    threads: int = 6
    answers: Counter[int] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    slowest_s: float = 0.0

    def __post_init__(self) -> None:
        self._again: deque[str] = deque()
        self._over = threading.Event()
        self._enough = threading.Event()
        self._running = [threading.Thread(target=self._work) for _ in range(self.threads)]

    def __enter__(self) -> "Load":
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._running:
            thread.join()

    def settle(self, seconds: float = 60) -> bool:
        """Begin nothing new; True when all that was begun is acknowledged in time."""
        self._enough.set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.acknowledged == self.sent:
                return True
            time.sleep(0.05)
        return False

    def grow(self, acknowledged: int, seconds: float = 30) -> bool:
        """Wait for so many more acknowledgements; False when they do not come in time."""
        wanted = len(self.acknowledged) + acknowledged
        end = time.monotonic() + seconds
        while len(self.acknowledged) < wanted and time.monotonic() < end:
            time.sleep(0.02)
        return len(self.acknowledged) >= wanted

    @property
    def odd_answers(self) -> dict[int, int]:
        """Whatever was neither 204, nor 503, nor a connection that nobody took or that broke."""
        return {status: n for status, n in self.answers.items() if status not in (0, 204, 503)}

    def _work(self) -> None:
        with httpx.Client(timeout=NO_ANSWER_AFTER_S) as client:
            while not self._over.is_set():
                message_id = self._next()
                if message_id:
                    self._deliver(client, message_id)
                time.sleep(PAUSE_S)

    def _next(self) -> str | None:
        try:
            return self._again.popleft()
        except IndexError:
            if self._enough.is_set():
                return None
        message_id = f"msg_{uuid.uuid4().hex}"
        self.sent.add(message_id)
        return message_id

    def _deliver(self, client: httpx.Client, message_id: str) -> None:
        body = self.body(message_id)
        began = time.monotonic()
        try:
            headers = signed_headers(body, message_id)
            status = client.post(self.door, content=body, headers=headers).status_code
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
        self._again.append(message_id)
        self._over.wait(RETRY_AFTER_S * random.uniform(0.5, 1.5))
