"""Signing in and out, sessions and how long they are valid, and which forms are accepted."""

import re
from datetime import timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.settings import Settings, load_settings
from app.web.pages.sessions import COOKIE, LIFETIME, create_session, local_address, read_session
from app.web.pages.sign_in import FAILURE_WINDOW_S, MAX_ADDRESSES, MAX_FAILURES, Throttle
from tests.web.pages.html import form_token, session_cookies, sign_in, text
from tests.web.store import KEY, NOW, Store

OTHER = "another-key-as-long"
FOREIGN = [{"sec-fetch-site": site} for site in ("cross-site", "same-site")] + [
    {"origin": origin} for origin in ("https://evil.example", "null", "http://testserver.evil.test")
]
OURS = [
    {"sec-fetch-site": "same-origin"},
    {"origin": "http://testserver"},
    {"origin": "https://public.example", "x-forwarded-host": "public.example"},
]


def with_keys(*keys: str) -> Settings:
    return load_settings(api_keys=",".join(keys))


def cookie(settings: Settings, key: str = KEY) -> str:
    created = create_session(settings, key, NOW)
    assert created
    return created


def test_every_replica_with_the_key_reads_the_same_session() -> None:
    created = cookie(with_keys(KEY, OTHER))
    assert KEY not in created
    session = read_session(with_keys(OTHER, KEY), created, NOW)
    assert session
    assert session == read_session(with_keys(KEY), created, NOW)


def test_a_session_ends_with_its_time_and_with_its_key() -> None:
    ours, theirs = cookie(with_keys(KEY, OTHER)), cookie(with_keys(KEY, OTHER), OTHER)
    assert read_session(with_keys(KEY, OTHER), ours, NOW + LIFETIME - timedelta(seconds=1))
    assert read_session(with_keys(KEY, OTHER), ours, NOW + LIFETIME) is None
    assert read_session(with_keys(OTHER), ours, NOW) is None
    assert read_session(with_keys(OTHER), theirs, NOW)


def test_other_texts_than_a_key_or_a_cookie_are_no_session() -> None:
    wrong = ["", "wrong", KEY[:-1], KEY + "x", KEY.upper(), "\udcff"]
    assert [key for key in wrong if create_session(with_keys(KEY), key, NOW)] == []
    created = cookie(with_keys(KEY))
    expires, rest = created.split(".", 1)
    forged = [f"{int(expires) + 1}.{rest}", created[:-1], created + "0", "", ".", "x.y.z", "é" * 9]
    assert [fake for fake in forged if read_session(with_keys(KEY), fake, NOW)] == []


def test_addresses_of_other_sites_are_replaced() -> None:
    for address in (
        "//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "evil",
        "javascript:alert(1)", "/\tevil", "/a\r\nSet-Cookie: x=y", "", "/é", "http:/x", "///x",
        "//[", "/\x00", " /x",
    ):  # fmt: skip
        assert local_address(address) == "/"


def test_visitors_sign_in_and_come_back_to_the_whole_address(visitor: TestClient) -> None:
    address = "/syncs/a%2Fb?company_id=c%201"
    refused = visitor.get(address, follow_redirects=False)
    assert refused.status_code == 303
    assert refused.headers["location"] == "/sign-in?next=/syncs/a%252Fb%3Fcompany_id%3Dc%25201"
    assert "frame-ancestors 'none'" in refused.headers["content-security-policy"]
    form = visitor.get(refused.headers["location"]).text
    assert f'name="next" value="{address}"' in form
    data = {"key": f" {KEY} ", "next": address}
    accepted = visitor.post("/sign-in", data=data, follow_redirects=False)
    assert accepted.headers["location"] == address


@pytest.mark.parametrize(
    ("referrer", "landing"),
    [
        ("http://testserver/syncs/s%2F1?company_id=c1&failed=true#items",
         "/syncs/s%2F1?company_id=c1&failed=true"),
        ("https://elsewhere.example/x", "/syncs/s%2F1"), (None, "/syncs/s%2F1"),
    ],
)  # fmt: skip
def test_an_action_after_the_session_has_ended_is_not_lost_without_a_word(
    store: Store, user: TestClient, referrer: str | None, landing: str
) -> None:
    store.failed("s/1")
    data = {"csrf": form_token(user), "company_id": "c1"}
    user.cookies.clear()
    headers = {"referer": referrer} if referrer else {}
    answer = user.post("/syncs/s%2F1/refresh", data=data, headers=headers)
    assert answer.url.path == "/sign-in"
    notice = "Your session had expired: “Refresh from Codat” was not carried out. Select it again."
    assert notice in text(answer.text)
    answer = user.post("/sign-in", data={"key": KEY, "next": answer.url.params["next"]})
    assert str(answer.url).removeprefix("http://testserver") == landing
    assert notice in text(answer.text)
    assert "Refresh requested" not in text(answer.text)
    assert notice not in text(user.get(landing).text)


def test_the_sign_in_page_says_that_a_session_has_expired(visitor: TestClient) -> None:
    assert "expired" not in visitor.get("/companies").text
    visitor.cookies.set(f"{COOKIE}_of_another_installation", "1.2.3")
    assert "expired" not in visitor.get("/companies").text
    sign_in(visitor)
    name = session_cookies(visitor)[-1]
    visitor.cookies.set(name, "1.2.3", domain="testserver.local")
    assert "Your session has expired." in visitor.get("/companies").text


@pytest.mark.parametrize(
    "path",
    [
        "/", "/syncs/s1", "/syncs/s1/json", "/syncs.csv", "/companies", "/companies/c1",
        "/companies/c1/transactions/t1", "/companies/c1/config", "/companies/c1/config.json",
        "/causes", "/causes/account_inactive", "/causes/account_inactive/open.csv",
        "/events", "/events/m1", "/outgoing", "/setup/codat",
    ],
)  # fmt: skip
def test_nothing_is_shown_without_a_session(store: Store, visitor: TestClient, path: str) -> None:
    store.failed()
    store.event("m1")
    for headers in ({}, {"Authorization": f"Bearer {KEY}"}):
        response = visitor.get(path, headers=headers, follow_redirects=False)
        assert (response.status_code, response.content) == (303, b"")


@pytest.mark.parametrize(
    ("base", "proto", "secure"),
    [("http://host", "", False), ("https://host", "", True), ("http://host", "https", True)],
)
def test_the_cookie_is_hidden_from_scripts_and_other_sites(
    visitor: TestClient, base: str, proto: str, secure: bool
) -> None:
    headers, data = {"x-forwarded-proto": proto}, {"key": KEY}
    response = visitor.post(f"{base}/sign-in", data=data, headers=headers, follow_redirects=False)
    attributes = response.headers["set-cookie"].lower().split("; ")
    assert {"httponly", "samesite=lax"} <= set(attributes)
    assert ("secure" in attributes) is secure


@pytest.mark.parametrize("path", ["/syncs/s1/refresh", "/syncs/s1/retry", "/sign-out"])
def test_forms_without_the_token_of_this_session_are_rejected(
    store: Store, app: FastAPI, user: TestClient, path: str
) -> None:
    store.failed()
    with TestClient(app) as other:
        sign_in(other)
        theirs = form_token(other)
    ours = form_token(user)
    for data in ({}, {"csrf": theirs}):
        assert user.post(path, data=data).status_code == 403
    for headers in FOREIGN:
        response = user.post(path, data={"csrf": ours}, headers=headers)
        assert response.status_code == 403
        assert "Form expired" in response.text
    assert "Refresh requested" not in user.get("/syncs/s1").text
    assert user.get("/").url.path == "/"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"key=" + b"x" * 20_000, 413), (b"&".join([b"a=b"] * 50), 422), (b"\xff\xfe", 422),
     (b"key=%ff%00", 403)],
)  # fmt: skip
def test_forms_of_any_size_and_shape_are_answered(
    visitor: TestClient, body: bytes, status: int
) -> None:
    assert visitor.post("/sign-in", content=body).status_code == status


def test_failures_make_an_address_wait_until_they_are_old() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for _ in range(MAX_FAILURES):
        assert throttle.wait_seconds("a") == 0
        throttle.record_failure("a")
    assert throttle.wait_seconds("a") == FAILURE_WINDOW_S
    assert throttle.wait_seconds("b") == 0
    now[0] = FAILURE_WINDOW_S
    assert throttle.wait_seconds("a") == 0
    throttle.record_failure("a")
    throttle.reset("a")
    assert throttle.wait_seconds("a") == 0
    # a flood of addresses does not fill the memory
    for name in ["first"] * MAX_FAILURES + list(map(str, range(MAX_ADDRESSES))):
        throttle.record_failure(name)
    assert len(throttle._failures) == MAX_ADDRESSES
    assert throttle.wait_seconds("first") == 0


def test_after_too_many_wrong_keys_even_the_right_one_has_to_wait(visitor: TestClient) -> None:
    for _ in range(MAX_FAILURES):
        rejected = visitor.post("/sign-in", data={"key": "guess"})
        assert rejected.status_code == 403
        assert "Invalid API key." in rejected.text
        assert "guess" not in rejected.text
    late = visitor.post("/sign-in", data={"key": KEY})
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) > 0
    assert "Too many failed attempts. Try again in 6 minutes." in late.text
    assert session_cookies(visitor) == []


@pytest.mark.parametrize("headers", [*FOREIGN, *OURS])
def test_only_our_own_page_signs_a_visitor_in(visitor: TestClient, headers: dict[str, str]) -> None:
    response = visitor.post("/sign-in", data={"key": KEY}, headers=headers, follow_redirects=False)
    assert response.status_code == (303 if headers in OURS else 403)
    assert bool(session_cookies(visitor)) is (headers in OURS)


@pytest.mark.parametrize(
    ("public_url", "host", "origin", "is_ours"),
    [
        # nginx's `proxy_set_header Host $host` drops the port
        ("", "sync.test", "http://sync.test:8080", True),
        ("", "sync.test:8080", "http://sync.test:8080", True),
        ("", "sync.test:443", "https://sync.test", True),
        ("", "SYNC.test", "http://sync.test", True),
        ("", "[::1]", "http://[::1]:8080", True),
        ("", "sync.test:8080", "http://sync.test:9090", False),
        ("", "sync.test:8080", "http://sync.test", False),
        ("", "sync.test", "http://sync.test.evil.example:8080", False),
        ("", "sync.test", "http://evil.example/sync.test", False),
        ("", "sync.test", "null", False),
        ("", "sync.test", "http://sync.test:x", False),
        ("", "[", "http://[", False),
        ("", "", "http://", False),
        # nginx's default `Host` is that of the upstream
        ("http://Sync.test:8080/a", "web:8000", "http://sync.test:8080", True),
        ("https://sync.test", "sync.test", "https://sync.test", True),
        ("https://sync.test", "web:8000", "https://sync.test:443", True),
        ("https://sync.test", "sync.test", "https://sync.test:8443", False),
        ("https://sync.test", "sync.test", "http://evil.example", False),
    ],
)
def test_forms_are_of_the_address_that_people_use(
    app: FastAPI, visitor: TestClient, public_url: str, host: str, origin: str, is_ours: bool
) -> None:
    """Over plain HTTP, where browsers do not say more."""
    app.state.settings = load_settings(api_keys=KEY, public_url=public_url or None)
    headers = {"host": host, "origin": origin}
    response = visitor.post("/sign-in", data={"key": KEY}, headers=headers, follow_redirects=False)
    assert response.status_code == (303 if is_ours else 403)
    if not is_ours:
        assert "set PUBLIC_URL" in response.text


@pytest.mark.parametrize(
    ("host", "changes"),
    [
        ("host:9090", {}),
        ("host:8080", {"root_path": "/b"}),
        ("host:8080", {"public_url": "http://host:9090"}),
        ("host:8080", {"database_url": "sqlite:///data/other.db"}),
        ("host:8080", {"api_keys": "another-key-as-long"}),
    ],
)
def test_installations_on_one_host_have_sessions_of_their_own(
    app: FastAPI, visitor: TestClient, host: str, changes: dict[str, str]
) -> None:
    """Although the browser sends the cookies of all of them to each."""

    def is_signed_in(settings: Settings, host: str) -> bool:
        app.state.settings = settings
        answer = visitor.get("/companies", headers={"host": host}, follow_redirects=False)
        return answer.status_code == 200

    def post(settings: Settings, host: str, path: str, **data: str) -> None:
        app.state.settings = settings
        answer = visitor.post(path, data=data, headers={"host": host}, follow_redirects=False)
        assert answer.status_code == 303

    ours = load_settings(api_keys=KEY)
    theirs = load_settings(**{"api_keys": KEY} | changes)
    for settings, port in ((ours, "host:8080"), (theirs, host)):
        key = settings.api_keys[0].key.get_secret_value()
        post(settings, port, "/sign-in", key=key)
    assert is_signed_in(ours, "host:8080")
    assert is_signed_in(theirs, host)
    answer = visitor.get("/companies", headers={"host": host})
    token = re.search(r'name="csrf" value="(\w+)"', answer.text)
    assert token
    post(theirs, host, "/sign-out", csrf=token[1])
    assert not is_signed_in(theirs, host)
    assert is_signed_in(ours, "host:8080")


def test_signed_in_users_are_sent_on_until_they_sign_out(user: TestClient) -> None:
    """Never to another site."""
    for address, target in (("/companies", "/companies"), ("//evil.test", "/")):
        response = user.get(f"/sign-in?next={address}", follow_redirects=False)
        assert response.headers["location"] == target
    assert user.post("/sign-out", data={"csrf": form_token(user)}).url.path == "/sign-in"
    assert user.get("/").url.path == "/sign-in"
