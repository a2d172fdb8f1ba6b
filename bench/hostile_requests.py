"""Hostile HTTP requests as bytes, none of which is a delivery that may be stored.

Each is drawn from a seed and its number alone, so that a single one can be reproduced.
"""

import json
import random
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tests.processes import API_KEY, SECRET, failed_event, signed

FOREIGN_SECRET = "whsec_" + b64encode(b"f" * 32).decode()
PATH = b"/webhooks/codat"
BODY_LIMIT = 65_536
"""MAX_BODY_BYTES of the service under test: small, so that it is exceeded often."""

BODY = failed_event("s1")
FAMILIES = ("webhook", "svix")
Headers = list[tuple[bytes, bytes]]


class HostileRequest(NamedTuple):
    """A request; one that is not `complete` need not be answered."""

    kind: str
    data: bytes
    complete: bool = True
    method: str = "POST"


def hostile_request(seed: int, number: int) -> HostileRequest:
    """The request with this number in the run of this seed."""
    rng = random.Random(f"{seed}/{number}")
    return rng.choice(KINDS)(rng)


def _wire(method: bytes, path: bytes, headers: Headers, body: bytes = b"") -> bytes:
    """A request in HTTP/1.1; only the Host header is added, and nothing is checked."""
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: h"]
    return b"\r\n".join([*lines, *(n + b": " + v for n, v in headers), b"", body])


def _post(headers: Headers, body: bytes, path: bytes = PATH, method: bytes = b"POST") -> bytes:
    return _wire(method, path, [*headers, (b"Content-Length", str(len(body)).encode())], body)


def _encode(headers: dict[str, str]) -> Headers:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


_HEADER_BYTES = [b for b in range(1, 256) if b not in (10, 13)]
_ODD_VALUES = (
    b"", b" ", b"v1,", b"v1,====", b"v1," + b"A" * 44, b"v1a,x v1,y", b",", b"v1", b"\xff\xfe",
    b"0", b"-1", b"1e9", b"0x10", b"9" * 12, b"9" * 13, b"9" * 5000, b"1.5", b"NaN", b"+1",
    "١٢٣".encode(), "msg_ü".encode(), b"msg_" + b"x" * 300, b"v1,A " * 500, b"null", b"%00",
)  # fmt: skip


def _header_value(rng: random.Random) -> bytes:
    noise = bytes(rng.choices(_HEADER_BYTES, k=rng.randrange(60)))
    return rng.choice(_ODD_VALUES) if rng.random() < 0.7 else noise


def _spoil(rng: random.Random, name: bytes, value: bytes) -> Headers:
    """The header missing, twice, cut, renamed or changed; never as it was."""
    changed = (value[: len(value) // 2], b"x" + value, value[::-1] + b"!", _header_value(rng))
    ways: Sequence[Headers] = (
        [], [(name, value)] * 2, [(name + b"s", value)], [(name.upper(), rng.choice(changed))],
        [(name, rng.choice(changed))],
    )  # fmt: skip
    return rng.choice(ways)


def _forged_headers(rng: random.Random) -> HostileRequest:
    """Valid headers of both families, then at least one of each is spoiled."""
    body = failed_event(f"forged-{rng.randrange(10**9)}")
    headers: Headers = []
    for family in FAMILIES:
        valid = _encode(signed(body, f"msg_{rng.randrange(10**9)}", family=family))
        spoiled = set(rng.sample(range(3), rng.randint(1, 3)))
        for place, (name, value) in enumerate(valid):
            headers += _spoil(rng, name, value) if place in spoiled else [(name, value)]
    rng.shuffle(headers)
    return HostileRequest("headers", _post(headers, body))


_BODIES: Sequence[Callable[[random.Random], bytes]] = (
    lambda _: b"",
    lambda _: BODY,
    lambda _: json.dumps({"RuleType": "\0\ud800", "Data": [None] * 100}).encode(),
    lambda rng: rng.randbytes(rng.randrange(3000)),
    lambda rng: rng.choice((b"[", b'{"a":', b"9", b"\0")) * rng.randrange(10_000),
    lambda rng: BODY.decode().encode(rng.choice(("utf-16", "utf-32", "cp037"))),
    lambda rng: b"x" * (BODY_LIMIT + rng.randint(-2, 2)),
)


def _forged_body(rng: random.Random) -> HostileRequest:
    """A body other than the signed one, or a signature by another secret."""
    body = rng.choice(_BODIES)(rng)
    secret = rng.choice((FOREIGN_SECRET, SECRET))
    other = body if secret is FOREIGN_SECRET else body + b" "
    message_id, family = f"msg_{rng.randrange(10**9)}", rng.choice(FAMILIES)
    headers = _encode(signed(other, message_id, secret, family=family))
    return HostileRequest("body", _post(headers, body, method=rng.choice((b"POST", b"PUT"))))


def _stale(rng: random.Random) -> HostileRequest:
    """A valid signature of another time."""
    offset = timedelta(seconds=rng.choice((-1, 1)) * rng.randint(305, 10**8))
    headers = signed(BODY, "msg_stale", at=datetime.now(UTC) + offset)
    return HostileRequest("stale", _post(_encode(headers), BODY))


_LENGTHS = (
    b"-1", b"0", b"1", b"+5", b"5, 5", b"5, 6", b"0x5", b"9" * 30, b"18446744073709551615", b"",
    b" ", b"abc", b"60", b"80",
)  # fmt: skip


def _framing(rng: random.Random) -> HostileRequest:
    """Content lengths that are invalid or contradict each other."""
    headers = [(b"Content-Length", rng.choice(_LENGTHS)) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.3:
        headers.append((b"Transfer-Encoding", b"chunked"))
    return HostileRequest("framing", _wire(b"POST", PATH, headers, BODY), complete=False)


def _chunked(rng: random.Random) -> HostileRequest:
    """Chunked bodies: valid, endless, malformed, with extensions and trailers."""
    coding = rng.choice((b"chunked", b"Chunked", b"gzip, chunked", b"chunked, gzip", b"x", b""))
    data = b""
    for _ in range(rng.randrange(20)):
        chunk = rng.randbytes(rng.randrange(200))
        size = rng.choice((b"%x", b"%X", b"0%x", b"%x;a=b", b"%x ", b"-%x")) % len(chunk)
        data += size + b"\r\n" + chunk + b"\r\n"
    data += rng.choice((b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n", b"", b"g\r\n", b"f" * 17 + b"\r\n"))
    wire = _wire(b"POST", PATH, [(b"Transfer-Encoding", coding)], data)
    return HostileRequest("chunked", wire, complete=False)


_METHODS = (
    b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"BREW",
    b"post", b"P\xd6ST", b"POST/", b"", b"G" * 5000, b"PRI", b"QUERY", b"POST", b"POST", b"GET",
)  # fmt: skip
_PATHS = (
    PATH, PATH + b"/", b"/" + PATH, b"/webhooks/codat//", b"/webhooks/codat/x", b"/livez", b"h:80",
    b"/webhooks%2fcodat", b"/webhooks/codat%00", b"/webhooks/codat;a=b", b"/webhooks/codat?x=%ff",
    b"/webhooks/codat#f", b"/Webhooks/Codat", b"/./webhooks/../webhooks/codat", b"/api/v1/syncs",
    b"http://h/webhooks/codat", b"http://h", b"*", b"", b"/%", b"/%zz", b"/%ff", b"/\xff", b"/docs",
    b"/" + b"a" * 9000, b"/" * 3000, b"/openapi.json", b"/livez?x=" + b"%0d%0a" * 9,
    b"/..%5c..%5cetc/passwd", b"/metrics/..",
)  # fmt: skip


def _odd_target(rng: random.Random) -> HostileRequest:
    """Odd methods and paths, without a signature."""
    method, path = rng.choice(_METHODS), rng.choice(_PATHS)
    if rng.random() < 0.2:
        path += rng.choice((b"?", b"%", b"\x80", b"/", b"&a=b", b"\t", b" ", b"\x01"))
    data = _post([], b"{}", path, method)
    return HostileRequest("target", data, complete=False, method=method.decode("latin-1"))


_READS = (
    *("/api/v1/syncs", "/api/v1/syncs/{}", "/api/v1/syncs/{}/transactions", "/api/v1/push-errors"),
    *("/api/v1/syncs/{}/timeline", "/api/v1/companies", "/api/v1/companies/{}", "/api/v1/stats"),
    *("/api/v1/companies/{}/syncs/latest", "/api/v1/companies/{}/transactions/{}"),
    *("/api/v1/events", "/api/v1/events/{}", "/api/v1/alerts", "/api/v1/changes"),
    *("/api/v1/causes", "/api/v1/causes/{}", "/codat/companies"),
    "/codat/companies/{}/sync/expenses/syncs/{}/transactions",
)
_PARAMETERS = (
    "company_id", "state", "outcome", "status_code", "cause", "from", "to", "q", "sort", "limit",
    "cursor", "format", "open", "failed", "status", "parse_status", "body", "page", "pageSize",
    "after", "x",
)  # fmt: skip
_VALUES = (
    "", "0", "-1", "1", "1e3", "9" * 30, "null", "true", "%00", "%ff", "%ed%a0%80", "'", "%25",
    "%27%20OR%201=1--", "_", "[]", "failed", "partly_failed", "2026-01-01", "0001-01-01",
    "9999-12-31T23:59:59-14:00", "2026-13-45", "-updated_at", "csv", "eyJhIjoxfQ", "A" * 3000,
    "%F0%9F%92%A9", "AAAA", "%5c", "%0d%0aX:%20y", "..%2f..", "NaN", "Infinity", "-0",
)  # fmt: skip
_HEADERS = (b"If-None-Match", b"Accept", b"Range", b"Cookie", b"Content-Type", b"X-Forwarded-For")


def _odd_query(rng: random.Random) -> HostileRequest:
    """Reads with a valid key and odd values."""
    path = rng.choice(_READS).replace("{}", rng.choice(_VALUES) or "-")
    pairs = [f"{rng.choice(_PARAMETERS)}={rng.choice(_VALUES)}" for _ in range(rng.randrange(4))]
    headers: Headers = [(b"Authorization", b"Bearer " + API_KEY.encode())]
    if rng.random() < 0.3:
        headers.append((rng.choice(_HEADERS), _header_value(rng)))
    data = _wire(b"GET", f"{path}?{'&'.join(pairs)}".encode(), headers)
    return HostileRequest("query", data, method="GET")


def _wrong_key(rng: random.Random) -> HostileRequest:
    """Authorization headers of every kind but the right one."""
    schemes = (b"Bearer", b"Basic", b"bearer", b"Digest", b"", b"Bearer Bearer", b"Negotiate")
    keys = (_header_value(rng), API_KEY[:-1].encode(), API_KEY.encode() + b"x", b"dXNlcjpwYXNz")
    headers = [(b"Authorization", rng.choice(schemes) + b" " + rng.choice(keys))]
    headers *= 2 if rng.random() < 0.2 else 1
    path = rng.choice((b"/api/v1/syncs", b"/codat/companies", b"/api/v1/syncs/x/refresh"))
    return HostileRequest("key", _wire(b"GET", path, headers), method="GET")


_ODD_HEADERS: Headers = [
    (b"X Y", b"1"), (b"", b"1"), (b"X", b"1\r\n folded"), (b"X\0", b"1"), (b"Host", b"b"),
    (b"Expect", b"100-continue"), (b"Upgrade", b"websocket\r\nConnection: Upgrade"),
    (b"Upgrade", b"h2c\r\nConnection: Upgrade, HTTP2-Settings"), (b"Connection", b"close"),
    (b"Content-Encoding", b"gzip"), (b"X", b"a" * 70_000), (b"\xff", b"\xff"),
]  # fmt: skip


def _many_headers(rng: random.Random) -> HostileRequest:
    count = rng.choice((1, 50, 500, 2000))
    headers = [(b"X-%d" % n, bytes(rng.choices(_HEADER_BYTES, k=25))) for n in range(count)]
    headers.append(rng.choice(_ODD_HEADERS))
    return HostileRequest("many headers", _post(headers, BODY), complete=False)


_GARBAGE = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"\0",
    b"\r\n" * 100, b"POST /webhooks/codat HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\n\n", b"\x16\x03\x01",
    b"POST /webhooks/codat HTTP/1.1\r\nContent-Length: 0\r\n\r\n" * 30,
)  # fmt: skip


def _garbage(rng: random.Random) -> HostileRequest:
    """Bytes that are not HTTP, or another HTTP than ours."""
    data = rng.choice(_GARBAGE) + rng.randbytes(rng.choice((0, 1, 300)))
    return HostileRequest("garbage", data, complete=False)


KINDS: Sequence[Callable[[random.Random], HostileRequest]] = (
    _forged_headers, _forged_headers, _forged_headers, _forged_body, _forged_body, _stale,
    _framing, _chunked, _odd_target, _odd_target, _odd_query, _odd_query, _wrong_key,
    _many_headers, _garbage,
)  # fmt: skip
