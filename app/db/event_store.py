"""The inbox: gathers what concurrent requests bring and commits it together.

There is no timer. A batch is whatever came in while the last one was written, and what keeps coming
in right after; so an idle service answers after one commit, and a burst shares each commit's cost.
A request is answered only after the commit that holds its event.

On PostgreSQL a batch goes in two commits at once: while the database carries out one, the other is
made. They share no company, whose rows a commit locks, so neither waits for the other.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import NamedTuple
from zlib import crc32

from sqlalchemy.util import greenlet_spawn

from app import logging as log
from app.db.engine import Database
from app.db.keep import Kept, keep_all, keep_raw
from app.db.slices import first_within
from app.domain.models import Delivery
from app.errors import StorageAway, StorageRefused, StorageUnavailable

MOST_AT_ONCE = 512
LARGE = 2_000_000  # bytes of bodies, after which a batch takes no more: it would be too slow
LANES = 2  # commits at once, where the database has more than one writer
TOO_FEW = 16  # deliveries that are not worth two commits
QUIET_TURNS = 6  # of the event loop; from the socket to the inbox a request takes two or three
GATHER_WITHIN_S = 0.02  # where other work makes those turns long, nobody waits for six of them
MOST_WAITING = 20_000
KEEP_WITHIN_S = 10.0  # Codat stops waiting for our answer after 15 s
LOOK_EVERY_S = 0.5  # how often the deadlines of those who wait are looked at
CLOSE_WITHIN_S = 2.0
MOST_LINES = 4  # log lines per commit
AWAY_AFTER = 2  # failures in a row that mean the database is away, not the event bad

_log = log.get(__name__)
_Fate = bool | StorageUnavailable
_Done = tuple[list[_Fate], bool]


class _Waiting(NamedTuple):
    """A delivery, who waits for its fate, and until when (the loop's clock, seconds)."""

    delivery: Delivery
    future: "asyncio.Future[bool]"
    until: float


class Inbox:
    """Keeps deliveries for one process. Use it from one event loop; `close` when done."""

    def __init__(
        self,
        database: Database,
        *,
        on_owed: Callable[[], None] = lambda: None,
        lanes: int = LANES,
    ) -> None:
        self._database = database if database.is_sqlite else database.in_loop(lanes)
        self._on_owed = on_owed
        self._waiting: list[_Waiting] = []
        self._in_hand: dict[int, list[_Waiting]] = {}
        self._writing = False
        self._looking = False
        self._lanes = 1 if database.is_sqlite else lanes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inbox")  # SQLite's

    async def keep(self, delivery: Delivery) -> bool:
        """Return once the delivery is committed: True when new, False when known already.

        Raises StorageUnavailable when it is not kept within KEEP_WITHIN_S, whatever the database
        does; Codat's retry will bring it back.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise StorageUnavailable("too many deliveries are waiting for the database")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(delivery, loop.create_future(), loop.time() + KEEP_WITHIN_S)
        self._waiting.append(waiting)
        if not self._writing:
            self._begin()
        if not self._looking:
            self._look_later()
        return await waiting.future

    async def close(self) -> None:
        """Wait until all that came in is written, but not for a database that hangs."""
        loop = asyncio.get_running_loop()
        end = loop.time() + CLOSE_WITHIN_S
        while self._writing and loop.time() < end:
            await asyncio.sleep(0.01)
        self._free(self._everybody(), "the service is stopping")
        self._waiting.clear()
        self._thread.shutdown(wait=not self._writing)
        if not self._database.is_sqlite and not self._writing:
            await greenlet_spawn(self._database.close)

    def _everybody(self) -> list[_Waiting]:
        return [*chain(*self._in_hand.values()), *self._waiting]

    def _begin(self) -> None:
        self._writing = True
        loop = asyncio.get_running_loop()
        loop.call_soon(self._gather, loop.time() + GATHER_WITHIN_S, 0, 0)

    def _gather(self, until: float, seen: int, quiet: int) -> None:
        """Let in what keeps coming in, then write: in a burst the first would go all alone."""
        loop = asyncio.get_running_loop()
        there = len(self._waiting)
        quiet = quiet + 1 if there == seen else 0
        if quiet < QUIET_TURNS and there < MOST_AT_ONCE and loop.time() < until:
            loop.call_soon(self._gather, until, there, quiet)
        else:
            self._write()

    def _write(self) -> None:
        batch = _first_of(self._waiting)
        del self._waiting[: len(batch)]
        self._in_hand = _parts(batch, self._lanes)
        self._writing = bool(batch)
        for lane, part in self._in_hand.items():
            deliveries = [waiting.delivery for waiting in part]
            work = self._carry_out(deliveries)
            work.add_done_callback(partial(self._written, lane))

    def _carry_out(self, deliveries: Sequence[Delivery]) -> "asyncio.Future[_Done]":
        """In the loop's own thread, which goes on while PostgreSQL works; SQLite needs another."""
        loop = asyncio.get_running_loop()
        if self._database.is_sqlite:
            return loop.run_in_executor(self._thread, write, self._database, deliveries)
        return loop.create_task(greenlet_spawn(write, self._database, deliveries))

    def _written(self, lane: int, work: "asyncio.Future[_Done]") -> None:
        part = self._in_hand.pop(lane)
        if work.cancelled():
            self._free(part, "the service is stopping")
            return
        fates, owes = work.result()
        for waiting, fate in zip(part, fates, strict=True):
            _resolve(waiting.future, fate)
        if owes:
            self._on_owed()
        if not self._in_hand:
            self._writing = False
            if self._waiting:
                self._begin()

    def _look_later(self) -> None:
        self._looking = True
        asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        """Free everybody whose time is over. What the database keeps after all is no harm."""
        self._looking = False
        now = asyncio.get_running_loop().time()
        everybody = self._everybody()
        late = [each for each in everybody if each.until <= now]
        self._free(late, "the database does not answer")
        self._waiting = [each for each in self._waiting if each.until > now]
        if everybody:
            self._look_later()

    def _free(self, late: Sequence[_Waiting], reason: str) -> None:
        still = [each for each in late if not each.future.done()]
        if still:
            _log.warning("deliveries were not kept in time", count=len(still), reason=reason)
        for waiting in still:
            _resolve(waiting.future, StorageUnavailable(reason))


def _first_of(waiting: Sequence[_Waiting]) -> list[_Waiting]:
    """Who is next. A commit of many long bodies would outlast the patience of all of them."""
    return first_within(waiting[:MOST_AT_ONCE], LARGE, lambda each: len(each.delivery.body))


def _parts(batch: Sequence[_Waiting], lanes: int) -> dict[int, list[_Waiting]]:
    """The batch by lane. A company's deliveries are all in one."""
    if len(batch) < TOO_FEW:
        lanes = 1
    parts: dict[int, list[_Waiting]] = {}
    for waiting in batch:
        company_id = waiting.delivery.event.company_id or ""
        parts.setdefault(crc32(company_id.encode()) % lanes, []).append(waiting)
    return parts


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
    is owed now. Never raises: a bad event must hurt nobody but itself. A database that is away
    or locked is not asked again for each of them: they would wait in vain.
    """
    try:
        kept = _commit(database, deliveries)
    except StorageAway as error:
        _log.warning("deliveries were not kept", count=len(deliveries), reason=_said(error))
        return [error] * len(deliveries), False
    except Exception as error:
        _log.warning("a batch of events could not be kept together", reason=_said(error))
        return _one_by_one(database, deliveries)
    fates = _fates(deliveries, kept.new)
    _tell(deliveries, fates)
    return fates, kept.owes


def _tell(deliveries: Sequence[Delivery], fates: Sequence[_Fate]) -> None:
    """A line per event while it is quiet, a line per commit in a burst."""
    if len(deliveries) > MOST_LINES:
        new = fates.count(True)
        _log.info("events were kept", count=new, came_again=len(fates) - new)
        return
    for delivery, is_new in zip(deliveries, fates, strict=True):
        event = delivery.event
        _log.info(
            "an event was kept" if is_new else "an event came again",
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
