"""A Codat in the box: Codat's REST API and its signed webhook sender, for demo, tests and chaos.

An honest outsider: it shares no code with the service and is spoken to over HTTP only. Its own
controls live under `/_sim` (see `GET /_sim`), everything else answers as Codat would.
"""

from simulator.server import Simulator, create_simulator
from simulator.settings import SimulatorSettings, SubscriptionSettings

__all__ = ["Simulator", "SimulatorSettings", "SubscriptionSettings", "create_simulator"]
