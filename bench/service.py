"""What the chaos run plays with: the simulated Codat's controls, and our processes, mortal."""

import random
import signal
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.processes import TLS, Process, Stage, free_port, wait_for

STARTED_WITHIN_S = 60
CALLS_A_MINUTE = 800  # what our service allows itself, of the thousand that Codat does


class Codat:
    """The simulator's controls."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._base = f"{address}/_sim"

    def say(self, method: str, path: str, body: Any = None) -> Any:
        """One control call; its decoded answer."""
        answer = httpx.request(method, self._base + path, json=body, timeout=120, verify=TLS)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@dataclass
class Service:
    """Our processes, each on its own port, killed and started again."""

    playing: Stage
    replicas: int
    embedded: bool
    chance: random.Random
    pace: int
    kills: int = 0
    alive: list[tuple[str, int, Process]] = field(default_factory=list)

    def start(self) -> None:
        """All replicas, ready."""
        for _ in range(self.replicas):
            self._start("serve", free_port())
            if not self.embedded:
                self._start("worker", free_port())
        for role, port, _ in self.alive:
            if role == "serve":
                wait_for(lambda port=port: _is_up(port), STARTED_WITHIN_S)  # type: ignore[misc]

    def _start(self, role: str, port: int) -> None:
        process = self.playing.start(
            role,
            PORT=str(port),
            WORKER_IN_WEB=str(self.embedded).lower(),
            RECONCILE_EVERY_MINUTES="0",
            LOG_LEVEL="warning",
            CODAT_CALLS_PER_MINUTE=str(CALLS_A_MINUTE * self.pace),
        )
        self.alive.append((role, port, process))

    def kill_one(self) -> None:
        """SIGKILL one process and start it again at once."""
        role, port, process = self.alive.pop(self.chance.randrange(len(self.alive)))
        process.stop(signal.SIGKILL)
        self.kills += 1
        self._start(role, port)

    @property
    def doors(self) -> list[str]:
        """Where webhooks go."""
        return [
            f"http://127.0.0.1:{port}/webhooks/codat"
            for role, port, _ in self.alive
            if role == "serve"
        ]


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=2, verify=TLS).is_success
    except httpx.HTTPError:
        return False
