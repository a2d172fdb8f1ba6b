"""The inbox: gathers what concurrent requests bring and commits it together.

There is no timer. A batch is whatever came in while the last commit ran, so an idle service
answers after one commit, and a burst shares each commit's cost. A request is answered only after
the commit that holds its event.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app import log
from app.errors import StorageRefused, StorageUnavailable
from app.rules.news import Delivery
from app.storage.database import Database
from app.storage.keep import Kept, keep_all, keep_raw

MOST_PER_COMMIT = 256
MOST_WAITING = 20_000
KEEP_WITHIN_S = 10.0  # Codat stops waiting for our answer after 15 s
MOST_LINES = 4  # log lines per commit
AWAY_AFTER = 2  # failures in a row that mean the database is away, not the event bad

_log = log.get(__name__)
_Waiting = tuple[Delivery, "asyncio.Future[bool]"]
_Fate = bool | StorageUnavailable


class Inbox:
    """Keeps deliveries for one process. Use it from one event loop; `close` when done."""

    def __init__(self, database: Database, *, on_owed: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._on_owed = on_owed
        self._waiting: list[_Waiting] = []
        self._writing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inbox")

    async def keep(self, delivery: Delivery) -> bool:
        """Return once the delivery is committed: True when new, False when known already.

        Raises StorageUnavailable when it is not kept; Codat's retry will bring it back.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise StorageUnavailable("too many deliveries are waiting for the database")
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, future))
        if not self._writing:
            self._write_next()
        return await future

    async def close(self) -> None:
        """Wait until all that came in is written, then end the writer."""
        while self._writing:
            await asyncio.sleep(0.01)
        self._thread.shutdown()

    def _write_next(self) -> None:
        batch = self._waiting[:MOST_PER_COMMIT]
        del self._waiting[:MOST_PER_COMMIT]
        self._writing = True
        loop = asyncio.get_running_loop()
        overdue = loop.call_later(KEEP_WITHIN_S, self._overdue, batch)
        deliveries = [delivery for delivery, _ in batch]
        work = loop.run_in_executor(self._thread, write, self._database, deliveries)
        work.add_done_callback(partial(self._written, batch, overdue))

    def _written(
        self,
        batch: Sequence[_Waiting],
        overdue: asyncio.TimerHandle,
        work: "asyncio.Future[tuple[list[_Fate], bool]]",
    ) -> None:
        overdue.cancel()
        self._writing = False
        fates, owes = work.result()
        for (_, future), fate in zip(batch, fates, strict=True):
            _resolve(future, fate)
        if owes:
            self._on_owed()
        if self._waiting:
            self._write_next()

    def _overdue(self, batch: Sequence[_Waiting]) -> None:
        """The database hangs: free everybody who waits. What it keeps after all is no harm."""
        error = StorageUnavailable("the database does not answer")
        for _, future in (*batch, *self._waiting):
            _resolve(future, error)
        self._waiting.clear()


def _resolve(future: "asyncio.Future[bool]", fate: _Fate) -> None:
    if future.done():
        return
    if isinstance(fate, StorageUnavailable):
        future.set_exception(fate)
    else:
        future.set_result(fate)


def write(database: Database, deliveries: Sequence[Delivery]) -> tuple[list[_Fate], bool]:
    """Commit these deliveries together, or one by one where together fails.

    Returns each one's fate, in order (True new, False known, or the error), and whether a fetch
    is owed now. Never raises: a bad event must hurt nobody but itself.
    """
    try:
        kept = _commit(database, deliveries)
    except Exception as error:
        _log.warning("a batch of events could not be kept together", reason=_said(error))
        return _one_by_one(database, deliveries)
    _tell(deliveries)
    return _fates(deliveries, kept.new), kept.owes


def _tell(deliveries: Sequence[Delivery]) -> None:
    """A line per event while it is quiet, a line per commit in a burst."""
    if len(deliveries) > MOST_LINES:
        _log.info("events were kept", count=len(deliveries))
        return
    for delivery in deliveries:
        event = delivery.event
        _log.info(
            "an event was kept",
            kind=event.event,
            event_id=delivery.message_id,
            sync_id=event.sync_id,
            company_id=event.company_id,
        )


def _commit(database: Database, deliveries: Sequence[Delivery]) -> Kept:
    with database.writing() as connection:
        return keep_all(connection, deliveries)


def _fates(deliveries: Sequence[Delivery], new: set[str]) -> list[_Fate]:
    """Of several deliveries of one message in a batch, the first is the new one."""
    unseen = set(new)
    fates: list[_Fate] = []
    for delivery in deliveries:
        fates.append(delivery.message_id in unseen)
        unseen.discard(delivery.message_id)
    return fates


def _one_by_one(database: Database, deliveries: Sequence[Delivery]) -> tuple[list[_Fate], bool]:
    fates: list[_Fate] = []
    owes = False
    failures = 0
    for delivery in deliveries:
        if failures >= AWAY_AFTER:
            fates.append(StorageUnavailable("the database is away"))
            continue
        fate, owed = _alone(database, delivery)
        failures = failures + 1 if isinstance(fate, StorageUnavailable) else 0
        owes |= owed
        fates.append(fate)
    return fates, owes


def _alone(database: Database, delivery: Delivery) -> tuple[_Fate, bool]:
    """Commit one delivery; if only its meaning is refused, keep at least its bytes."""
    try:
        kept = _commit(database, [delivery])
        return delivery.message_id in kept.new, kept.owes
    except StorageRefused as error:
        return _keep_bytes(database, delivery, error), False
    except StorageUnavailable as error:
        return error, False
    except Exception as error:
        _log.exception("an event could not be applied", event_id=delivery.message_id)
        return _keep_bytes(database, delivery, error), False


def _keep_bytes(database: Database, delivery: Delivery, error: Exception) -> _Fate:
    try:
        with database.writing() as connection:
            keep_raw(connection, delivery, f"its meaning could not be stored: {_said(error)}")
    except Exception as worse:
        return StorageUnavailable(_said(worse))
    return True


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
