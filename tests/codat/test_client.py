"""The Codat client: every documented answer, every error, and pages that misbehave."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from app.codat import client as client_module
from app.codat.client import CodatClient, authorization
from app.codat.rate_limiter import CallLimits
from app.codat.responses import TransactionList
from app.domain.models import SyncStatus, Transaction
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable

SAMPLES = Path(__file__).parents[1] / "samples" / "codat"
INDEX = json.loads((SAMPLES / "index.json").read_text())["files"]
ERRORS = [entry for entry in INDEX if entry["kind"] == "api-error"]
KEY = "the-raw-key-nobody-may-see"
T = TypeVar("T")
Answer = Callable[[httpx.Request], httpx.Response]


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


def call(answer: Answer, method: Callable[[CodatClient], Awaitable[T]], **options: Any) -> T:
    async def run() -> T:
        transport = httpx.MockTransport(answer)
        async with CodatClient("https://codat.test", KEY, transport=transport, **options) as codat:
            return await method(codat)

    return asyncio.run(run())


def always(status: int, body: Any = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request: httpx.Response(status, json=body, headers=named)


def status_of(codat: CodatClient) -> Awaitable[SyncStatus]:
    return codat.get_status("c", "s")


def listing(page_size: int = 10) -> Callable[[CodatClient], Awaitable[TransactionList]]:
    return lambda codat: codat.list_transactions("c", "s", page_size=page_size)


def is_complete(found: TransactionList) -> bool:
    """These are all rows by Codat's count, or all it returned without a count."""
    return found.steady and found.expected in (None, len(found.transactions))


def error_of(answer: Answer) -> CodatError:
    with pytest.raises(CodatError) as caught:
        call(answer, status_of)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def statuses_of(company_id: str) -> Callable[[CodatClient], Awaitable[list[SyncStatus]]]:
    """Reads the list of a company's syncs, in all its parts."""

    async def read(codat: CodatClient) -> list[SyncStatus]:
        return [status async for part in codat.list_statuses(company_id) for status in part]

    return read


def test_the_documented_statuses_are_read() -> None:
    """Code, both messages, a time with seven digits; empty messages are None."""
    failed, written = (
        call(always(200, body), partial(CodatClient.get_status, **ids))
        for body in map(sample, ("a02-sync-status-failed.json", "a01-sync-status-success.json"))
        for ids in [{"company_id": body["companyId"], "sync_id": body["syncId"]}]
    )
    assert (failed.status_code, failed.status, failed.data_pushed) == (5130, "PushError", False)
    assert "1f6ab1bc-58c8-4c1a-a654-86464b065f69" in (failed.error_message or "")
    assert failed.sync_utc == datetime(2022, 8, 3, 1, 11, 33, 627933, UTC)
    assert (written.status_code, written.error_message) == (2000, None)


def test_the_documented_lists_are_read() -> None:

    async def companies(codat: CodatClient) -> list[Any]:
        return [company async for company in codat.list_companies()]

    rows = sample("a07-list-statuses.json")
    mine = {"companyId": "c"}  # Codat's example mixes companies
    statuses = call(always(200, [row | mine for row in rows]), statuses_of("c"))
    assert [status.status_code for status in statuses] == [row["syncStatusCode"] for row in rows]
    company = call(always(200, sample("a14-companies-page.json")), companies)[0]
    assert (company.name, company.connections[0].platform_name) == ("Technicalium", "Pandle")
    answer = always(200, sample("a17-webhook-consumers.json"))
    endpoints = call(answer, lambda codat: codat.list_consumers())
    assert [(endpoint.disabled, endpoint.event_types) for endpoint in endpoints] == [
        (False, ("DataSyncCompleted",)),
        (True, ("DatasetDataChanged",)),
    ]


def test_the_documented_failed_list_ends_early_without_losing_rows() -> None:
    """134 counted, two identical rows listed: no endless loop, nothing lost, nothing added."""
    answers = [sample("a04-transactions-failure.json"), sample("a12-transactions-empty.json")]
    answers[1]["totalResults"] = 134
    found = call(
        lambda request: httpx.Response(200, json=answers[int(request.url.params["page"]) - 1]),
        listing(100),
    )
    assert (len(found.transactions), found.expected, found.steady) == (2, 134, False)
    assert found.transactions[0] == found.transactions[1]
    assert found.transactions[0].status == "PushError"


def test_an_unknown_enum_value_is_stored_as_it_is() -> None:
    """Codat's own success sample has an integration type outside its own enum."""
    page = sample("a03-transactions-success.json") | {"totalResults": 2}
    found = call(always(200, page), listing(100))
    assert [row.integration_type for row in found.transactions] == ["bankfeeds", "expense"]


@dataclass
class Pages:
    """A list in pages: the ids on a page of some size, and Codat's count on that page."""

    ids: Callable[[int, int], Sequence[str]]
    total: Callable[[int], object]
    page_size: int | None = None
    requested: list[int] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        number, size = (int(request.url.params[name]) for name in ("page", "pageSize"))
        self.requested.append(number)
        assert request.url.host == "codat.test"
        body = {
            "results": [{"transactionId": row} for row in self.ids(number, size)],
            "pageSize": self.page_size or size,
            "totalResults": self.total(number),
            "_links": {"next": {"href": "https://evil.test/"}},
        }
        return httpx.Response(200, json=body)


def full(rows: Callable[[int], int]) -> Callable[[int, int], list[str]]:
    """Different rows, so many on each page."""
    return lambda number, _size: [f"{number}-{n}" for n in range(rows(number))]


@pytest.mark.parametrize(
    ("total", "rows", "count", "steady"),
    [
        (lambda _: 0, lambda _: 0, 0, True),
        (lambda _: 7, lambda _: 7, 7, True),
        (lambda _: 10, lambda _: 10, 10, True),
        (lambda _: 25, lambda p: 10 if p < 3 else 5, 25, True),
        (lambda p: 25 + (p > 1), lambda p: 10 if p < 3 else 6, 26, False),
        (lambda p: 25 if p == 1 else 12, lambda p: 10 if p == 1 else 2, 12, False),
        (lambda _: 999, lambda p: 10 if p < 3 else 0, 20, True),
    ],
    ids=["empty", "short", "exact", "several", "growing", "shrinking", "cut off"],
)
def test_pages_are_requested_by_number(
    total: Callable[[int], int], rows: Callable[[int], int], count: int, steady: bool
) -> None:
    found = call(Pages(full(rows), total), listing())
    assert (len(found.transactions), found.steady) == (count, steady)


@pytest.mark.parametrize(
    ("shown", "steady"),
    [(["ab", "cd", "e"], True), (["aa", "cd", "e"], True), (["a", "cd", "ef"], False)],
    ids=["unchanged", "a row twice on one page", "a short page within"],
)
def test_a_changed_list_is_detected_though_its_count_is_right(
    shown: list[str], steady: bool
) -> None:
    """A short page and one row too many compensate each other."""
    found = call(Pages(lambda number, _: shown[number - 1], lambda _: 5), listing(2))
    assert (len(found.transactions), found.expected, found.steady) == (5, 5, steady)


@pytest.mark.parametrize(
    ("rows", "shifted", "steady"),
    [
        ("abcaefg", (), True),
        ("abcdefg", ((2, 3),), True),
        ("abcdefg", ((2, 3), (2, 2)), False),
        ("abcdefg", ((2, 3), (3, 2)), False),
    ],
    ids=["rows do repeat", "shifted once", "shifted both times", "elsewhere the second time"],
)
def test_a_row_on_two_pages_is_checked_with_another_page_size(
    rows: str, shifted: tuple[tuple[int, int], ...], steady: bool
) -> None:
    """Two equal lists are right; pages that shift make two different ones."""

    def ids(number: int, size: int) -> str:
        start = (number - 1) * size - ((number, size) in shifted)
        return rows[start : start + size]

    found = call(Pages(ids, lambda _: len(rows)), listing(3))
    assert found.steady is steady
    if steady:
        assert [row.transaction_id for row in found.transactions] == list(rows)


def test_pages_that_codat_makes_smaller_are_all_read_and_an_endless_list_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Codat names three limits of the page size; a growing total occupies no worker for long."""
    found = call(Pages(full(lambda _: 3), lambda _: 9, page_size=3), listing(100))
    assert (len(found.transactions), found.steady) == (9, True)
    monkeypatch.setattr(client_module, "MAX_PAGES", 5)
    found = call(Pages(full(lambda _: 10), lambda number: 1000 * number), listing())
    assert (len(found.transactions), found.steady) == (50, False)


@pytest.mark.parametrize("total", [None, -1, "many", 10**9])
def test_without_a_usable_count_the_list_ends_at_a_short_page(total: object) -> None:
    """A full page alone is never the whole list, and nonsense costs few calls."""
    pages = Pages(full(lambda number: 10 if number < 3 else 4), lambda _: total)
    found = call(pages, listing())
    assert len(found.transactions) >= 24
    assert is_complete(found) is (total != 10**9)
    assert len(pages.requested) <= 4
    # a server that ignores the page number: nothing more to get, and nothing is certain
    repeated = Pages(lambda _number, size: "abcdefghij"[:size], lambda _: total)
    assert not is_complete(call(repeated, listing()))
    assert repeated.requested[:2] == [1, 2]
    assert len(repeated.requested) <= 4


class SlowPages:
    """A list of five pages whose answers take time, except the first."""

    def __init__(self, pause_s: float = 0.01) -> None:
        self.pause_s = pause_s
        self.under_way: set[int] = set()
        self.most = 0
        self.cancelled: list[int] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page"])
        self.under_way.add(number)
        self.most = max(self.most, len(self.under_way))
        try:
            await asyncio.sleep(self.pause_s if number > 1 else 0)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        self.under_way.remove(number)
        rows = [{"transactionId": f"{number}-{n}"} for n in range(10)]
        return httpx.Response(200, json={"results": rows, "totalResults": 50})

    def read(self, within_s: float = 9) -> TransactionList:
        return call(
            self,  # type: ignore[arg-type]  # httpx takes a coroutine function too
            lambda codat: asyncio.wait_for(listing()(codat), within_s),
        )


def test_two_pages_are_requested_ahead_and_none_beyond_the_end() -> None:
    slow = SlowPages()
    found = slow.read()
    assert [row.transaction_id for row in found.transactions] == [
        f"{page}-{n}" for page in range(1, 6) for n in range(10)
    ]
    assert is_complete(found)
    assert (slow.most, slow.cancelled) == (2, [])


def test_requests_ahead_are_cancelled_with_their_reader() -> None:
    """A lost lease leaves no call behind."""
    slow = SlowPages(pause_s=9)
    with pytest.raises(TimeoutError):
        slow.read(within_s=0.1)
    assert slow.cancelled == [2, 3]


def test_an_id_never_becomes_the_path_of_another_resource() -> None:
    """Another sync's success must not become this one's."""
    for company_id, sync_id in (
        *(("c", name) for name in ("latest", "lastSuccessful", "list", "..", ".")),
        *(("c", name) for name in ("Latest", "LASTSUCCESSFUL", "lastsuccessful", " LIST ")),
        ("..", "s"),
    ):
        with pytest.raises(CodatRefused):
            call(
                always(200, {}),
                partial(CodatClient.get_status, company_id=company_id, sync_id=sync_id),
            )
    paths: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(200, json={"syncStatusCode": 2000})

    call(answer, lambda codat: codat.get_status("../a b", "x/?ü#"))
    assert paths == [b"/companies/..%2Fa%20b/sync/expenses/syncs/x%2F%3F%C3%BC%23/status"]


def trickle(pause_s: float, chunks: int) -> Answer:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            await asyncio.sleep(pause_s)
            yield b" " * 1024

    return lambda _request: httpx.Response(200, content=body())


def test_an_answer_is_bounded_in_time_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each single read is fast enough; all of them together are not."""
    monkeypatch.setattr(client_module, "CALL_TIMEOUT_S", 0.1)
    with pytest.raises(CodatUnavailable, match="took too long"):
        call(trickle(0.02, 1000), status_of)
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 4096)
    with pytest.raises(CodatUnavailable, match="cannot be read"):
        call(trickle(0, 10**9), status_of)


def test_an_answer_of_another_shape_is_transient_but_a_junk_row_loses_nothing() -> None:
    """A proxy's page; or a list that is read row by row, member by member."""
    junk: tuple[object, ...] = (None, 7, {}, "junk")
    for rows in junk:
        with pytest.raises(CodatUnavailable):
            call(always(200, {"results": rows}), listing())
    body = {"results": [None, 7, {"transactionId": "t", "status": 5, "message": ["no"]}]}
    assert call(always(200, body), listing()).transactions == (Transaction("t", None, None, None),)


@pytest.mark.parametrize(
    ("ids", "is_right"),
    [
        ({}, True),
        ({"syncId": None, "companyId": None}, True),
        ({"syncId": "A1", "companyId": "c"}, True),
        ({"syncId": "a2"}, False),
        ({"syncId": "a1", "companyId": "d"}, False),
    ],
)
def test_an_answer_must_be_about_the_sync_that_was_requested(
    ids: dict[str, Any], *, is_right: bool
) -> None:
    """An absent id contradicts nothing. A list has only rows of the company, with a sync id."""
    row = {"syncStatusCode": 2000, **ids}

    def get(codat: CodatClient) -> Any:
        return codat.get_status("c", "a1")

    if is_right:
        assert call(always(200, row), get).status_code == 2000
    else:
        with pytest.raises(CodatUnavailable, match="another sync"):
            call(always(200, row), get)


def test_a_list_has_only_syncs_of_the_company() -> None:
    """Rows of another company, without an id, or of another shape are left out."""
    ids: list[Any] = [
        {"syncId": "a"}, {"syncId": "b", "companyId": "C"}, {"syncId": "x", "companyId": "d"},
        {"syncId": None}, {}, None, 7, "text", ["syncId"],
    ]  # fmt: skip
    statuses = call(always(200, ids), statuses_of("c"))
    assert [status.sync_id for status in statuses] == ["a", "b"]


class Pieces(httpx.AsyncByteStream):
    """A body that arrives in pieces of some size."""

    def __init__(self, body: bytes, size: int) -> None:
        self.body, self.size = body, size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), self.size):
            yield self.body[start : start + self.size]


def _stream(body: bytes, size: int, _request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, stream=Pieces(body, size))


ROWS = [{"syncId": f'ü"{n}]', "syncStatusCode": 2000, "x": [n, {}, [1e5]]} for n in range(40)]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10**6])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_parsed_while_it_arrives(
    monkeypatch: pytest.MonkeyPatch, size: int, indent: int | None
) -> None:
    """Wherever its pieces are cut: in a character, a number, a text."""
    monkeypatch.setattr(client_module, "PIECE_BYTES", size)
    body = json.dumps([1, *ROWS, 12, True], indent=indent, ensure_ascii=False).encode()
    found = call(partial(_stream, body, size), statuses_of("c"))
    assert [status.sync_id for status in found] == [row["syncId"] for row in ROWS]
    for empty in (b"[]", b" [ ]\n", b"\xef\xbb\xbf[]"):
        assert call(partial(_stream, empty, size), statuses_of("c")) == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"null", b"[", b"[1", b"[1,", b"[1 2]", b"[,1]", b"[1,]", b"[1]]", b"[1],",
        b"<html>", b'[{"a": 1]', b"[\xff]", b'["' + b"x" * 3_000_000 + b'"]', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_list_of_another_shape_is_transient(body: bytes) -> None:
    """Also one that is cut off, or has an element larger than any status."""
    with pytest.raises(CodatUnavailable, match="not a list of sync statuses"):
        call(lambda _: httpx.Response(200, content=body), statuses_of("c"))


def test_a_list_of_any_size_is_read_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than other answers may have; and meanwhile the event loop does not stand still."""
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 100_000)
    row = json.dumps({"syncId": "a", "syncStatusCode": 2000, "errorMessage": "x" * 1000}).encode()
    delays: list[float] = []

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            delays.append(time.perf_counter() - before)

    async def read(codat: CodatClient) -> tuple[int, int]:
        watcher = asyncio.create_task(watch())
        parts = [len(part) async for part in codat.list_statuses("c")]
        watcher.cancel()
        return sum(parts), max(parts)

    body = b"[" + b",".join([row] * 20_000) + b"]"
    total, largest = call(partial(_stream, body, 2**16), read)
    assert (total, largest < 1000) == (20_000, True)
    assert max(delays) < 1


def test_an_error_instead_of_a_list_is_classified() -> None:
    for status, error in ((404, CodatRefused), (429, CodatRateLimited), (503, CodatUnavailable)):
        with pytest.raises(error) as caught:
            call(always(status, {"error": "no"}), statuses_of("c"))
        assert caught.value.status == status


def test_a_list_that_arrives_too_slowly_is_given_up() -> None:
    """The time limit never cancels the caller between two parts."""

    async def read(codat: CodatClient) -> None:
        async for _ in codat.list_statuses("c", within_s=0.05):
            await asyncio.sleep(0.1)

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'[{"syncId": "a"}'
            while True:
                yield b',{"syncId": "a"}' * 20_000

    with pytest.raises(CodatUnavailable, match="took too long"):
        call(lambda _: httpx.Response(200, stream=Endless()), read)


def test_an_answer_without_a_code_is_no_status() -> None:
    """It would replace what is known by nothing."""
    for body in ({}, {"syncStatusCode": None}, {"syncStatus": "Complete"}):
        with pytest.raises(CodatUnavailable, match="no status code"):
            call(always(200, body), status_of)


def test_absent_members_of_a_list_are_not_zero_or_empty() -> None:
    """Rows of which nothing is known are rows; no results are an empty list only if none exist."""
    for empty in ({"totalResults": 0}, {"totalResults": 0, "results": None}):
        found = call(always(200, empty), listing())
        assert (found.transactions, found.expected, found.steady) == ((), 0, True)
    for unknown in ({"totalResults": 3}, {"totalResults": None, "results": None}):
        with pytest.raises(CodatUnavailable):
            call(always(200, unknown), listing())
    page = {"results": [{}, {"transactionId": None, "status": None}, None], "totalResults": None}
    found = call(always(200, page), listing())
    assert (found.transactions, found.expected) == ((Transaction(None, None),) * 2, None)


@pytest.mark.parametrize(
    ("listed", "expected"), [({}, None), ({"dataConnections": None}, None),
    ({"dataConnections": []}, ())],
)  # fmt: skip
def test_absent_connections_are_not_no_connections(listed: dict[str, Any], expected: Any) -> None:
    """Nor are those of a company without a name."""

    async def companies(codat: CodatClient) -> list[Any]:
        return [company async for company in codat.list_companies()]

    page = {"results": [{"id": "c", "name": None, **listed}], "totalResults": 1}
    (company,) = call(always(200, page), companies)
    assert (company.name, company.connections) == (None, expected)


def test_a_sync_is_started_with_an_idempotency_key() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(202, json=sample("a16-initiate-accepted.json"))

    sync_id = call(answer, lambda codat: codat.initiate_sync("c", ["d1"], idempotency_key="key-1"))
    assert sync_id == sample("a16-initiate-accepted.json")["syncId"]
    assert json.loads(requests[0].content) == {"datasetIds": ["d1"]}
    assert requests[0].headers["idempotency-key"] == "key-1"


@pytest.mark.parametrize("entry", ERRORS, ids=lambda entry: entry["file"])
def test_every_documented_error_is_classified_by_its_http_status(entry: dict[str, Any]) -> None:
    """The statusCode in the body may say something else."""
    body = sample(entry["file"])
    error = error_of(always(entry["status"], body))
    transient = {409: CodatUnavailable, 429: CodatRateLimited, 500: CodatUnavailable}
    assert type(error) is transient.get(entry["status"], CodatRefused)
    assert error.status == entry["status"]
    assert body["error"].split()[0] in str(error)


def test_redirects_unreadable_answers_and_no_answer_are_transient() -> None:
    """Redirects are never followed."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no answer", request=request)

    answers = [
        always(status, None, location="https://evil.test/")
        for status in (301, 307, 408, 409, 425, 500, 502, 503, 504, 599)
    ]
    bodies = (b"<html>", b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"7", b'"x"')
    answers += [partial(lambda body, _: httpx.Response(200, content=body), body) for body in bodies]
    assert {type(error_of(answer)) for answer in [*answers, fail]} == {CodatUnavailable}
    assert str(error_of(fail)) == "Cannot connect to Codat (no answer)"


def test_retry_after_is_read_in_all_its_forms() -> None:
    """Seconds, an HTTP date, nonsense, and the reset time of the quota."""
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert error_of(always(429, {}, retry_after="7")).retry_after == timedelta(seconds=7)
    for header in (
        {"retry_after": format_datetime(soon, usegmt=True)},
        {"x_rate_limit_reset": soon.isoformat()},
    ):
        pause = error_of(always(429, {}, **header)).retry_after
        assert pause is not None
        assert timedelta(seconds=80) < pause < timedelta(seconds=91)
    for nonsense in ("soon", "-5", "9" * 50, "", "NaN", "Fri, 31 Dec 9999 23:59:59 -2359"):
        assert error_of(always(429, {}, retry_after=nonsense)).retry_after is None
    assert error_of(always(503, {}, retry_after="0")).retry_after == timedelta()
    assert error_of(always(503, {}, x_rate_limit_reset=soon.isoformat())).retry_after is None


def test_calls_are_reported_with_their_result_and_the_quota() -> None:
    """A call that the pause prevents is not one; an unreadable quota is not reported."""
    results: list[str] = []
    quotas: list[int] = []

    async def paused() -> None:
        raise CodatRateLimited("paused")

    def run(answer: Answer, **options: Any) -> None:
        hooks = {
            "on_call": lambda result, seconds: results.append(result if seconds >= 0 else "?"),
            "on_quota": quotas.append,
        }
        with suppress(CodatError):
            call(answer, status_of, **hooks, **options)

    run(always(200, {}, x_rate_limit_remaining="1999"))
    run(always(404, {}, x_rate_limit_remaining="1998"))
    run(always(429, {}, x_rate_limit_remaining="none"))
    run(always(503, {}))
    run(always(200, {}), before_call=paused)
    assert results == ["ok", "refused", "rate_limited", "unavailable"]
    assert quotas == [1999, 1998]


def test_the_clock_is_compared_with_the_date_of_any_answer() -> None:
    """A refusal has a date as well; an unreadable one is ignored."""
    now = datetime(2026, 1, 1, 9, tzinfo=UTC)

    def skew(status: int, **headers: str) -> timedelta | None:
        async def run(codat: CodatClient) -> timedelta | None:
            with suppress(CodatError):
                await codat.get_status("c", "s")
            return codat.clock_skew

        return call(always(status, {}, **headers), run, clock=lambda: now)

    date = format_datetime(now + timedelta(hours=1), usegmt=True)
    assert skew(200, date=date) == skew(401, date=date) == timedelta(hours=-1)
    assert skew(200, date="tomorrow") is None
    assert skew(200) is None


@pytest.mark.parametrize("prefix", ["", "Basic ", "basic  "])
def test_both_forms_of_the_key_make_the_same_header(prefix: str) -> None:
    """The Portal shows the raw key and the finished header."""
    encoded = base64.b64encode(b"raw-key").decode()
    assert authorization(f"{prefix}{encoded}" if prefix else " raw-key\n") == f"Basic {encoded}"


async def most_at_a_time(limits: CallLimits, company_ids: Sequence[str]) -> int:
    """How many of these calls, which all fail, run at the same time."""
    running = highest = 0

    async def one(company_id: str) -> None:
        nonlocal running, highest
        async with limits.slot(company_id):
            running += 1
            highest = max(highest, running)
            await asyncio.sleep(0.001)
            running -= 1
            raise CodatUnavailable("no")

    await asyncio.gather(*map(one, company_ids), return_exceptions=True)
    return highest


def test_concurrent_calls_are_limited_per_company_and_in_total() -> None:
    """Codat allows ten per company; slots are returned on errors too."""

    async def run() -> None:
        limits = CallLimits(per_company=3, concurrent=10, per_minute=600_000)
        assert [await most_at_a_time(limits, ["one"] * 20) for _ in range(2)] == [3, 3]
        assert await most_at_a_time(limits, [str(number) for number in range(30)]) == 10

    asyncio.run(run())


@pytest.mark.parametrize(("processes", "expected"), [(1, 3), (2, 3), (4, 2), (20, 1)])
def test_processes_share_the_calls_per_company(processes: int, expected: int) -> None:
    """Codat allows ten; one process takes four. This holds for a busy company as well."""

    async def run() -> None:
        limits = CallLimits(per_minute=600_000)
        async with limits.slot("one"):
            limits.share(processes)
            assert await most_at_a_time(limits, ["one"] * 12) == expected
        async with limits.slot("one"):
            await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize(("processes", "calls", "seconds"), [(1, 62, 0.15), (2, 32, 0.3)])
def test_calls_are_spread_over_the_minute(processes: int, calls: int, seconds: float) -> None:
    """A burst is allowed, later calls are paced; several processes share."""

    async def timed() -> float:
        limits = CallLimits(per_company=99, concurrent=99, per_minute=600)
        limits.share(processes)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(calls):
            async with limits.slot("c"):
                pass
        return loop.time() - start

    assert asyncio.run(timed()) >= seconds
