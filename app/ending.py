"""How a process of ours ends: by itself when it can, and in time whatever hangs.

A thread that waits for a frozen database cannot be interrupted, and Python waits for its threads.
So the first signal starts a clock, and when it runs out the process ends. Nothing acknowledged is
lost by that: what was answered is committed, and a lease that is not given back runs out.
"""

import logging
import os
import threading

from app import log

END_WITHIN_S = 9.0  # an orchestrator usually kills after ten

_log = log.get(__name__)


def end_for_certain(within_s: float = END_WITHIN_S) -> None:
    """From now on this process lives for `within_s` seconds at most; its exit code is then 0."""
    clock = threading.Timer(within_s, _end)
    clock.daemon = True
    clock.start()


def _end() -> None:
    _log.warning("something hangs; the process ends without it", after_s=END_WITHIN_S)
    logging.shutdown()
    os._exit(0)
