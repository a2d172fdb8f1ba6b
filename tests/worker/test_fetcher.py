"""A fetch, from the claim to the recorded result, whatever Codat answers."""

from datetime import timedelta

import pytest

from app.db.engine import Database
from app.db.tables import syncs
from app.domain.models import Transaction
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable
from app.worker.job_pool import LEASE
from tests.factories import (
    COMPLETED,
    FAILED,
    after,
    count_rows,
    deliver,
    sync_row,
    timeline,
    transaction_rows,
)
from tests.worker.fakes import (
    FEED_ERROR,
    WRITTEN,
    Clock,
    FakeCodat,
    claim_jobs,
    fetch,
    job_of,
    visible,
)


def test_a_failed_sync_gets_its_code_its_messages_and_every_error(database: Database) -> None:
    deliver(database, "m1")
    assert fetch(database, FakeCodat()) == "done"
    row = sync_row(database)
    assert (row["status_code"], row["error_message"], row["exception_message"]) == (
        5130,
        "error text",
        "exception text",
    )
    assert (row["finished_at"], row["data_pushed"]) == (after(minutes=3), False)
    first, second = transaction_rows(database)
    assert (first["message"], first["failed"], second["failed"]) == (FEED_ERROR, True, False)
    assert first["correlation_id"] == "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004"
    assert visible(database) == ("failed", "partly_failed", "fetched")
    assert timeline(database)[-1] == (
        "fetch",
        "Codat status 5130 (data write error): 1 of 2 items failed",
    )


@pytest.mark.parametrize(
    ("event_type", "code", "transactions", "expected"),
    [
        (COMPLETED, 2000, WRITTEN, ("completed", "all_written", "not_needed")),
        (COMPLETED, 5130, FakeCodat().transactions, ("failed", "partly_failed", "fetched")),
        (FAILED, 2040, (), ("completed", "nothing_to_write", "not_needed")),
    ],
)
def test_codats_own_status_decides(
    database: Database,
    event_type: str,
    code: int,
    transactions: tuple[Transaction, ...],
    expected: tuple[str, str, str],
) -> None:
    """Events only say that a sync has ended."""
    deliver(database, "m1", event_type=event_type)
    codat = FakeCodat(code=code, transactions=transactions)
    fetch(database, codat)
    assert codat.calls == ["status c1/s1", "list c1/s1"]
    assert visible(database) == expected


def test_identical_rows_are_all_stored_and_a_new_list_replaces_the_old(database: Database) -> None:
    row = Transaction("t1", "PushError", FEED_ERROR, "bankfeeds")
    deliver(database, "m1")
    fetch(database, FakeCodat(transactions=(row, row)))
    assert [row["position"] for row in transaction_rows(database)] == [0, 1]
    assert sync_row(database)["total"] == 2
    deliver(database, "m2")
    fetch(database, FakeCodat(transactions=WRITTEN, code=2000))
    assert [row["transaction_id"] for row in transaction_rows(database)] == ["t"]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_a_final_refusal_stops_immediately(database: Database, status: int) -> None:
    """A Portal example's sync does not exist; a wrong key does not become right."""
    deliver(database, "m1")
    refused = CodatRefused(f"Codat answered {status}", status=status)
    assert fetch(database, FakeCodat(status_error=refused)) == "dead"
    assert job_of(database, "last_error") == (f"Codat answered {status}",)
    assert visible(database) == ("failed", "failed", "given_up")
    assert timeline(database)[-1] == ("fetch", f"Stopped retrying: Codat answered {status}")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CodatRefused("Codat answered 404", status=404), "given_up"),
        (CodatUnavailable("Codat answered 503", status=503), "waiting"),
    ],
)
def test_the_status_is_recorded_without_the_list(
    database: Database, error: CodatError, expected: str
) -> None:
    deliver(database, "m1")
    fetch(database, FakeCodat(list_error=error))
    assert sync_row(database)["status_code"] == 5130
    assert visible(database) == ("failed", "failed", expected)
    assert job_of(database, "last_error") == (str(error),)


def test_an_unexpected_error_is_retried(database: Database) -> None:
    """No lease has to expire first, and the reason is visible."""
    deliver(database, "m1")
    broken = FakeCodat(meanwhile=lambda: {}["nothing"])  # type: ignore[index]
    assert fetch(database, broken) == "retry"
    assert job_of(database, "last_error") == ("internal error (KeyError)",)


def test_an_outage_is_retried_with_growing_pauses(database: Database) -> None:
    """The next attempt and the reason are visible meanwhile; the last attempt stops."""
    deliver(database, "m1")
    clock = Clock()
    codat = FakeCodat(status_error=CodatUnavailable("Cannot connect to Codat (ConnectError)"))
    pauses = []
    for _ in range(3):
        assert fetch(database, codat, clock=clock) == "retry"
        (run_at,) = job_of(database, "run_at")
        pauses.append(run_at - clock.now)
        clock.now = run_at
    assert pauses == [timedelta(seconds=s) for s in (2, 6, 18)]
    assert visible(database) == ("failed", "failed", "waiting")
    assert timeline(database)[1] == (
        "fetch",
        "Cannot connect to Codat (ConnectError). Next attempt 2026-01-01T09:00:02Z",
    )
    assert fetch(database, codat, clock=clock, max_attempts=4) == "dead"
    assert visible(database)[2] == "given_up"


def test_a_fetch_that_kills_its_workers_ends_up_dead(database: Database) -> None:
    """Its attempts never end, but the claims are counted."""
    deliver(database, "m1")
    clock = Clock()
    for _ in range(3):
        claim_jobs(database, now=clock.now)
        clock.now += LEASE + timedelta(seconds=1)
    codat = FakeCodat()
    assert fetch(database, codat, max_attempts=3, clock=clock) == "dead"
    assert codat.calls == []
    assert visible(database)[2] == "given_up"


def test_a_rate_limit_pauses_all_fetches_and_costs_no_attempt(database: Database) -> None:
    """No replica calls again before Codat's time; the timeline says when."""
    deliver(database, "m1")
    limited = CodatRateLimited("Codat answered 429", status=429, retry_after=timedelta(seconds=40))
    assert fetch(database, FakeCodat(status_error=limited)) == "paused"
    deliver(database, "m9", sync_id="s9")
    assert claim_jobs(database, now=after(seconds=39), limit=9) == []
    claims = claim_jobs(database, now=after(seconds=40), limit=9)
    assert [claim.attempts for claim in claims] == [1, 1]
    assert timeline(database)[-1] == (
        "fetch",
        "Codat answered 429. Next attempt 2026-01-01T09:00:40Z",
    )


def test_a_call_that_the_pause_prevents_does_not_extend_it(database: Database) -> None:
    """Otherwise a reset that comes in between would be undone."""
    deliver(database, "m1")
    paused = CodatRateLimited("all calls pause", retry_after=timedelta(hours=9))
    assert fetch(database, FakeCodat(status_error=paused)) == "paused"
    assert [claim.attempts for claim in claim_jobs(database, now=after(seconds=1))] == [1]


@pytest.mark.parametrize("incomplete", [{"expected": 134}, {"steady": False}])
def test_an_incomplete_list_is_stored_and_read_again(
    database: Database, incomplete: dict[str, int]
) -> None:
    """Codat's documented sample counts 134 rows and lists two; or the list changed meanwhile."""
    deliver(database, "m1")
    clock = Clock()
    for _ in range(2):
        assert fetch(database, FakeCodat(**incomplete), clock=clock) == "retry"  # type: ignore[arg-type]
        assert (visible(database)[2], sync_row(database)["total"]) == ("incomplete", 2)
        clock.now += timedelta(minutes=5)
    assert fetch(database, FakeCodat(), clock=clock) == "done"
    assert visible(database)[2] == "fetched"


def test_a_status_that_lags_behind_its_webhook_is_read_again(database: Database) -> None:
    """Codat may still report in progress when its webhook reported failed."""
    deliver(database, "m1")
    codat = FakeCodat(code=1000)
    assert fetch(database, codat) == "retry"
    assert codat.calls == ["status c1/s1"]
    assert visible(database) == ("failed", "failed", "waiting")


def test_an_event_that_arrives_during_the_fetch_makes_it_due_again(database: Database) -> None:
    """The answer may be older than the event."""
    deliver(database, "m1", event_type=COMPLETED)
    codat = FakeCodat(
        code=2000,
        transactions=WRITTEN,
        meanwhile=lambda: deliver(database, "m2", event_type=FAILED, at=after(seconds=1)),
    )
    fetch(database, codat)
    assert sync_row(database)["state"] == "failed"
    fetch(database, FakeCodat(code=2000, transactions=WRITTEN))
    assert visible(database) == ("completed", "all_written", "not_needed")


@pytest.mark.parametrize(
    "error", [CodatRefused("404", status=404), CodatUnavailable("503", status=503)]
)
@pytest.mark.parametrize("max_attempts", [1, 12])
def test_an_event_that_arrives_during_a_failed_fetch_restarts_its_attempts(
    database: Database, error: CodatError, max_attempts: int
) -> None:
    """Both generations of events arrive within a moment, and Codat may know the sync only then."""
    deliver(database, "m1")
    codat = FakeCodat(status_error=error, meanwhile=lambda: deliver(database, "m2"))
    fetch(database, codat, max_attempts=max_attempts)
    assert [claim.attempts for claim in claim_jobs(database)] == [1]


def test_a_worker_that_lost_its_lease_records_nothing(database: Database) -> None:
    deliver(database, "m1")
    clock = Clock()

    def let_lease_expire() -> None:
        clock.now += LEASE + timedelta(seconds=1)
        claim_jobs(database, now=clock.now)

    for codat in (
        FakeCodat(meanwhile=let_lease_expire),
        FakeCodat(status_error=CodatUnavailable("503"), meanwhile=let_lease_expire),
    ):
        before = timeline(database)
        clock.now += LEASE + timedelta(seconds=1)
        assert fetch(database, codat, clock=clock) == "lost"
        assert sync_row(database)["status_code"] is None
        assert transaction_rows(database) == []
        assert timeline(database) == before


def test_a_fetch_whose_sync_is_gone_is_removed(database: Database) -> None:
    """It would be claimed again each time its lease ends."""
    deliver(database, "m1")
    with database.writing() as connection:
        connection.execute(syncs.delete())
    codat = FakeCodat()
    assert fetch(database, codat) == "lost"
    assert (codat.calls, count_rows(database, "jobs")) == ([], 0)


def test_the_timeline_says_what_the_webhook_had_listed(database: Database) -> None:
    deliver(database, "m1", transactions=[{"id": "t9", "status": "Completed"}])
    fetch(database, FakeCodat())
    assert timeline(database)[-1][1].endswith(
        "1 of 2 items failed (the webhook listed: 0 of 1 items failed)"
    )
    assert sync_row(database)["transactions_source"] == "codat"


def test_a_worker_whose_clock_is_behind_loses_no_answer(database: Database) -> None:
    """Hosts' clocks differ by seconds; the holder of the claim has the newer answer."""
    ahead, behind = Clock(after(seconds=30)), Clock()
    written = FakeCodat(code=2000, transactions=WRITTEN)
    deliver(database, "m1", event_type=COMPLETED)
    fetch(database, written, clock=ahead)
    deliver(database, "m2", event_type=FAILED)
    fetch(database, written, clock=behind)
    assert visible(database) == ("completed", "all_written", "not_needed")
    deliver(database, "m3", event_type=FAILED)
    fetch(database, FakeCodat(), clock=behind)
    assert visible(database) == ("failed", "partly_failed", "fetched")
