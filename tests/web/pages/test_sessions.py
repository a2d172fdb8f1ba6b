"""Signing in to the pages: who gets a session, how long it lasts, which forms are believed."""

from datetime import timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.settings import Settings, load_settings
from app.web.pages.sessions import COOKIE, LASTS, local, read_session, sign_in
from app.web.pages.throttle import FAILURES, FORGIVEN_AFTER_S, MOST_ADDRESSES, Throttle
from tests.web.people import enter, form_token
from tests.web.shelf import KEY, NOW, Shelf

OTHER = "another-key-as-long"


def keys(*given: str) -> Settings:
    return load_settings(api_keys=",".join(given))


def cookie(settings: Settings, key: str = KEY) -> str:
    made = sign_in(settings, key, NOW)
    assert made
    return made


def test_a_key_gives_a_session_that_every_replica_knows() -> None:
    """Nothing is kept: who has the same keys, in any order, reads the same cookie."""
    made = cookie(keys(KEY, OTHER))
    assert KEY not in made
    session = read_session(keys(OTHER, KEY), made, NOW)
    assert session
    assert session == read_session(keys(KEY), made, NOW)


@pytest.mark.parametrize("given", ["", "wrong", KEY[:-1], KEY + "x", KEY.upper(), "\udcff"])
def test_what_is_not_a_key_gives_no_session(given: str) -> None:
    """Neither nothing nor nearly."""
    assert sign_in(keys(KEY), given, NOW) is None


def test_a_session_ends_with_its_time_and_with_its_key() -> None:
    """A key that is taken out of `API_KEYS` takes its sessions with it, and no others."""
    ours, theirs = cookie(keys(KEY, OTHER)), cookie(keys(KEY, OTHER), OTHER)
    almost = NOW + LASTS - timedelta(seconds=1)
    assert read_session(keys(KEY, OTHER), ours, almost)
    assert read_session(keys(KEY, OTHER), ours, NOW + LASTS) is None
    assert read_session(keys(OTHER), ours, NOW) is None
    assert read_session(keys(OTHER), theirs, NOW)


def test_a_cookie_that_was_changed_is_nobody() -> None:
    """Its end cannot be moved, and no part of it can be left out."""
    made = cookie(keys(KEY))
    ends, rest = made.split(".", 1)
    forged = [f"{int(ends) + 1}.{rest}", made[:-1], made + "0", "", ".", "..", "x.y.z", "é" * 9]
    assert [each for each in forged if read_session(keys(KEY), each, NOW)] == []


def test_every_session_has_its_own_token_for_forms() -> None:
    """What one person's page carries is of no use in another's."""
    first, second = (read_session(keys(KEY), cookie(keys(KEY)), NOW) for _ in range(2))
    assert first
    assert second
    assert first.csrf != second.csrf


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "evil",
        "javascript:alert(1)", "/\tevil", "/a\r\nSet-Cookie: x=y", "", "/é", "http:/x", "///x",
    ],
)  # fmt: skip
def test_nobody_is_sent_to_another_site(address: str) -> None:
    """Only a path of ours is followed after signing in."""
    assert local(address) == "/"


def test_a_path_of_ours_is_followed_with_its_query() -> None:
    """So a shared address works for who had to sign in first."""
    assert local("/syncs/a%2Fb?q=x&sort=-started_at") == "/syncs/a%2Fb?q=x&sort=-started_at"


def test_failures_make_an_address_wait_and_time_forgives() -> None:
    """Others are not kept waiting, and a success wipes the slate."""
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for _ in range(FAILURES):
        assert throttle.wait("a") == 0
        throttle.failed("a")
    assert throttle.wait("a") == FORGIVEN_AFTER_S
    assert throttle.wait("b") == 0
    now[0] = FORGIVEN_AFTER_S
    assert throttle.wait("a") == 0
    throttle.failed("a")
    throttle.forgive("a")
    assert throttle.wait("a") == 0


def test_of_several_processes_each_allows_its_part() -> None:
    """So that all of them together allow no more than one would."""
    throttle = Throttle(lambda: 0.0, FAILURES // 4)
    for _ in range(FAILURES // 4):
        assert throttle.wait("a") == 0
        throttle.failed("a")
    assert throttle.wait("a") == FORGIVEN_AFTER_S


def test_a_flood_of_addresses_does_not_fill_the_memory() -> None:
    """Those heard of longest ago are forgotten first."""
    throttle = Throttle(lambda: 0.0)
    for _ in range(FAILURES):
        throttle.failed("first")
    for number in range(MOST_ADDRESSES):
        throttle.failed(str(number))
    assert len(throttle._failed) == MOST_ADDRESSES
    assert throttle.wait("first") == 0


def test_pages_send_who_is_not_signed_in_to_the_door_and_back(person: TestClient) -> None:
    """With the whole address they asked for; a bare cookie of somebody's making does not help."""
    person.cookies.set(COOKIE, "1.2.3")
    asked = person.get("/syncs/a%2Fb?company_id=c%201", follow_redirects=False)
    assert asked.status_code == 303
    assert asked.headers["location"] == "/sign-in?next=/syncs/a%252Fb%3Fcompany_id%3Dc%25201"
    assert "frame-ancestors 'none'" in asked.headers["content-security-policy"]
    form = person.get(asked.headers["location"]).text
    assert 'name="next" value="/syncs/a%2Fb?company_id=c%201"' in form
    entered = person.post(
        "/sign-in",
        data={"key": KEY, "next": "/syncs/a%2Fb?company_id=c%201"},
        follow_redirects=False,
    )
    assert entered.headers["location"] == "/syncs/a%2Fb?company_id=c%201"


@pytest.mark.parametrize(
    "path",
    ["/", "/syncs/s1", "/syncs/s1/json", "/syncs.csv", "/companies", "/companies/c1",
     "/companies/c1/transactions/t1", "/events", "/events/m1"],
)  # fmt: skip
def test_nothing_is_shown_without_a_session(shelf: Shelf, person: TestClient, path: str) -> None:
    """Not even whether it exists; and a key in a header is for the API only."""
    shelf.company("c1", "Toft stores")
    shelf.failed()
    shelf.event("m1")
    for headers in ({}, {"Authorization": f"Bearer {KEY}"}):
        answer = person.get(path, headers=headers, follow_redirects=False)
        assert (answer.status_code, answer.content) == (303, b"")


def test_a_session_does_not_open_the_api(person: TestClient) -> None:
    """A browser's cookie must never speak for it there."""
    enter(person)
    assert person.get("/").status_code == 200
    assert person.get("/api/v1/syncs").status_code == 401
    assert person.post("/api/v1/syncs/s1/refresh").status_code == 401


@pytest.mark.parametrize(
    ("base", "headers", "secure"),
    [
        ("http://testserver", {}, False),
        ("https://testserver", {}, True),
        ("http://testserver", {"x-forwarded-proto": "https"}, True),
    ],
)
def test_scripts_and_other_sites_never_see_the_cookie(
    app: FastAPI, base: str, headers: dict[str, str], secure: bool
) -> None:
    """HttpOnly, SameSite, and for https only wherever the browser speaks https."""
    with TestClient(app, base_url=base) as person:
        entered = person.post(
            "/sign-in", data={"key": f" {KEY} "}, headers=headers, follow_redirects=False
        )
    told = entered.headers["set-cookie"].lower()
    assert "httponly" in told
    assert "samesite=lax" in told
    assert "path=/" in told
    assert ("secure" in told) is secure


def test_a_wrong_key_is_told_and_too_many_have_to_wait(person: TestClient) -> None:
    """Then even the right one waits, or guessing would go on."""
    for _ in range(FAILURES):
        refused = person.post("/sign-in", data={"key": "guess"})
        assert refused.status_code == 403
        assert "not one of this service&#39;s keys" in refused.text
        assert "guess" not in refused.text
    late = person.post("/sign-in", data={"key": KEY})
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) > 0
    assert COOKIE not in person.cookies


FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://testserver.evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_no_other_site_can_sign_anybody_in(person: TestClient, headers: dict[str, str]) -> None:
    """Even with a right key: it would be the other site's, not the person's."""
    refused = person.post("/sign-in", data={"key": KEY}, headers=headers)
    assert refused.status_code == 403
    assert COOKIE not in person.cookies


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"origin": "http://testserver"},
        {"origin": "https://public.example", "x-forwarded-host": "public.example"},
    ],
)
def test_our_own_pages_may_sign_in(person: TestClient, headers: dict[str, str]) -> None:
    """Also behind a proxy that puts its own name into Host."""
    answer = person.post("/sign-in", data={"key": KEY}, headers=headers, follow_redirects=False)
    assert answer.status_code == 303


@pytest.mark.parametrize("path", ["/syncs/s1/refresh", "/syncs/s1/retry", "/sign-out"])
def test_a_form_without_this_sessions_token_does_nothing(
    shelf: Shelf, app: FastAPI, person: TestClient, path: str
) -> None:
    """Neither without one, nor with another session's, nor from another site."""
    shelf.failed()
    enter(person)
    with TestClient(app) as other:
        enter(other)
        theirs = form_token(other)
    ours = form_token(person)
    assert person.post(path, data={}).status_code == 403
    assert person.post(path, data={"csrf": theirs}).status_code == 403
    for headers in FOREIGN:
        assert person.post(path, data={"csrf": ours}, headers=headers).status_code == 403
    assert app.state.asked == []
    assert person.get("/").url.path == "/"


def test_signing_out_ends_the_session_of_this_browser(person: TestClient) -> None:
    """The next page asks for a key again."""
    enter(person)
    left = person.post("/sign-out", data={"csrf": form_token(person)})
    assert left.url.path == "/sign-in"
    assert person.get("/").url.path == "/sign-in"


def test_a_form_of_any_size_or_shape_does_no_harm(person: TestClient) -> None:
    """Too large is 413, nonsense is 422; neither is an error of ours."""
    assert person.post("/sign-in", content=b"key=" + b"x" * 20_000).status_code == 413
    assert person.post("/sign-in", content=b"&".join([b"a=b"] * 50)).status_code == 422
    assert person.post("/sign-in", content=b"\xff\xfe").status_code == 422
    assert person.post("/sign-in", content=b"key=%ff%00").status_code == 403


def test_the_door_sends_who_is_signed_in_on(person: TestClient) -> None:
    """But never to another site."""
    enter(person)
    on = person.get("/sign-in?next=/companies", follow_redirects=False)
    assert on.headers["location"] == "/companies"
    away = person.get("/sign-in?next=//evil.example", follow_redirects=False)
    assert away.headers["location"] == "/"
