"""Tells and counts, once a second, what the journal holds by then."""

import asyncio
from dataclasses import dataclass

from app import logging as log
from app.db import journal
from app.db.engine import Database
from app.errors import StorageUnavailable

EVERY_S = 1.0
AT_MOST_S = 3.0  # at a time: a process that ends waits for it

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Bookkeeper:
    """Works the journal off beside the fetches, so that nobody who reads has much left to do."""

    database: Database
    every_s: float = EVERY_S

    async def run(self) -> None:
        """Until cancelled. What cannot be done now stays in the journal for the next time."""
        while True:
            try:
                await asyncio.to_thread(journal.work_off, self.database, within_s=AT_MOST_S)
            except StorageUnavailable as error:
                _log.warning("the journal waits for the database", reason=str(error))
            except Exception:
                _log.exception("the journal could not be worked off")
            await asyncio.sleep(self.every_s)
