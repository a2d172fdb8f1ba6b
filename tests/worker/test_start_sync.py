"""Starting a sync: one at a time, stored immediately, never twice because an answer was lost."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from app.codat.client import CodatClient
from app.db import rate_limit, reconciliation, start_lock
from app.db.engine import Database
from app.domain.models import SyncStatus
from app.errors import (
    BadRequest,
    CodatError,
    CodatRateLimited,
    CodatRefused,
    CodatUnavailable,
    Conflict,
    DatabaseUnavailable,
    NotFound,
    ServiceError,
    UpstreamRefused,
)
from app.worker.start_sync import SyncStarter
from tests.factories import (
    T0,
    after,
    count_rows,
    fetch_job,
    sync_row,
    timeline,
)
from tests.worker.fakes import Clock, FakeLists, reconcile, status


@dataclass
class FakeCodat(CodatClient):
    """Starts syncs; the same key starts one only once."""

    listed: list[SyncStatus] = field(default_factory=list)
    list_error: CodatError | None = None
    error: CodatError | None = None
    slow_s: float = 0
    keys: dict[str, str] = field(default_factory=dict)
    calls: int = 0

    async def list_statuses(
        self, company_id: str, *, within_s: float = 600
    ) -> AsyncGenerator[list[SyncStatus], None]:
        if self.list_error:
            raise self.list_error
        yield self.listed

    async def initiate_sync(
        self, company_id: str, dataset_ids: Sequence[str], *, idempotency_key: str
    ) -> str:
        self.calls += 1
        sync_id = self.keys.setdefault(idempotency_key, f"s{len(self.keys) + 1}")
        await asyncio.sleep(self.slow_s)
        if self.error:
            raise self.error
        return sync_id


def start(
    database: Database,
    codat: FakeCodat,
    datasets: Sequence[str] = ("d1",),
    actor: str | None = None,
    **passed: float,
) -> str:
    clock = Clock(after(**passed))
    return asyncio.run(SyncStarter(database, codat, clock).start("c1", datasets, actor=actor))


def test_a_started_sync_is_stored_immediately(database: Database) -> None:
    """Before any webhook, with its company and a timeline entry."""
    assert start(database, FakeCodat(), ["d1", "d2"], "billing") == "s1"
    row = sync_row(database)
    assert (row["state"], row["outcome"], row["started_at"]) == ("started", "in_progress", T0)
    assert timeline(database) == [("initiated", "2 datasets, requested by billing")]
    assert (count_rows(database, "companies"), count_rows(database, "start_locks")) == (1, 0)


def test_its_end_is_found_without_any_webhook(database: Database) -> None:
    """By reconciliation, or where that is off as a stuck sync."""
    start(database, FakeCodat())
    assert fetch_job(database) is None
    assert reconcile(database, FakeLists({"c1": [status("s1")]})).differences == {"disagrees": 1}
    start(database, FakeCodat(keys={"other": "s0"}), hours=1)
    with database.writing() as connection:
        assert (
            reconciliation.enqueue_stuck(connection, before=after(hours=2), now=after(hours=3)) == 1
        )


@pytest.mark.parametrize("code", [1000, 1010])
def test_none_is_started_while_codat_lists_one_in_progress(database: Database, code: int) -> None:
    """Whether or not a webhook reported it."""
    codat = FakeCodat([status("old"), status("busy", code)])
    with pytest.raises(Conflict, match="busy"):
        start(database, codat)
    assert codat.calls == 0


def test_a_start_is_refused_while_a_new_sync_is_in_progress_here(database: Database) -> None:
    """One that Codat does not list yet; after some minutes only Codat's list counts."""
    codat = FakeCodat()
    assert start(database, codat) == "s1"
    with pytest.raises(Conflict, match="s1"):
        start(database, codat)
    codat.listed = [status("s1")]
    assert start(database, codat) == "s2"
    assert start(database, codat, minutes=11) == "s3"


def test_two_concurrent_callers_start_one_sync(database: Database) -> None:
    """A double click, or two replicas."""
    codat = FakeCodat(slow_s=0.2)

    async def both() -> list[str | BaseException]:
        starters = [SyncStarter(database, codat, Clock()) for _ in range(2)]
        starts = [starter.start("c1", ["d1"], actor=None) for starter in starters]
        return await asyncio.gather(*starts, return_exceptions=True)

    results = asyncio.run(both())
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "str"]
    assert codat.calls == 1


@pytest.mark.parametrize(
    ("datasets", "minutes", "keys"), [(["d1"], 5, 1), (["d2"], 5, 2), (["d1"], 95, 2)]
)
def test_after_a_lost_answer_the_same_request_has_the_same_key(
    database: Database, datasets: list[str], minutes: float, keys: int
) -> None:
    """As long as Codat remembers it; another request must not get the earlier sync."""
    codat = FakeCodat(error=CodatUnavailable("timed out"))
    with pytest.raises(CodatUnavailable):
        start(database, codat)
    codat.error = None
    start(database, codat, datasets, minutes=minutes)
    assert len(codat.keys) == keys


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CodatRefused("no", status=404), NotFound),
        (CodatRefused("dots", status=None), NotFound),
        (CodatRefused("no", status=401), UpstreamRefused),
        (CodatRefused("no", status=403), UpstreamRefused),
        (CodatRefused("plan", status=402), UpstreamRefused),
        (CodatRefused("teapot", status=418), UpstreamRefused),
        (CodatRefused("no", status=400), BadRequest),
        (CodatRefused("no", status=422), BadRequest),
        (CodatUnavailable("busy", status=409), Conflict),
        (CodatUnavailable("down"), CodatUnavailable),
        (CodatRateLimited("paused"), CodatRateLimited),
    ],
)
def test_codats_errors_are_translated_and_leave_nothing_behind(
    database: Database, error: CodatError, expected: type[ServiceError]
) -> None:
    codat = FakeCodat(error=error)
    with pytest.raises(expected):
        start(database, codat)
    assert count_rows(database, "syncs") == 0
    codat.error = None
    assert start(database, codat).startswith("s")


def test_a_429_pauses_all_calls(database: Database) -> None:
    limited = CodatRateLimited("wait", status=429, retry_after=timedelta(minutes=5))
    with pytest.raises(CodatRateLimited):
        start(database, FakeCodat(list_error=limited))
    with database.reading() as connection:
        assert rate_limit.paused_until(connection, T0) == after(minutes=5)


def test_a_sync_that_codat_started_is_never_answered_as_failed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database went down at that moment; reconciliation will find the sync."""

    def fail(*_args: Any, **_options: Any) -> None:
        raise DatabaseUnavailable("down")

    monkeypatch.setattr(start_lock, "record_started", fail)
    monkeypatch.setattr(start_lock, "release", fail)
    assert start(database, FakeCodat()) == "s1"
