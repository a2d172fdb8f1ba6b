"""Hostile requests, as bytes, from a seed: none of them is a delivery that may be kept.

Each is drawn by itself from its number, so a single one can be made again.
"""

import json
import random
import string
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from svix.webhooks import Webhook

from tests.processes import API_KEY, SECRET

FOREIGN = "whsec_" + b64encode(b"f" * 32).decode()
DOOR = b"/webhooks/codat"
BODY_LIMIT = 65_536
"""MAX_BODY_BYTES while fuzzing: small, so that too much is soon reached."""

FAMILIES = ("webhook", "svix")
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Hostile:
    """One request: what goes over the wire, whether it is whole, and what it asks with."""

    kind: str
    wire: bytes
    whole: bool = True
    method: str = "POST"


def request(seed: int, number: int) -> Hostile:
    """The request of this number in this seed's run."""
    chance = random.Random(f"{seed}/{number}")
    make: Callable[[random.Random], Hostile] = chance.choice(KINDS)
    return make(chance)


def sync_body(sync_id: str = "s1") -> bytes:
    """What Codat tells of a failed sync."""
    told = {"RuleType": "Sync Failed", "CompanyId": "c1", "Data": {"syncId": sync_id}}
    return json.dumps(told).encode()


def signed_headers(
    body: bytes,
    message_id: str,
    *,
    secret: str = SECRET,
    at: datetime | None = None,
    family: str = "webhook",
) -> dict[str, str]:
    """One complete family for this body, by default signed rightly and now."""
    at = at or datetime.now(UTC)
    return {
        f"{family}-id": message_id,
        f"{family}-timestamp": str(int(at.timestamp())),
        f"{family}-signature": Webhook(secret).sign(message_id, at, body.decode("latin-1")),
    }


def wire(method: bytes, path: bytes, headers: Headers, body: bytes = b"") -> bytes:
    """A request as HTTP/1.1 writes it; nothing is checked or added but the Host."""
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: h"]
    return b"\r\n".join([*lines, *(n + b": " + v for n, v in headers), b"", body])


def _posted(headers: Headers, body: bytes, path: bytes = DOOR, method: bytes = b"POST") -> bytes:
    return wire(method, path, [*headers, (b"Content-Length", str(len(body)).encode())], body)


def _encoded(headers: dict[str, str]) -> Headers:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


def _noise(chance: random.Random, most: int = 60) -> bytes:
    """Anything that a header's value may hold without ending it."""
    allowed = [b for b in range(1, 256) if b not in (10, 13)]
    return bytes(chance.choices(allowed, k=chance.randrange(most)))


def _header_noise(chance: random.Random) -> bytes:
    odd: Sequence[bytes] = (
        b"", b" ", b"v1,", b"v1,====", b"v1," + b"A" * 44, b"v1a,x v1,y", b",", b"v1", b"\xff\xfe",
        b"0", b"-1", b"1e9", b"0x10", b"9" * 12, b"9" * 13, b"9" * 5000, b"1.5", b"NaN", b"+1",
        "١٢٣".encode(), "msg_ü".encode(), b"msg_" + b"x" * 300, b"v1,A " * 500, b"null", b"%00",
    )  # fmt: skip
    return chance.choice(odd) if chance.random() < 0.7 else _noise(chance)


def forged_headers(chance: random.Random) -> Hostile:
    """A right signature of both families, then at least one header of each is spoilt."""
    body = sync_body(f"forged-{chance.randrange(10**9)}")
    headers: Headers = []
    for family in FAMILIES:
        good = _encoded(signed_headers(body, f"msg_{chance.randrange(10**9)}", family=family))
        spoilt = set(chance.sample(range(3), chance.randint(1, 3)))
        for place, (name, value) in enumerate(good):
            headers += _spoilt(chance, name, value) if place in spoilt else [(name, value)]
    chance.shuffle(headers)
    return Hostile("headers", _posted(headers, body))


def _spoilt(chance: random.Random, name: bytes, value: bytes) -> Headers:
    """Missing, twice, cut, another's or noise; its letters in any case. Never as it was."""
    ways: Sequence[Headers] = (
        [],
        [(name, value), (name, value)],
        [(name, value[: len(value) // 2])],
        [(name, b"x" + value)],
        [(name.upper(), value[::-1] + b"!")],
        [(name, _header_noise(chance))],
        [(name + b"s", value)],
    )
    return chance.choice(ways)


def forged_body(chance: random.Random) -> Hostile:
    """Another body than the signed one, or signed with a secret of somebody else's."""
    body = _body(chance)
    secret = FOREIGN if chance.random() < 0.5 else SECRET
    signed = body if secret is FOREIGN else body + b" "
    family = chance.choice(FAMILIES)
    headers = signed_headers(signed, f"msg_{chance.randrange(10**9)}", secret=secret, family=family)
    method = chance.choice((b"POST", b"PUT"))
    return Hostile("body", _posted(_encoded(headers), body, method=method))


def _body(chance: random.Random) -> bytes:
    ways: Sequence[Callable[[], bytes]] = (
        lambda: b"",
        lambda: sync_body(),
        lambda: chance.randbytes(chance.randrange(3000)),
        lambda: b"[" * chance.randrange(BODY_LIMIT),
        lambda: b'{"a":' * chance.randrange(10_000),
        lambda: b'{"n":' + b"9" * chance.randrange(20_000) + b"}",
        lambda: json.dumps({"RuleType": "\0\ud800", "Data": [None] * 100}).encode(),
        lambda: sync_body().decode().encode(chance.choice(("utf-16", "utf-32", "cp037"))),
        lambda: b"x" * (BODY_LIMIT + chance.randint(-2, 2)),
        lambda: b"\0" * chance.randrange(5000),
    )
    return chance.choice(ways)()


def stale(chance: random.Random) -> Hostile:
    """Signed rightly, but for another time."""
    away = timedelta(seconds=chance.choice((-1, 1)) * chance.randint(305, 10**8))
    body = sync_body()
    headers = signed_headers(body, "msg_stale", at=datetime.now(UTC) + away)
    return Hostile("stale", _posted(_encoded(headers), body))


def framing(chance: random.Random) -> Hostile:
    """Lengths that are none, that contradict each other, and chunks that are none."""
    body = sync_body()
    lengths: Sequence[bytes] = (
        b"-1", b"0", b"1", b"+5", b"5, 5", b"5, 6", b"0x5", b"9" * 30, b"18446744073709551615",
        b"", b" ", b"abc", str(len(body) + 10).encode(), str(len(body) - 10).encode(),
    )  # fmt: skip
    headers = [(b"Content-Length", chance.choice(lengths)) for _ in range(chance.randint(1, 2))]
    if chance.random() < 0.3:
        headers.append((b"Transfer-Encoding", b"chunked"))
    return Hostile("framing", wire(b"POST", DOOR, headers, body), whole=False)


def chunked(chance: random.Random) -> Hostile:
    """Chunks: honest, endless, misspelt, with extensions and trailers."""
    coding = chance.choice((b"chunked", b"Chunked", b"gzip, chunked", b"chunked, gzip", b"x", b""))
    pieces = []
    for _ in range(chance.randrange(20)):
        piece = chance.randbytes(chance.randrange(200))
        size = chance.choice((b"%x", b"%X", b"0%x", b"%x;a=b", b"%x ", b"-%x")) % len(piece)
        pieces.append(size + b"\r\n" + piece + b"\r\n")
    end = chance.choice((b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n", b"", b"g\r\n", b"f" * 17 + b"\r\n"))
    headers = [(b"Transfer-Encoding", coding)]
    return Hostile("chunked", wire(b"POST", DOOR, headers, b"".join(pieces) + end), whole=False)


_METHODS = (
    b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"BREW",
    b"post", b"P\xd6ST", b"POST/", b"", b"G" * 5000, b"PRI", b"QUERY",
)  # fmt: skip


def odd_method(chance: random.Random) -> Hostile:
    """Methods that exist, that do not, and that cannot."""
    method = chance.choice(_METHODS)
    path = chance.choice((DOOR, DOOR + b"/", b"/livez", b"/api/v1/syncs", b"*", b"h:80"))
    sent = wire(method, path, [(b"Content-Length", b"2")], b"{}")
    return Hostile("method", sent, whole=False, method=method.decode("latin-1"))


_PATHS = (
    b"//webhooks/codat", b"/webhooks/codat//", b"/webhooks/codat/x", b"/webhooks%2fcodat",
    b"/webhooks/codat%00", b"/webhooks/codat;a=b", b"/webhooks/codat?x=%ff", b"/webhooks/codat#f",
    b"/Webhooks/Codat", b"/./webhooks/../webhooks/codat", b"http://h/webhooks/codat", b"http://h",
    b"*", b"", b"/%", b"/%zz", b"/%ff", b"/\xff", b"/" + b"a" * 9000, b"/" * 3000, b"/docs",
    b"/openapi.json", b"/livez?x=" + b"%0d%0a" * 9, b"/..%5c..%5cetc/passwd", b"/metrics/..",
)  # fmt: skip


def odd_path(chance: random.Random) -> Hostile:
    """Paths near the door's, far from any, and no paths at all; without a valid signature."""
    path = chance.choice(_PATHS)
    if chance.random() < 0.3:
        path += chance.choice((b"?", b"%", b"\x80", b"/", b"&a=b", b"\t", b" ", b"\x01"))
    method = chance.choice((b"POST", b"GET"))
    sent = _posted([], b"{}", path, method)
    return Hostile("path", sent, whole=False, method=method.decode())


_API = (
    "syncs", "syncs/{}", "syncs/{}/transactions", "syncs/{}/timeline", "companies", "companies/{}",
    "companies/{}/syncs/latest", "companies/{}/transactions/{}", "push-errors", "events", "stats",
    "events/{}", "alerts",
)  # fmt: skip
_PARAMETERS = (
    "company_id", "state", "outcome", "status_code", "cause", "from", "to", "q", "sort", "limit",
    "cursor", "format", "open", "failed", "status", "reading", "body", "page", "pageSize", "x",
)  # fmt: skip
_VALUES = (
    "", "0", "-1", "1", "1e3", "9" * 30, "null", "true", "%00", "%ff", "%ed%a0%80", "'", "%25",
    "%27%20OR%201=1--", "_", "[]", "failed", "partly_failed", "2026-01-01", "0001-01-01",
    "9999-12-31T23:59:59-14:00", "2026-13-45", "-updated_at", "csv", "eyJhIjoxfQ", "A" * 3000,
    "%F0%9F%92%A9", "AAAA", "%5c", "%0d%0aX:%20y", "..%2f..", "NaN", "Infinity", "-0",
)  # fmt: skip


def odd_question(chance: random.Random) -> Hostile:
    """Our own API and the mirror, asked with a valid key for what cannot be."""
    path = chance.choice(_API).replace("{}", chance.choice(_VALUES) or "-")
    query = "&".join(
        f"{chance.choice(_PARAMETERS)}={chance.choice(_VALUES)}" for _ in range(chance.randrange(4))
    )
    syncs = "companies/{}/sync/expenses/syncs/{}/transactions".replace("{}", chance.choice(_VALUES))
    prefix, path = chance.choice((("/api/v1/", path), ("/codat/", syncs), ("/codat/", "companies")))
    headers: Headers = [(b"Authorization", b"Bearer " + API_KEY.encode())]
    if chance.random() < 0.3:
        names = (
            b"If-None-Match",
            b"Accept",
            b"Range",
            b"Cookie",
            b"Content-Type",
            b"X-Forwarded-For",
        )
        headers.append((chance.choice(names), _header_noise(chance)))
    address = f"{prefix}{path}?{query}".encode()
    return Hostile("question", wire(b"GET", address, headers), method="GET")


def wrong_key(chance: random.Random) -> Hostile:
    """Authorization headers of every kind but the right one."""
    words = (b"Bearer", b"Basic", b"bearer", b"Digest", b"", b"Bearer Bearer", b"Negotiate")
    letters = string.ascii_letters.encode()
    key = chance.choice((
        _header_noise(chance), API_KEY[:-1].encode(), API_KEY.encode() + b"x",
        b64encode(bytes(chance.choices(letters, k=20))),
    ))  # fmt: skip
    headers = [(b"Authorization", chance.choice(words) + b" " + key)]
    if chance.random() < 0.2:
        headers *= 2
    path = chance.choice((b"/api/v1/syncs", b"/codat/companies", b"/api/v1/syncs/x/refresh"))
    return Hostile("key", wire(b"GET", path, headers), method="GET")


def many_headers(chance: random.Random) -> Hostile:
    """Many headers, long headers, folded headers, names that are none."""
    count = chance.choice((1, 50, 500, 2000))
    headers = [(b"X-%d" % n, _noise(chance, 50)) for n in range(count)]
    headers.append(chance.choice((
        (b"X Y", b"1"), (b"", b"1"), (b"X", b"1\r\n folded"), (b"X\0", b"1"), (b"Host", b"b"),
        (b"Expect", b"100-continue"), (b"Upgrade", b"websocket\r\nConnection: Upgrade"),
        (b"Upgrade", b"h2c\r\nConnection: Upgrade, HTTP2-Settings"), (b"Connection", b"close"),
        (b"Content-Encoding", b"gzip"), (b"X", b"a" * 70_000), (b"\xff", b"\xff"),
    )))  # fmt: skip
    return Hostile("many headers", _posted(headers, sync_body()), whole=False)


def garbage(chance: random.Random) -> Hostile:
    """Bytes that are no HTTP, and HTTP that is none of ours."""
    sent = chance.choice((
        chance.randbytes(chance.randrange(1, 500)), b"\x16\x03\x01" + chance.randbytes(100),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n",
        b"\r\n" * 100, b"POST /webhooks/codat HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\n\n", b"\0",
        b"POST /webhooks/codat HTTP/1.1\r\nContent-Length: 0\r\n\r\n" * 30,
    ))  # fmt: skip
    return Hostile("garbage", sent, whole=False)


KINDS: Sequence[Callable[[random.Random], Hostile]] = (
    forged_headers, forged_headers, forged_headers, forged_body, forged_body, stale, framing,
    chunked, odd_method, odd_path, odd_question, odd_question, wrong_key, many_headers, garbage,
)  # fmt: skip
