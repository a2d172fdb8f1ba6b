"""The forced end of a process whose orderly shutdown takes too long.

A thread that waits for a frozen database cannot be interrupted, and Python waits for its threads.
So the first signal starts a timer, and when it runs out the process exits. Nothing is lost by that:
webhooks are acknowledged after the commit, and another worker takes over the leases. So the exit
code is that of an orderly shutdown, and the log has the reason.
"""

import logging
import os
import threading

from app import logging as log

EXIT_WITHIN_S = 9.0  # orchestrators usually kill after ten

_log = log.get(__name__)


def force_exit_later() -> None:
    """Exit with code 0 in EXIT_WITHIN_S seconds, unless the process has ended by then."""
    timer = threading.Timer(EXIT_WITHIN_S, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    _log.warning("shutdown timed out; the process exits", seconds=EXIT_WITHIN_S)
    try:
        logging.shutdown()
    finally:
        os._exit(0)
