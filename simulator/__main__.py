"""Serve a simulated Codat on 127.0.0.1 (`python -m simulator`).

The API key and the signing secrets can also be set as SIMULATOR_KEY and SIMULATOR_SECRETS (comma
separated): other users of the machine can read a command line, but not an environment.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import uvicorn

from simulator.scenario import MORNING_SECONDS
from simulator.server import Simulator
from simulator.settings import (
    LEGACY_EVENTS,
    NEW_EVENTS,
    OTHER_EVENTS,
    SimulatorSettings,
    Subscription,
)
from simulator.webhooks import is_signing_secret

MORNING_SPEED = 400.0
DEFAULT_KEY = "simulated-api-key"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line and the environment; exit with code 2 on invalid options."""
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8010, help="default: %(default)s")
    parser.add_argument("--key", help="the API key it accepts")
    parser.add_argument("--to", metavar="URL", help="where to send webhooks")
    parser.add_argument(
        "--secret",
        action="append",
        metavar="whsec_…",
        help="signing secret; a second one signs the new event types",
    )
    parser.add_argument("--speed", type=float, help="simulated seconds per real second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenario", choices=("morning", "none"), default="none")
    parser.add_argument(
        "--until-eof", action="store_true", help="stop when standard input is closed"
    )
    options = parser.parse_args(arguments)
    options.key = options.key or os.environ.get("SIMULATOR_KEY") or DEFAULT_KEY
    options.secret = options.secret or _split(os.environ.get("SIMULATOR_SECRETS", ""))
    if options.to and not options.secret:
        parser.error("--to needs a --secret to sign with")
    if options.speed is not None and options.speed <= 0:
        parser.error("--speed must be positive")
    if not all(map(is_signing_secret, options.secret)):  # the message must not contain it
        parser.error("a --secret is not of the form whsec_ and base64")
    return options


parsed = parse_arguments  # imported by tests/cli/test_demo.py


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def settings_from(options: argparse.Namespace) -> SimulatorSettings:
    """Build the settings; with `--to`, one subscription per payload generation."""
    morning = options.scenario == "morning"
    subscriptions: tuple[Subscription, ...] = ()
    if options.to:
        subscriptions = (
            Subscription(options.to, options.secret[0], LEGACY_EVENTS),
            Subscription(options.to, options.secret[-1], (*NEW_EVENTS, *OTHER_EVENTS)),
        )
    return SimulatorSettings(
        key=options.key,
        seed=options.seed,
        speed=options.speed or (MORNING_SPEED if morning else 1.0),
        backdate_seconds=MORNING_SECONDS if morning else 0.0,
        subscriptions=subscriptions,
        scenario=options.scenario,
        finish_initiated_after=120.0 if morning else None,
    )


def _exit(*_: object) -> NoReturn:
    # uvicorn raises the signal again after its graceful shutdown.
    sys.exit(0)


def _stop_at_end_of_input() -> None:
    """Stop when the parent process ends, even by SIGKILL: its end of the pipe is closed."""
    while os.read(sys.stdin.fileno(), 1024):  # sys.stdin's buffer would be locked at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C, then exit with code 0."""
    options = parse_arguments(arguments)
    simulator = Simulator(settings_from(options))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    if options.until_eof:
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    print(f"Simulated Codat on http://127.0.0.1:{options.port} (controls: /_sim)", flush=True)
    uvicorn.run(
        simulator,
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
