"""A receiver of outgoing messages on loopback; it verifies them with svix, as a customer would."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from svix.webhooks import Webhook

SIGNING_SECRET = "whsec_" + "C" * 40


class Received(NamedTuple):
    """One request."""

    path: str
    message_id: str | None
    body: dict[str, Any]


@dataclass
class Receiver:
    """The requests so far, in order. The first `failures` of them are answered with 500."""

    address: str = ""
    failures: int = 0
    received: list[Received] = field(default_factory=list)

    def handle(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Verify and store a request; returns the status of the answer."""
        message_id = headers.get("webhook-id")
        if message_id:
            Webhook(SIGNING_SECRET).verify(body, headers)
        self.received.append(Received(path, message_id, json.loads(body)))
        self.failures -= 1
        return 500 if self.failures >= 0 else 204

    def types(self, path: str = "/in") -> list[str]:
        """The types of the messages to this path."""
        return [request.body["type"] for request in self.received if request.path == path]


@contextmanager
def receiver(failures: int = 0) -> Iterator[Receiver]:
    """A receiver that runs until the end of the block."""
    found = Receiver(failures=failures)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                status = found.handle(self.path, headers, body)
            except Exception:
                status = 400
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
