"""The simulator's clock: durations can be sped up, the time of day never runs ahead of the wall."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def codat_time(moment: datetime) -> str:
    """A UTC moment the way Codat prints `syncUtc`: seven fractional digits and a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def plain_time(moment: datetime) -> str:
    """A UTC moment to the second with a Z, as in Codat's webhook examples."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Clock:
    """Simulated durations and the world's time of day."""

    def __init__(
        self,
        speed: float = 1.0,
        behind_seconds: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at `behind_seconds` before the wall; `speed` simulated seconds per real one."""
        self._wall = wall
        self._monotonic = monotonic
        self._speed = speed
        self._elapsed_then = 0.0
        self._monotonic_then = monotonic()
        self._begin = self.wall() - timedelta(seconds=behind_seconds)
        self._changed = asyncio.Event()

    @property
    def speed(self) -> float:
        """Simulated seconds per real second; 0 stands still."""
        return self._speed

    def set_speed(self, speed: float) -> None:
        """Change the speed from now on; sleepers notice at once. Negative is a ValueError."""
        if speed < 0:
            raise ValueError("speed must not be negative")
        self._elapsed_then = self.elapsed()
        self._monotonic_then = self._monotonic()
        self._speed = speed
        self._changed.set()
        self._changed = asyncio.Event()

    def elapsed(self) -> float:
        """Simulated seconds since the start; grows without bound, never backwards."""
        return self._elapsed_then + (self._monotonic() - self._monotonic_then) * self._speed

    def wall(self) -> datetime:
        """The real time, UTC: what signatures and Retry-After are made of."""
        return datetime.fromtimestamp(self._wall(), UTC)

    def now(self) -> datetime:
        """The world's time, UTC: simulated, but never later than the wall."""
        return min(self.wall(), self._begin + timedelta(seconds=self.elapsed()))

    async def sleep(self, seconds: float) -> None:
        """Wait so many simulated seconds, also when the speed changes meanwhile."""
        due = self.elapsed() + seconds
        while (left := due - self.elapsed()) > 0:
            changed = self._changed
            real = left / self._speed if self._speed else None
            try:
                await asyncio.wait_for(changed.wait(), real)
            except TimeoutError:
                continue

    async def real_sleep(self, seconds: float) -> None:
        """Wait so many real seconds, whatever the speed."""
        await asyncio.sleep(seconds)
