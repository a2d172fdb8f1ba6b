"""Codat's daily quota and what replies say of it (docs.codat.io/using-the-api/rate-limits)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil

from simulator.clock import Clock, plain_time


def next_midnight(moment: datetime) -> datetime:
    """The next 00:00 UTC, when Codat's quota starts anew."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=1)


class Quota:
    """How many calls are left until the reset; counted in real time, as the caller lives in it."""

    def __init__(self, clock: Clock, limit: Callable[[], int], form: str = "seconds") -> None:
        """`limit` is asked at each call; `form` of Retry-After is `seconds` or `date`."""
        self._clock = clock
        self._limit = limit
        self._form = form
        self._used = 0
        self._shut = False
        self.reset_at = next_midnight(clock.wall())

    @property
    def limit(self) -> int:
        """Calls allowed per day."""
        return self._limit()

    @property
    def remaining(self) -> int:
        """Calls left now, never below zero."""
        self._roll()
        return 0 if self._shut else max(0, self.limit - self._used)

    def spend(self) -> bool:
        """Count one call; False when nothing was left for it."""
        if self.remaining == 0:
            return False
        self._used += 1
        return True

    def exhaust(self, reset_after: float | None = None) -> datetime:
        """Close the gate until the reset, `reset_after` real seconds from now or midnight UTC."""
        now = self._clock.wall()
        self._shut = True
        self.reset_at = (
            next_midnight(now) if reset_after is None else now + timedelta(seconds=reset_after)
        )
        return self.reset_at

    def reset(self) -> None:
        """Start a new day's quota now."""
        self._used = 0
        self._shut = False
        self.reset_at = next_midnight(self._clock.wall())

    def headers(self) -> dict[str, str]:
        """The three X-Rate-Limit headers that come with every reply; the reset as ISO date."""
        return {
            "X-Rate-Limit-Limit": str(self.limit),
            "X-Rate-Limit-Remaining": str(self.remaining),
            "X-Rate-Limit-Reset": plain_time(self.reset_at),
        }

    def retry_after(self) -> str:
        """Retry-After until the reset, in the configured form, at least one second."""
        left = (self.reset_at - self._clock.wall()).total_seconds()
        seconds = max(1, ceil(left))
        return retry_after(f"date:{seconds}" if self._form == "date" else str(seconds), self._clock)

    def _roll(self) -> None:
        if self._clock.wall() >= self.reset_at:
            self.reset()


def retry_after(value: str, clock: Clock) -> str:
    """A Retry-After value: seconds as given, or `date:SECONDS` as the HTTP date so far ahead."""
    if not value.startswith("date:"):
        return value
    moment = clock.wall() + timedelta(seconds=float(value.removeprefix("date:")) + 1)
    return format_datetime(moment.replace(microsecond=0), usegmt=True)
