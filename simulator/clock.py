"""Simulated time: durations pass faster than in reality, the time of day is never in the future."""

import asyncio
import time
from datetime import UTC, datetime, timedelta


def format_sync_time(moment: datetime) -> str:
    """Format a UTC time as Codat formats `syncUtc`: seven fractional digits and a Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def format_time(moment: datetime) -> str:
    """Format a UTC time to the second with a Z, as in Codat's webhook examples."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def wall_time() -> datetime:
    """Return the real time in UTC; signatures and the daily quota use it."""
    return datetime.now(UTC)


class Clock:
    """A clock that runs `speed` times as fast as real time."""

    def __init__(self, speed: float = 1.0, backdate_seconds: float = 0.0) -> None:
        self._speed = speed
        self._started = time.monotonic()
        self._first_moment = wall_time() - timedelta(seconds=backdate_seconds)

    def elapsed(self) -> float:
        """Return the simulated seconds since the start."""
        return (time.monotonic() - self._started) * self._speed

    def now(self) -> datetime:
        """Return the simulated time in UTC, at most the real time."""
        return min(wall_time(), self._first_moment + timedelta(seconds=self.elapsed()))

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of simulated seconds."""
        await asyncio.sleep(max(0.0, seconds) / self._speed)
