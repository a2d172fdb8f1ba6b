"""Whether a process still gets on: it beats, and who watches it looks whether it did.

Looks are counted and not seconds: a machine that sleeps, or a container that is paused, holds both
of them, and must not look like a process that hangs.
"""

import mmap


class Pulse:
    """Of one process. Make it before the two part: they share its memory."""

    def __init__(self) -> None:
        self._beats = memoryview(mmap.mmap(-1, 8)).cast("Q")
        self._heard = 0
        self._in_vain = 0

    def beat(self) -> None:
        """Say that this process gets on."""
        self._beats[0] += 1

    def look(self) -> int:
        """How many looks in a row, with this one, have found no new beat."""
        self._in_vain = self._in_vain + 1 if self._beats[0] == self._heard else 0
        self._heard = self._beats[0]
        return self._in_vain
