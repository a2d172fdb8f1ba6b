"""HTTP to other systems, as the environment says: proxies and trusted certificates.

What is set there and cannot be used fails the requests that need it, with the reason. It must not
keep the service from starting: the webhook endpoint needs neither.
"""

import os
import re
import ssl
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.request import getproxies_environment

import certifi
import httpx

from app.domain.checks import is_loopback

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
_SEPARATOR = re.compile(r"[,\s]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PROXY_SCHEMES = ("http", "https")


class EnvironmentUnusable(httpx.ConnectError):
    """A variable of the environment cannot be used. The text names it, and has no password."""


class EnvironmentTransport(httpx.AsyncBaseTransport):
    """Sends each request directly, or through the proxy that the environment names for it.

    Requests to this machine are always direct.
    """

    def __init__(self, limits: httpx.Limits = _LIMITS) -> None:
        self._limits = limits
        self._proxies = getproxies_environment()
        self._transports: dict[tuple[str, str], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises EnvironmentUnusable, or what httpx raises."""
        return await self._transport(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.aclose()

    def problem(self, url: str) -> str | None:
        """Why no request to this URL could be sent; None when it could."""
        try:
            self._transport(httpx.URL(url))
        except EnvironmentUnusable as error:
            return str(error)
        return None

    def _transport(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        name, value = self._proxy_variable(url)
        key = (url.scheme, value)
        if key not in self._transports:
            proxy = _read_proxy(name, value) if value else None
            is_encrypted = url.scheme == "https"
            tls = _tls_context() if is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport = httpx.AsyncHTTPTransport(verify=tls, limits=self._limits, proxy=proxy)
            self._transports[key] = transport
        return self._transports[key]

    def _proxy_variable(self, url: httpx.URL) -> tuple[str, str]:
        """The name and value of the variable for this URL; empty for a direct connection."""
        if is_loopback(url.host) or _is_excluded(url, self._proxies.get("no", "")):
            return "", ""
        for name in (url.scheme, "all"):
            if self._proxies.get(name):
                return f"{name.upper()}_PROXY", self._proxies[name].strip()
        return "", ""


def _is_excluded(url: httpx.URL, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: `*`, a name or domain, an address or network, a port."""
    port = str(url.port or {"https": 443}.get(url.scheme, 80))
    return any(_names(entry, url.host, port) for entry in _SEPARATOR.split(no_proxy.lower()))


def _names(entry: str, host: str, port: str) -> bool:
    if entry == "*":
        return True
    name, colon, entry_port = entry.rpartition(":")
    if colon and entry_port.isdigit() and (":" not in name or name.endswith("]")):
        if entry_port != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").removeprefix(".")
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return bool(entry) and f".{host}".endswith(f".{entry}")


def _read_proxy(name: str, value: str) -> httpx.Proxy:
    """A proxy as curl takes it: without a scheme it is http. Raises EnvironmentUnusable."""
    scheme = _SCHEME.match(value)
    hidden, _, address = value.rpartition("@")
    shown = f"{name}={scheme[0] if scheme and hidden else ''}{address}"
    if scheme and scheme[1].lower() not in _PROXY_SCHEMES:
        raise EnvironmentUnusable(
            f"{shown}: only http and https proxies are supported; set HTTPS_PROXY, or NO_PROXY"
        )
    try:
        proxy = httpx.Proxy(value if scheme else f"http://{value}")
        if not proxy.url.host or not 0 < (proxy.url.port or 80) < 65536:
            raise ValueError
    except (ValueError, httpx.InvalidURL):
        raise EnvironmentUnusable(f"{shown} is not the address of a proxy") from None
    if proxy.url.scheme == "https":
        proxy.ssl_context = _tls_context()
    return proxy


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Trust what SSL_CERT_FILE and SSL_CERT_DIR name, else the system's and Mozilla's authorities.

    Raises EnvironmentUnusable. `ssl.create_default_context` would also open SSLKEYLOGFILE.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not folders:
        context.load_default_certs()
        context.load_verify_locations(certifi.where())
        return context
    for folder in folders.split(os.pathsep) if folders else ():
        if not Path(folder).is_dir():
            raise EnvironmentUnusable(f"SSL_CERT_DIR={folder} is not a folder")
    try:
        context.load_verify_locations(file or None, folders or None)
    except ssl.SSLError:
        raise EnvironmentUnusable(f"SSL_CERT_FILE={file} has no certificates in PEM") from None
    except OSError as error:
        raise EnvironmentUnusable(f"SSL_CERT_FILE={file}: {error.strerror}") from None
    return context
