"""Behind a real nginx: TLS, sub-paths, `Host` without a port, compression, and a rolling restart.

Needs nginx and openssl on the machine (`apt install nginx-light openssl`); in CI missing ones fail
the tests. The server blocks are those of `deploy/nginx/codat-sync.conf` and what operators write.
"""

import itertools
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import httpx
import pytest

from tests.conftest import NewDatabase
from tests.ports import free_port
from tests.processes import (
    API_KEY,
    AUTHORIZED,
    ROOT,
    Process,
    Stage,
    failed_event,
    signed,
    stage,
    wait_for,
    wait_until_live,
)

SHIPPED = ROOT / "deploy" / "nginx" / "codat-sync.conf"
PREFIX = "/codat-sync"
NGINX = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
MAIN = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/answers;
    {blocks}
}}
"""
COMPRESSING = """
server {{  # as found in the field: HTTP/1.0 to the service, no port in Host, everything compressed
    listen 127.0.0.1:{port};
    gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;
    proxy_set_header Host $host;
    location / {{ proxy_pass http://receiver; }}
    location {prefix}/ {{ proxy_pass {under_root}; }}
}}
server {{
    listen 127.0.0.1:{removing};
    proxy_set_header Host $host;
    location {prefix}/ {{ proxy_pass {under_root}/; }}
}}
"""


@dataclass
class Proxy:
    """nginx in front of two replicas, and of one more service that has a ROOT_PATH."""

    stage: Stage
    replicas: list[Process]
    trust: ssl.SSLContext
    https: str
    http: str
    plain: str
    removing: str

    def client(self, address: str, source: str = "127.0.0.1") -> httpx.Client:
        transport = httpx.HTTPTransport(verify=self.trust, local_address=source)
        return httpx.Client(base_url=address, transport=transport, timeout=10)


@pytest.fixture(scope="module")
def proxy(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    if NGINX is None or shutil.which("openssl") is None:
        reason = "no nginx or openssl found: install nginx-light and openssl"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("proxy")
    with new_database("postgresql") as url, stage(folder, url) as found:
        worker = {"WORKER_IN_WEB": "false"}
        drains = {"DRAIN_SECONDS": "2"}
        replicas = [found.start("serve", **worker, **drains), found.start("serve", **drains)]
        under_root = found.start("serve", ROOT_PATH=PREFIX, **worker)
        for process in (*replicas, under_root):
            wait_until_live(process)
        with run_nginx(folder, replicas, under_root) as made:
            yield Proxy(found, replicas, *made)


@contextmanager
def run_nginx(
    folder: Path, replicas: list[Process], under_root: Process
) -> Iterator[tuple[ssl.SSLContext, str, str, str, str]]:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    ports = [free_port() for _ in range(4)]
    shipped = SHIPPED.read_text()
    for old, new in {
        "127.0.0.1:8001": replicas[0].address.removeprefix("http://"),
        "127.0.0.1:8002": replicas[1].address.removeprefix("http://"),
        "listen 443 ssl;": f"listen 127.0.0.1:{ports[0]} ssl;",
        "listen 80;": f"listen 127.0.0.1:{ports[1]};",
        "/etc/nginx/tls/": f"{folder}/",
    }.items():
        assert old in shipped
        shipped = shipped.replace(old, new)
    more = COMPRESSING.format(
        prefix=PREFIX, port=ports[2], removing=ports[3], under_root=under_root.address
    )
    config = folder / "nginx.conf"
    config.write_text(MAIN.format(folder=folder, blocks=shipped + more))
    command = [str(NGINX), "-p", str(folder), "-e", f"{folder}/errors", "-c", str(config)]
    redirecting, passing, removing = (f"http://127.0.0.1:{port}" for port in ports[1:])
    with subprocess.Popen(command, stderr=subprocess.PIPE) as nginx:
        wait_for(lambda: nginx.poll() is not None or answers(passing))
        assert nginx.poll() is None, nginx.communicate()[1]
        trust = ssl.create_default_context(cafile=str(certificate))
        try:
            yield trust, f"https://127.0.0.1:{ports[0]}", redirecting, passing, removing
        finally:
            nginx.terminate()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/livez").is_success
    except httpx.HTTPError:
        return False


BODIES = [
    b'{"eventType": "x",\r\n\t"payload": {"a": 1.0, "a": 1e2, "b": "\xc3\xa9\\u00e9"}}\n\n',
    b"not json \x00\x1b " + "\N{SNOWMAN}".encode() * 10,
    b'{"big": "' + b"x" * 900_000 + b'"}',
    b"",
]


@pytest.mark.parametrize("number", range(len(BODIES)))
@pytest.mark.parametrize("way", ["https", "plain"])
def test_a_signed_delivery_arrives_byte_for_byte(proxy: Proxy, way: str, number: int) -> None:
    body, message_id = BODIES[number], f"{way}-{number}"
    headers = signed(body, message_id)
    with proxy.client(getattr(proxy, way)) as client:
        pieces = iter([body[:7], body[7:]]) if way == "https" else body  # chunked, or in one piece
        answer = client.put("/webhooks/codat/?source=codat", content=pieces, headers=headers)
        assert answer.status_code == 204
        event = client.get(f"/api/v1/events/{message_id}?body=true", headers=AUTHORIZED).json()
    assert event["body"].encode() == body


def test_tls_ends_at_the_proxy(proxy: Proxy) -> None:
    """The service learns of it, and of the client's address, which a client cannot forge."""
    with proxy.client(proxy.https, source="127.0.0.2") as client:
        forged = {"x-forwarded-for": "203.0.113.9", "origin": proxy.https}
        client.post("/sign-in", data={"key": "guess"}, headers=forged)
        answer = client.post("/sign-in", data={"key": API_KEY}, headers={"origin": proxy.https})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "; Secure" in answer.headers["set-cookie"]
        assert client.get("/").status_code == 200
        assert client.get("/metrics").status_code == 404
        assert client.head("/livez").status_code == 200
    logged = "".join(replica.logged() for replica in proxy.replicas)
    (failure,) = [line for line in logged.splitlines() if "sign-in failed" in line]
    assert json.loads(failure)["client"] == "127.0.0.2"
    with proxy.client(proxy.http) as client:
        moved = client.get("/syncs?q=a%2Fb")
        assert moved.status_code == 308
        assert moved.headers["location"] == "https://127.0.0.1/syncs?q=a%2Fb"


@pytest.mark.parametrize(
    ("way", "prefix"), [("plain", ""), ("plain", PREFIX), ("removing", PREFIX)]
)
def test_people_use_forms_over_plain_http_without_a_port_in_host(
    proxy: Proxy, way: str, prefix: str
) -> None:
    address, sync_id = getattr(proxy, way), f"form{len(way + prefix)}"
    deliver(proxy, address + prefix, sync_id)
    with proxy.client(address) as client:
        client.headers["origin"] = address
        answer = client.get(f"{prefix}/companies/c1")
        assert answer.headers["location"] == f"{prefix}/sign-in?next={prefix}/companies/c1"
        data = {"key": API_KEY, "next": f"{prefix}/companies/c1"}
        for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example:80"):
            refused = client.post(f"{prefix}/sign-in", data=data, headers={"origin": origin})
            assert refused.status_code == 403
        answer = client.post(f"{prefix}/sign-in", data=data)
        assert answer.headers["location"] == f"{prefix}/companies/c1"
        page = wait_for(lambda: find_page(client, f"{prefix}/syncs/{sync_id}"))
        form = re.search(r'action="([^"]*/refresh)"', page)
        token = re.search(r'name="csrf" value="(\w+)"', page)
        assert form
        assert token
        assert form[1].startswith(f"{prefix}/syncs/{sync_id}/")
        assert client.post(form[1], data={"csrf": "0"}).status_code == 403
        done = client.post(form[1], data={"csrf": token[1]})
        assert done.status_code == 303
        assert "Refreshing from Codat" in client.get(done.headers["location"]).text
        for link in re.findall(r'(?:href|src)="([^"#]+)"', page):
            assert client.get(unescape(link)).status_code in (200, 502), link  # no Codat here
        assert client.get(f"{prefix}/openapi.json").status_code == 200
        # several installations on one host: the cookie of one is no cookie of another
        other = f"{proxy.plain}{'' if prefix else PREFIX}/"
        assert client.get(other).status_code == 303
        answer = client.post(f"{prefix}/sign-out", data={"csrf": token[1]})
        assert answer.headers["location"] == f"{prefix}/sign-in"
        assert client.get(f"{prefix}/").status_code == 303


def deliver(proxy: Proxy, address: str, sync_id: str) -> None:
    body = failed_event(sync_id)
    headers = signed(body, f"m-{sync_id}")
    with proxy.client(address) as client:
        assert client.post("/webhooks/codat", content=body, headers=headers).status_code == 204


def find_page(client: httpx.Client, address: str) -> str | None:
    answer = client.get(address)
    return answer.text if answer.status_code == 200 else None


@pytest.mark.parametrize("way", ["https", "plain"])
@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_changes_are_not_held_back(proxy: Proxy, way: str, coding: str) -> None:
    headers = AUTHORIZED | {"accept": "text/event-stream", "accept-encoding": coding}
    with (
        proxy.client(getattr(proxy, way)) as client,
        client.stream("GET", "/api/v1/changes", headers=headers) as stream,
    ):
        assert stream.status_code == 200
        if way == "plain" and coding == "gzip":
            assert stream.headers["content-encoding"] == "gzip"
        lines = stream.iter_lines()
        assert next(lines).startswith(":")
        deliver(proxy, proxy.plain, sync_id := f"stream-{way}-{coding}")
        started = time.monotonic()
        assert any(sync_id in line for line in lines)
        assert time.monotonic() - started < 10


def test_no_delivery_is_refused_while_replicas_restart(proxy: Proxy) -> None:
    """One after the other, under load, on connections that stay open."""
    is_over = threading.Event()
    numbers = itertools.count()
    statuses: list[int] = []

    def send() -> None:
        with proxy.client(proxy.https) as client:
            while not is_over.is_set():
                body = failed_event(f"rolling-{(number := next(numbers))}")
                headers = signed(body, f"rolling-{number}")
                answer = client.post("/webhooks/codat", content=body, headers=headers)
                statuses.append(answer.status_code)
                time.sleep(0.01)

    with ThreadPoolExecutor(4) as senders:
        sending = [senders.submit(send) for _ in range(4)]
        try:
            for replica in list(proxy.replicas):
                assert replica.stop() == 0
                port = replica.address.rpartition(":")[2]
                started = proxy.stage.start("serve", PORT=port, DRAIN_SECONDS="2")
                wait_until_live(started)
                proxy.replicas[proxy.replicas.index(replica)] = started
        finally:
            is_over.set()
    assert [future.result() for future in sending] == [None] * 4
    assert set(statuses) == {204}
    assert len(statuses) > 100
    with proxy.client(proxy.https) as client:
        for number in range(0, len(statuses), 50):
            answer = client.get(f"/api/v1/events/rolling-{number}", headers=AUTHORIZED)
            assert answer.status_code == 200
