"""A client for those who examine: it also notes how far our clock is from Codat's."""

import email.utils
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import httpx

from app.codat.client import CodatClient

PATIENCE = httpx.Timeout(10.0)


class TimedCodat(CodatClient):
    """Asks Codat. `skew` is our clock less Codat's, by the `Date` of its last answer."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        clock: Callable[[], datetime],
        gate: Callable[[], Awaitable[None]] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, transport=transport, timeout=PATIENCE, gate=gate)
        self._clock = clock
        self._http.event_hooks = {"response": [self._note]}
        self.skew: timedelta | None = None

    async def _note(self, answer: httpx.Response) -> None:
        try:
            theirs = email.utils.parsedate_to_datetime(answer.headers.get("date", ""))
        except (ValueError, TypeError):
            return
        self.skew = self._clock() - theirs.replace(tzinfo=UTC)  # HTTP's dates are always UTC
