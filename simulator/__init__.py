"""A simulated Codat: its REST API and its signed webhooks, for the demo, tests and chaos runs.

It imports nothing of the service and is used over HTTP only. The control API is under `/_sim`;
every other path is Codat's API.
"""

from simulator.server import Simulator
from simulator.settings import SimulatorSettings, Subscription

__all__ = ["Simulator", "SimulatorSettings", "Subscription"]
