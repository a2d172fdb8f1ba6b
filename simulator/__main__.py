"""The command line: `python -m simulator` serves a simulated Codat on 127.0.0.1.

The key and the secrets may also come as SIMULATOR_KEY and SIMULATOR_SECRETS (comma separated):
other users of the machine can read a command line, but not an environment.
"""

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import uvicorn
from svix.webhooks import Webhook

from simulator.server import create_simulator
from simulator.settings import (
    LEGACY_EVENTS,
    NEW_EVENTS,
    OTHER_EVENTS,
    SimulatorSettings,
    SubscriptionSettings,
)
from simulator.story import MORNING_SECONDS

DEMO_SPEED = 400.0
DEFAULT_KEY = "simulated-api-key"


class AnnouncingServer(uvicorn.Server):
    """Prints one line as soon as it accepts requests."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then say where."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(f"Simulated Codat ready on http://127.0.0.1:{port} (controls: /_sim)", flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; leaves the process with code 2 on wrong use."""
    parser = _parser()
    told = parser.parse_args(arguments)
    told.key = told.key or os.environ.get("SIMULATOR_KEY") or DEFAULT_KEY
    told.secret = told.secret or _listed(os.environ.get("SIMULATOR_SECRETS", ""))
    if told.to and not told.secret:
        parser.error("--to needs a --secret to sign with")
    problem = secret_problem(told.secret)
    if problem:
        parser.error(problem)
    return told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8010, help="0 takes a free one")
    parser.add_argument("--key", help="the API key it accepts")
    parser.add_argument("--to", metavar="URL", help="where webhooks go")
    parser.add_argument(
        "--secret",
        action="append",
        metavar="whsec_…",
        help="signing secret; a second one is for the new event types' own consumer",
    )
    parser.add_argument("--speed", type=float, help="simulated seconds per real second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenario", choices=("morning", "none"), default="none")
    parser.add_argument(
        "--until-eof", action="store_true", help="end when standard input does, as with its parent"
    )
    return parser


def _listed(told: str) -> list[str]:
    return [part.strip() for part in told.split(",") if part.strip()]


def secret_problem(secrets: list[str]) -> str | None:
    """Why one of the secrets cannot sign, without naming it; None when all can."""
    for secret in secrets:
        try:
            Webhook(secret)
        except Exception:  # svix lets several libraries' errors through
            return "a --secret is not of the form whsec_ and base64"
    return None


def settings_from(told: argparse.Namespace) -> SimulatorSettings:
    """The simulator's settings; one consumer per payload generation, both at `--to`."""
    morning = told.scenario == "morning"
    subscriptions: tuple[SubscriptionSettings, ...] = ()
    if told.to:
        subscriptions = (
            SubscriptionSettings(told.to, told.secret[0], LEGACY_EVENTS),
            SubscriptionSettings(told.to, told.secret[-1], (*NEW_EVENTS, *OTHER_EVENTS)),
        )
    return SimulatorSettings(
        key=told.key,
        seed=told.seed,
        speed=told.speed or (DEMO_SPEED if morning else 1.0),
        behind_seconds=MORNING_SECONDS if morning else 0.0,
        subscriptions=subscriptions,
        scenario=told.scenario,
        finish_initiated_after=120.0 if morning else None,
    )


def _leave(*_: object) -> NoReturn:
    # uvicorn raises the signal again after its orderly shutdown; by then all is done.
    sys.exit(0)


def _end_with_input() -> None:
    """A parent that is killed cannot say so, but its end of the pipe is closed."""
    while os.read(sys.stdin.fileno(), 1024):  # its own buffer would be locked while we leave
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C, then leave with code 0."""
    told = parsed(arguments)
    simulator = create_simulator(settings_from(told))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    if told.until_eof:
        threading.Thread(target=_end_with_input, daemon=True).start()
    config = uvicorn.Config(
        simulator,
        host="127.0.0.1",
        port=told.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    AnnouncingServer(config).run()


if __name__ == "__main__":
    main()
