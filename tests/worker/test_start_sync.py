"""Starting a sync: one at a time, known at once, and never twice because an answer was lost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from app.db import rate_limit as gate
from app.db import reconciliation as compare
from app.db import start_lock as starting
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.tables import companies, notes, starts, syncs
from app.domain.models import CodatStatus
from app.errors import (
    BadRequest,
    CodatError,
    CodatRateLimited,
    CodatRefused,
    CodatUnavailable,
    Conflicting,
    Declined,
    NotKnown,
    ServiceError,
    StorageUnavailable,
)
from app.worker.start_sync import TURN, Starter
from tests.reports import FAILED, STARTED, T0, after, delivery, fetch_row, sync_row
from tests.worker.tasks.test_reconcile import Lister, reconcile, status
from tests.worker.test_fetcher import Clock


@dataclass
class Codat:
    """Codat that starts syncs; the same key starts one once."""

    listed: list[CodatStatus] = field(default_factory=list)
    list_error: CodatError | None = None
    error: CodatError | None = None
    slow: float = 0
    keys: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    async def list_statuses(self, company_id: str) -> list[CodatStatus]:
        if self.list_error:
            raise self.list_error
        return self.listed

    async def initiate_sync(
        self, company_id: str, dataset_ids: Sequence[str], *, idempotency_key: str
    ) -> str:
        self.asked += 1
        sync_id = self.keys.setdefault(idempotency_key, f"s{len(self.keys) + 1}")
        await asyncio.sleep(self.slow)
        if self.error:
            raise self.error
        return sync_id


def start(
    database: Database, codat: Codat, datasets: Sequence[str] = ("d1",), clock: Clock | None = None
) -> str:
    return asyncio.run(Starter(database, codat, clock or Clock()).start("c1", datasets))


def test_a_started_sync_is_known_at_once_and_says_so(database: Database) -> None:
    """Before any webhook, with its company and a note."""
    assert start(database, Codat(), ["d1", "d2"]) == "s1"
    row = sync_row(database)
    assert (row["state"], row["outcome"], row["started_at"]) == ("started", "in_progress", T0)
    with database.reading() as connection:
        assert connection.execute(select(companies.c.company_id)).scalar_one() == "c1"
        told = connection.execute(select(notes.c.kind, notes.c.reason)).one()
        assert connection.execute(select(func.count()).select_from(starts)).scalar_one() == 0
    assert tuple(told) == ("initiated", "started here, with 2 datasets")


def test_its_end_is_found_although_no_webhook_ever_comes(database: Database) -> None:
    """By reconciliation, and where that is off by the question about what is stuck."""
    start(database, Codat())
    assert fetch_row(database) is None
    assert reconcile(database, Lister({"c1": [status("s1")]})).found == {"disagrees": 1}
    start(database, Codat(keys={"other": "s0"}), clock=at(hours=1))
    with database.writing() as connection:
        owed = compare.owe_stuck(connection, before=after(hours=2), now=after(hours=3))
    assert owed == 1


def at(**passed: float) -> Clock:
    clock = Clock()
    clock.now = after(**passed)
    return clock


def test_a_webhook_that_was_faster_loses_nothing(database: Database) -> None:
    """Its sync stays as it was told; only the note is added."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", FAILED)])
    before = dict(sync_row(database))
    assert start(database, Codat()) == "s1"
    assert dict(sync_row(database)) == before


@pytest.mark.parametrize("code", [1000, 1010])
def test_while_codat_lists_one_in_progress_none_is_started(database: Database, code: int) -> None:
    """Whoever started it, and whether or not a webhook told us."""
    codat = Codat([status("old"), status("busy", code)])
    with pytest.raises(Conflicting, match="busy"):
        start(database, codat)
    assert codat.asked == 0


def test_a_second_start_is_refused_until_the_first_has_ended(database: Database) -> None:
    """Also while Codat does not list the first one yet."""
    codat = Codat()
    assert start(database, codat) == "s1"
    with pytest.raises(Conflicting, match="s1"):
        start(database, codat)
    codat.listed = [status("s1")]
    assert start(database, codat) == "s2"


def test_a_start_whose_end_nobody_told_does_not_block_for_ever(database: Database) -> None:
    """Codat's list is believed: ours says started, its does not have it any more."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", STARTED, sync_id="lost")])
    with pytest.raises(Conflicting):
        start(database, Codat())
    assert start(database, Codat(), clock=at(minutes=11)) == "s1"


def test_two_callers_at_once_start_one_sync(database: Database) -> None:
    """A double click, or two replicas."""
    codat = Codat(slow=0.2)

    async def both() -> list[str | BaseException]:
        ours = [Starter(database, codat, Clock()) for _ in range(2)]
        asked = [each.start("c1", ["d1"]) for each in ours]
        return await asyncio.gather(*asked, return_exceptions=True)

    told = asyncio.run(both())
    assert sorted(type(each).__name__ for each in told) == ["Conflicting", "str"]
    assert codat.asked == 1


def test_when_the_answer_was_lost_asking_again_starts_nothing_twice(database: Database) -> None:
    """The same datasets get the same idempotency key, as long as Codat remembers it."""
    codat = Codat(error=CodatUnavailable("timed out"))
    with pytest.raises(CodatUnavailable):
        start(database, codat)
    codat.error = None
    assert start(database, codat, clock=at(minutes=5)) == "s1"
    assert len(codat.keys) == 1


@pytest.mark.parametrize(("datasets", "minutes"), [(["d2"], 5), (["d1"], 95)])
def test_another_wish_or_a_later_one_gets_a_key_of_its_own(
    database: Database, datasets: list[str], minutes: float
) -> None:
    """Otherwise Codat would answer with the sync of before."""
    codat = Codat(error=CodatUnavailable("timed out"))
    with pytest.raises(CodatUnavailable):
        start(database, codat)
    codat.error = None
    start(database, codat, datasets, at(minutes=minutes))
    assert len(codat.keys) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CodatRefused("no", status=404), NotKnown),
        (CodatRefused("dots", status=None), NotKnown),
        (CodatRefused("no", status=401), Declined),
        (CodatRefused("no", status=403), Declined),
        (CodatRefused("plan", status=402), Declined),
        (CodatRefused("teapot", status=418), Declined),
        (CodatRefused("no", status=400), BadRequest),
        (CodatRefused("no", status=422), BadRequest),
        (CodatUnavailable("busy", status=409), Conflicting),
        (CodatUnavailable("away"), CodatUnavailable),
        (CodatRateLimited("resting"), CodatRateLimited),
    ],
)
def test_each_refusal_of_codats_has_a_plain_name_and_leaves_nothing_behind(
    database: Database, error: CodatError, kind: type[ServiceError]
) -> None:
    """And the turn is free again."""
    codat = Codat(error=error)
    with pytest.raises(kind):
        start(database, codat)
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(syncs)).scalar_one() == 0
    codat.error = None
    assert start(database, codat).startswith("s")


def test_a_429_closes_the_gate_for_everybody(database: Database) -> None:
    """As it does when a fetch meets it."""
    limited = CodatRateLimited("wait", status=429, retry_after=timedelta(minutes=5))
    with pytest.raises(CodatRateLimited):
        start(database, Codat(list_error=limited))
    with database.reading() as connection:
        assert gate.closed_until(connection, T0) == after(minutes=5)


def test_a_caller_that_died_in_the_middle_blocks_only_for_a_while(database: Database) -> None:
    """kill -9 between the turn and its end."""
    with database.writing() as connection:
        turn = starting.take_turn(connection, "c1", "w", now=T0, until=T0 + TURN)
        assert turn
        assert starting.take_turn(connection, "c1", "w", now=T0, until=T0 + TURN) is None
        again = starting.take_turn(connection, "c1", "w", now=T0 + TURN, until=T0 + 2 * TURN)
        assert again == turn


def test_a_sync_that_codat_started_is_never_answered_as_failed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our database went away in that moment; reconciliation finds the sync."""

    def away(*_: object) -> None:
        raise StorageUnavailable("away")

    monkeypatch.setattr(starting, "keep_started", away)
    monkeypatch.setattr(starting, "end_turn", lambda *_, **__: away())
    assert start(database, Codat()) == "s1"
