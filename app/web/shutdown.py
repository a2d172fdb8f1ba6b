"""How a process of ours ends: by itself when it can, and in time whatever hangs.

A thread that waits for a frozen database cannot be interrupted, and Python waits for its threads.
So the first signal starts a clock, and when it runs out the process ends. Nothing acknowledged is
lost by that: what was answered is committed, and a lease that is not given back runs out.
"""

import logging
import os
import threading
from collections.abc import Callable

from app import logging as log

END_WITHIN_S = 9.0  # an orchestrator usually kills after ten

_log = log.get(__name__)


def end_for_certain(last: Callable[[], int] = lambda: 0) -> None:
    """From now on this process lives for END_WITHIN_S seconds at most.

    Its exit code is then what `last` says, which is called right before.
    """
    clock = threading.Timer(END_WITHIN_S, _end, (last,))
    clock.daemon = True
    clock.start()


def _end(last: Callable[[], int]) -> None:
    _log.warning("something hangs; the process ends without it", after_s=END_WITHIN_S)
    code = 1
    try:
        code = last()
        logging.shutdown()
    finally:
        os._exit(code)
