"""Proxies and certificates of the environment: used as curl does, or named in the error."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import certifi
import httpx
import pytest

from app.codat import transport as transport_module
from app.codat.client import CodatClient
from app.codat.transport import EnvironmentTransport
from app.errors import CodatUnavailable

CODAT = "https://codat.test"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment without proxies and certificates."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("SSL_"):
            monkeypatch.delenv(name)
    transport_module._tls_context.cache_clear()
    yield
    transport_module._tls_context.cache_clear()


async def get_through_proxy(url: str) -> list[bytes]:
    """The request lines and authorizations that reach a proxy at 127.0.0.1:{port}."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        seen.extend([lines[0], *(line for line in lines if line.lower().startswith(b"proxy-auth"))])
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for name, value in os.environ.items():
            if "PORT" in value:
                os.environ[name] = value.replace("PORT", str(port))
        async with httpx.AsyncClient(transport=EnvironmentTransport()) as http:
            try:
                await http.get(url)
            except httpx.HTTPError:
                seen.append(b"no tunnel")
    return seen


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("HTTP_PROXY", "127.0.0.1:PORT", []),
        ("http_proxy", "http://127.0.0.1:PORT/", []),
        (
            "HTTP_PROXY",
            "HTTP://me:pw@127.0.0.1:PORT",
            [b"Proxy-Authorization: Basic bWU6cHc="],
        ),
        ("ALL_PROXY", "127.0.0.1:PORT", []),
    ],
)
def test_a_proxy_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, more: list[bytes]
) -> None:
    monkeypatch.setenv(name, value)
    seen = asyncio.run(get_through_proxy("http://codat.test/x"))
    assert seen == [b"GET http://codat.test/x HTTP/1.1", *more]


def test_https_goes_through_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "127.0.0.1:PORT")
    monkeypatch.setenv("HTTP_PROXY", "socks5://unused")  # another scheme's does not matter
    seen = asyncio.run(get_through_proxy(f"{CODAT}/x"))
    assert seen[0] == b"CONNECT codat.test:443 HTTP/1.1"


@pytest.mark.parametrize(
    "value",
    [
        "socks5://me:canary@proxy:1080", "socks5h://proxy", "socks4://proxy", "socks4a://proxy:1",
        "socks://proxy", "ftp://proxy:21", "quic://proxy", "http://", "http://me:canary@",
        "http://proxy:port", "proxy:99999", "http://[::1", "http://me:can/ary@[", "://", "http://\x01",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "https_proxy"])
def test_a_proxy_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A call fails with the reason, and making the client does not."""
    monkeypatch.setenv(name, value)

    async def call() -> None:
        async with CodatClient(CODAT, "key") as codat:
            await codat.get_status("c", "s")

    with pytest.raises(CodatUnavailable) as caught:
        asyncio.run(call())
    assert f"Cannot connect to Codat ({name.upper()}=" in str(caught.value)
    assert str(EnvironmentTransport().problem(CODAT)) in str(caught.value)
    assert not any(part in str(caught.value) for part in ("canary", "can/", "ary@"))
    assert EnvironmentTransport().problem("http://127.0.0.1:9") is None
    assert EnvironmentTransport().problem("http://localhost:9") is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("*", CODAT, True),
        ("codat.test", CODAT, True),
        ("x,.test", CODAT, True),
        ("x *.test", CODAT, True),
        ("CODAT.TEST:443", CODAT, True),
        ("codat.test:80", CODAT, False),
        ("odat.test", CODAT, False),
        ("", CODAT, False),
        (",, .", CODAT, False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", CODAT, False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("fd00::/8", "https://[fd00::1]", True),
        ("[fd00::1]:8443", "https://[fd00::1]:8443", True),
        ("fd00::1", "https://[fd00::1]", True),
        ("http://x/ [", CODAT, False),
    ],
)
def test_no_proxy_is_understood_as_by_curl(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, is_direct: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (EnvironmentTransport().problem(url) is None) is is_direct


def test_certificates_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no certificate")
    nope = tmp_path / "nope"
    for name, value, problem in (
        ("SSL_CERT_FILE", str(nope), f"SSL_CERT_FILE={nope}: No such file or directory"),
        ("SSL_CERT_FILE", str(tmp_path / "text"), "has no certificates in PEM"),
        ("SSL_CERT_FILE", str(tmp_path), "SSL_CERT_FILE="),
        ("SSL_CERT_DIR", str(nope), f"SSL_CERT_DIR={nope} is not a folder"),
        ("SSL_CERT_DIR", f"{tmp_path}:{nope}", f"SSL_CERT_DIR={nope} is not a folder"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert problem in str(EnvironmentTransport().problem(CODAT))
            assert EnvironmentTransport().problem("http://codat.test") is None
    monkeypatch.setenv("SSLKEYLOGFILE", str(nope / "keys"))
    assert EnvironmentTransport().problem(CODAT) is None


def test_the_systems_certificates_are_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Beside Mozilla's; SSL_CERT_FILE replaces both."""
    context = transport_module._tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    both = context.cert_store_stats()["x509_ca"]
    assert both > 50
    transport_module._tls_context.cache_clear()
    one = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
    file = tmp_path / "one.pem"
    file.write_text(one[0] + one[1])
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert transport_module._tls_context().cert_store_stats()["x509_ca"] == 1
