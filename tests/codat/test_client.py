"""Asking Codat: every documented answer, every error, and pages that do not behave."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from app.codat import client as client_module
from app.codat import pagination as paging
from app.codat.client import CodatClient, authorization
from app.codat.rate_limiter import Limits
from app.domain.models import Item
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable

SAMPLES = Path(__file__).parents[1] / "samples" / "codat"
INDEX = json.loads((SAMPLES / "index.json").read_text())["files"]
ERRORS = [entry for entry in INDEX if entry["kind"] == "api-error"]
KEY = "the-raw-key-nobody-may-see"
T = TypeVar("T")
Answer = Callable[[httpx.Request], httpx.Response]


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


def ask(answer: Answer, question: Callable[[CodatClient], Awaitable[T]]) -> T:
    async def one() -> T:
        transport = httpx.MockTransport(answer)
        async with CodatClient("https://codat.test", KEY, transport=transport) as codat:
            return await question(codat)

    return asyncio.run(one())


def always(status: int, body: Any = None, **headers: str) -> Answer:
    def answer(_request: httpx.Request) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(status, json=body, headers=named)

    return answer


def status(codat: CodatClient) -> Awaitable[Any]:
    return codat.get_status("c", "s")


def refusal(answer: Answer) -> CodatError:
    with pytest.raises(CodatError) as caught:
        ask(answer, status)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_documented_failed_status_is_read() -> None:
    """Code, both messages, and the time with seven digits."""
    found = ask(always(200, sample("a02-sync-status-failed.json")), status)
    assert (found.status_code, found.status, found.data_pushed) == (5130, "PushError", False)
    assert "1f6ab1bc-58c8-4c1a-a654-86464b065f69" in found.error_message
    assert found.sync_utc == datetime(2022, 8, 3, 1, 11, 33, 627933, UTC)


def test_empty_messages_are_no_messages() -> None:
    """Codat's success sample has empty texts, not null."""
    found = ask(always(200, sample("a01-sync-status-success.json")), status)
    assert (found.status_code, found.error_message, found.exception_message) == (2000, None, None)


def test_the_documented_list_of_statuses_is_a_bare_array() -> None:
    """No envelope, no pages."""
    told = sample("a07-list-statuses.json")
    found = ask(always(200, told), lambda codat: codat.list_statuses("c"))
    assert [each.status_code for each in found] == [each["syncStatusCode"] for each in told]


def test_the_documented_failed_list_ends_short_and_keeps_its_rows() -> None:
    """134 counted, two identical rows printed: no endless loop, nothing lost, nothing made up."""
    answers = [sample("a04-transactions-failure.json"), sample("a12-transactions-empty.json")]
    answers[1]["totalResults"] = 134
    found = ask(
        lambda request: httpx.Response(200, json=answers[int(request.url.params["page"]) - 1]),
        lambda codat: codat.list_transactions("c", "s"),
    )
    assert (len(found.items), found.expected, found.steady) == (2, 134, False)
    assert found.items[0] == found.items[1]
    assert found.items[0].status == "PushError"


def test_an_unknown_enum_member_loses_nothing() -> None:
    """Codat's own success sample has an integration type outside its own enum."""
    page = sample("a03-transactions-success.json") | {"totalResults": 2}
    found = ask(always(200, page), lambda codat: codat.list_transactions("c", "s"))
    assert [item.integration_type for item in found.items] == ["bankfeeds", "expense"]


def pages(total: Callable[[int], int], rows: Callable[[int], int]) -> Answer:
    """A list whose total and rows are functions of the page."""

    def answer(request: httpx.Request) -> httpx.Response:
        number, size = (int(request.url.params[name]) for name in ("page", "pageSize"))
        results = [
            {"transactionId": f"{number}-{n}", "status": "Completed"} for n in range(rows(number))
        ]
        body = {
            "results": results,
            "pageNumber": number,
            "pageSize": size,
            "totalResults": total(number),
            "_links": {"next": {"href": "https://evil.test/"}},
        }
        assert request.url.host == "codat.test"
        return httpx.Response(200, json=body)

    return answer


@pytest.mark.parametrize(
    ("total", "rows", "got", "steady"),
    [
        (lambda _: 0, lambda _: 0, 0, True),
        (lambda _: 7, lambda _: 7, 7, True),
        (lambda _: 10, lambda _: 10, 10, True),
        (lambda _: 25, lambda p: 10 if p < 3 else 5, 25, True),
        (lambda p: 25 + (p > 1), lambda p: 10 if p < 3 else 6, 26, False),
        (lambda p: 25 if p == 1 else 12, lambda p: 10 if p == 1 else 2, 12, False),
        (lambda _: 999, lambda p: 10 if p < 3 else 0, 20, True),
    ],
)
def test_pages_are_counted(
    total: Callable[[int], int], rows: Callable[[int], int], got: int, steady: bool
) -> None:
    """Empty, short, exact, several, growing, shrinking, and cut off."""
    found = ask(pages(total, rows), lambda codat: codat.list_transactions("c", "s", page_size=10))
    assert (len(found.items), found.steady) == (got, steady)


@pytest.mark.parametrize(
    ("pages_shown", "steady"),
    [
        ([["a", "b"], ["c", "d"], ["e"]], True),
        ([["a", "a"], ["c", "d"], ["e"]], True),
        ([["a"], ["c", "d"], ["e", "f"]], False),
    ],
    ids=["still", "a row twice on one page", "a short page within"],
)
def test_a_list_that_moved_is_noticed_though_its_count_is_right(
    pages_shown: list[list[str]], steady: bool
) -> None:
    """A short page and a full one too many make up for each other."""

    def answer(request: httpx.Request) -> httpx.Response:
        rows = pages_shown[int(request.url.params["page"]) - 1]
        results = [{"transactionId": each, "status": "Completed"} for each in rows]
        return httpx.Response(200, json={"results": results, "totalResults": 5})

    found = ask(answer, lambda codat: codat.list_transactions("c", "s", page_size=2))
    assert (len(found.items), found.expected, found.steady) == (5, 5, steady)


def sliced(rows: list[str], slips: set[tuple[int, int]] = frozenset()) -> Answer:  # type: ignore[assignment]  # never changed
    """A list in pages; a page begins a row too early where (page, size) slips."""

    def answer(request: httpx.Request) -> httpx.Response:
        number, size = (int(request.url.params[name]) for name in ("page", "pageSize"))
        start = (number - 1) * size - ((number, size) in slips)
        results = [{"transactionId": each} for each in rows[start : start + size]]
        body = {"results": results, "pageSize": size, "totalResults": len(rows)}
        return httpx.Response(200, json=body)

    return answer


@pytest.mark.parametrize(
    ("rows", "slips", "steady"),
    [
        ("abcaefg", set(), True),
        ("abcdefg", {(2, 3)}, True),
        ("abcdefg", {(2, 3), (2, 2)}, False),
        ("abcdefg", {(2, 3), (3, 2)}, False),
    ],
    ids=["rows do repeat", "slipped once", "slipped both times", "elsewhere the second time"],
)
def test_a_row_on_two_pages_is_looked_at_in_pages_of_another_size(
    rows: str, slips: set[tuple[int, int]], steady: bool
) -> None:
    """Equal lists are the truth; a page that slips twice alike makes two different ones."""
    answer = sliced(list(rows), slips)
    found = ask(answer, lambda codat: codat.list_transactions("c", "s", page_size=3))
    assert found.steady is steady
    if steady:
        assert [item.transaction_id for item in found.items] == list(rows)


def test_pages_that_codat_makes_smaller_are_all_read() -> None:
    """Its documents name three different limits of a page's size."""

    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page"])
        results = [{"transactionId": f"{number}-{n}"} for n in range(3)]
        body = {"results": results, "pageSize": 3, "totalResults": 9}
        return httpx.Response(200, json=body)

    found = ask(answer, lambda codat: codat.list_transactions("c", "s", page_size=100))
    assert (len(found.items), found.steady) == (9, True)


def test_a_list_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A total that runs ahead of the pages must not keep a worker for ever."""
    monkeypatch.setattr(paging, "MOST_PAGES", 5)
    found = ask(
        pages(lambda p: 1000 * p, lambda _: 10),
        lambda codat: codat.list_transactions("c", "s", page_size=10),
    )
    assert (len(found.items), found.steady) == (50, False)


@pytest.mark.parametrize("total", [None, -1, "many", 10**9])
def test_without_a_usable_count_the_list_ends_at_a_page_that_is_not_full(total: object) -> None:
    """A full page alone is never the whole list, and nonsense costs few calls."""
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(int(request.url.params["page"]))
        results = [{"transactionId": f"{asked[-1]}-{n}"} for n in range(10 if asked[-1] < 3 else 4)]
        return httpx.Response(200, json={"results": results, "totalResults": total})

    found = ask(answer, lambda codat: codat.list_transactions("c", "s", page_size=10))
    assert len(found.items) >= 24
    assert found.complete is (total != 10**9)
    assert len(asked) <= 4


def test_a_codat_that_ignores_the_page_is_asked_twice_and_not_believed() -> None:
    """The same full page again: nothing more is to be had, and nothing is certain."""
    rows = [{"transactionId": str(n)} for n in range(10)]
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["page"])
        return httpx.Response(200, json={"results": rows})

    found = ask(answer, lambda codat: codat.list_transactions("c", "s", page_size=10))
    assert asked == ["1", "2"]
    assert not found.complete


class Slow:
    """A list of so many pages whose answers wait, except the first; it notes what happens."""

    def __init__(self, pages: int, pause_s: float = 0.01) -> None:
        self.pages = pages
        self.pause_s = pause_s
        self.on_their_way: set[int] = set()
        self.most = 0
        self.given_up: list[int] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page"])
        self.on_their_way.add(number)
        self.most = max(self.most, len(self.on_their_way))
        try:
            await asyncio.sleep(self.pause_s if number > 1 else 0)
        except asyncio.CancelledError:
            self.given_up.append(number)
            raise
        self.on_their_way.remove(number)
        rows = [{"transactionId": f"{number}-{n}"} for n in range(10)]
        return httpx.Response(200, json={"results": rows, "totalResults": self.pages * 10})

    def listed(self, within_s: float = 9) -> Any:
        return ask(
            self,  # type: ignore[arg-type]  # httpx takes an awaited answer too
            lambda codat: asyncio.wait_for(
                codat.list_transactions("c", "s", page_size=10), within_s
            ),
        )


def test_two_pages_are_on_their_way_and_none_beyond_the_end() -> None:
    """Rows come in Codat's order all the same."""
    slow = Slow(5)
    found = slow.listed()
    assert [item.transaction_id for item in found.items] == [
        f"{page}-{n}" for page in range(1, 6) for n in range(10)
    ]
    assert found.complete
    assert slow.most == 2
    assert slow.given_up == []


def test_who_stops_reading_gives_up_the_pages_on_their_way() -> None:
    """A lost lease must leave no call behind."""
    slow = Slow(5, pause_s=9)
    with pytest.raises(TimeoutError):
        slow.listed(within_s=0.1)
    assert slow.given_up == [2, 3]


@pytest.mark.parametrize(
    ("company_id", "sync_id"),
    [("c", "latest"), ("c", "lastSuccessful"), ("c", "list"), ("c", ".."), ("c", "."), ("..", "s")],
)
def test_an_id_that_names_another_resource_is_never_asked_about(
    company_id: str, sync_id: str
) -> None:
    """Another sync's success must not become this one's."""
    with pytest.raises(CodatRefused):
        ask(always(200, {}), lambda codat: codat.get_status(company_id, sync_id))


def drip(seconds: float, chunks: int) -> httpx.Response:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            await asyncio.sleep(seconds)
            yield b" " * 1024

    return httpx.Response(200, content=body())


def test_an_answer_that_drips_ends_with_its_whole_time() -> None:
    """Each single read is in time; all of them together are not."""

    async def call() -> None:
        transport = httpx.MockTransport(lambda _: drip(0.02, 1000))
        codat = CodatClient("https://codat.test", "k", transport=transport, whole_call_s=0.1)
        await codat.get_status("c", "s")

    with pytest.raises(CodatUnavailable, match="too slowly"):
        asyncio.run(call())


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the limit and not by Codat."""
    monkeypatch.setattr(client_module, "LARGEST_ANSWER", 4096)
    with pytest.raises(CodatUnavailable, match="cannot be read"):
        ask(lambda _: drip(0, 10**9), status)


@pytest.mark.parametrize("rows", [None, 7, {}, "junk"])
def test_an_answer_of_the_wrong_shape_is_passing_trouble(rows: object) -> None:
    """A proxy's page or a half-finished deployment: ask again later."""
    with pytest.raises(CodatUnavailable):
        ask(always(200, {"results": rows}), lambda codat: codat.list_transactions("c", "s"))


def test_a_junk_row_never_loses_the_page() -> None:
    """Row by row, member by member."""
    body = {"results": [None, 7, {"transactionId": "t", "status": 5, "message": ["no"]}]}
    found = ask(always(200, body), lambda codat: codat.list_transactions("c", "s"))
    assert found.items == (Item("t", None, None, None),)


def test_the_documented_companies_and_consumers_are_read() -> None:
    """With their connections, and whether an endpoint is disabled."""

    async def companies(codat: CodatClient) -> list[Any]:
        return [company async for company in codat.list_companies()]

    found = ask(always(200, sample("a14-companies-page.json")), companies)
    assert (found[0].name, found[0].connections[0].platform_name) == ("Technicalium", "Pandle")
    consumers = ask(
        always(200, sample("a17-webhook-consumers.json")), lambda codat: codat.list_consumers()
    )
    assert [(c.disabled, c.event_types) for c in consumers] == [
        (False, ("DataSyncCompleted",)),
        (True, ("DatasetDataChanged",)),
    ]


def test_the_documented_single_transaction_is_an_array() -> None:
    """One id, one row per integration type."""
    found = ask(
        always(200, sample("a08-transaction-single-array.json")),
        lambda codat: codat.get_transaction("c", "s", "t"),
    )
    assert len(found) == len(sample("a08-transaction-single-array.json"))


def test_a_sync_is_started_with_an_idempotency_key() -> None:
    """So that asking twice starts one."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json=sample("a16-initiate-accepted.json"))

    sync_id = ask(answer, lambda codat: codat.initiate_sync("c", ["d1"], idempotency_key="key-1"))
    assert sync_id == sample("a16-initiate-accepted.json")["syncId"]
    assert json.loads(seen[0].content) == {"datasetIds": ["d1"]}
    assert seen[0].headers["idempotency-key"] == "key-1"


@pytest.mark.parametrize("entry", ERRORS, ids=lambda entry: entry["file"])
def test_every_documented_error_is_classed_by_its_http_status(entry: dict[str, Any]) -> None:
    """The statusCode in the body may say something else."""
    body = sample(entry["file"])
    error = refusal(always(entry["status"], body))
    passing = {409: CodatUnavailable, 429: CodatRateLimited, 500: CodatUnavailable}
    assert type(error) is passing.get(entry["status"], CodatRefused)
    assert error.status == entry["status"]
    assert body["error"].split()[0] in str(error)


@pytest.mark.parametrize("code", [301, 307, 408, 409, 425, 500, 502, 503, 504, 599])
def test_passing_trouble_is_passing(code: int) -> None:
    """Redirects too: they are never followed."""
    assert type(refusal(always(code, None, location="https://evil.test/"))) is CodatUnavailable


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"7", b'"x"']
)
def test_an_unreadable_success_is_passing_trouble(body: bytes) -> None:
    """Truncated or not JSON at all."""
    assert type(refusal(lambda _: httpx.Response(200, content=body))) is CodatUnavailable


def test_an_unreachable_codat_is_passing_trouble() -> None:
    """Refused connections and time-outs alike."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no answer", request=request)

    error = refusal(fail)
    assert (type(error), str(error)) == (
        CodatUnavailable,
        "Codat cannot be reached: ReadTimeout",
    )


def test_retry_after_is_understood_in_all_its_forms() -> None:
    """Seconds, an HTTP date, nonsense, and the reset time of the quota."""
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert refusal(always(429, {}, retry_after="7")).retry_after == timedelta(seconds=7)
    for header in (
        {"retry_after": format_datetime(soon, usegmt=True)},
        {"x_rate_limit_reset": soon.isoformat()},
    ):
        pause = refusal(always(429, {}, **header)).retry_after
        assert pause is not None
        assert timedelta(seconds=80) < pause < timedelta(seconds=91)
    for nonsense in ("soon", "-5", "9" * 50, "", "NaN", "Fri, 31 Dec 9999 23:59:59 -2359"):
        assert refusal(always(429, {}, retry_after=nonsense)).retry_after is None
    assert refusal(always(503, {}, retry_after="0")).retry_after == timedelta()
    assert refusal(always(503, {}, x_rate_limit_reset=soon.isoformat())).retry_after is None


def test_ids_are_encoded_so_that_they_cannot_leave_their_place() -> None:
    """An id is text from outside; it must not become a path."""
    seen: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={})

    ask(answer, lambda codat: codat.get_status("../a b", "x/?ü#"))
    assert seen == [b"/companies/..%2Fa%20b/sync/expenses/syncs/x%2F%3F%C3%BC%23/status"]


@pytest.mark.parametrize(
    "form",
    [
        "raw-key",
        " raw-key\n",
        f"Basic {base64.b64encode(b'raw-key').decode()}",
        f"basic  {base64.b64encode(b'raw-key').decode()}",
    ],
)
def test_both_forms_of_the_key_make_the_same_header(form: str) -> None:
    """The Portal shows the raw key and the finished header."""
    assert authorization(form) == "Basic " + base64.b64encode(b"raw-key").decode()


def test_a_company_is_never_asked_too_much_at_once() -> None:
    """Codat allows ten concurrent requests per company; and turns are given back on errors."""
    running = 0
    highest = 0

    async def call(limits: Limits, company: str) -> None:
        nonlocal running, highest
        async with limits.turn(company):
            running += 1
            highest = max(highest, running)
            await asyncio.sleep(0.001)
            running -= 1
            if company == "bad":
                raise CodatUnavailable("no")

    async def many() -> None:
        limits = Limits(per_company=3, at_once=10, per_minute=600_000)
        await asyncio.gather(*(call(limits, "one") for _ in range(20)))
        assert highest == 3
        await asyncio.gather(*(call(limits, "bad") for _ in range(20)), return_exceptions=True)
        await asyncio.gather(*(call(limits, str(n)) for n in range(30)))
        assert highest == 10

    asyncio.run(many())


@pytest.mark.parametrize(("callers", "more"), [(1, 3), (2, 3), (4, 2), (20, 1)])
def test_processes_share_what_a_company_is_asked_at_once(callers: int, more: int) -> None:
    """Codat allows ten; one process takes four. It holds too for a company that is busy already."""
    now = highest = 0

    async def many() -> None:
        limits = Limits(per_minute=600_000)

        async def call() -> None:
            nonlocal now, highest
            async with limits.turn("one"):
                now += 1
                highest = max(highest, now)
                await asyncio.sleep(0)
                now -= 1

        async with limits.turn("one"):
            limits.share(callers)
            await asyncio.gather(*(call() for _ in range(12)))
        async with limits.turn("one"):
            await asyncio.sleep(0)

    asyncio.run(many())
    assert highest == more


@pytest.mark.parametrize(("callers", "calls", "seconds"), [(1, 65, 0.4), (2, 35, 0.9)])
def test_calls_are_spread_over_the_minute(callers: int, calls: int, seconds: float) -> None:
    """A burst may go at once, what comes after it is paced; several processes share."""

    async def timed() -> float:
        limits = Limits(per_company=99, at_once=99, per_minute=600)
        limits.share(callers)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(calls):
            async with limits.turn("c"):
                pass
        return loop.time() - start

    assert asyncio.run(timed()) >= seconds
