"""A receiver of our webhooks on loopback: it verifies them as its owner would, with svix."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from svix.webhooks import Webhook

SIGNING_SECRET = "whsec_" + "C" * 40


@dataclass
class Receiver:
    """What came, in order: path, message id and body. Its first answers may be failures."""

    address: str = ""
    failures: int = 0
    got: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """The status to answer with; fails the test's later look when a signature is wrong."""
        message_id = headers.get("webhook-id")
        if message_id:
            Webhook(SIGNING_SECRET).verify(body, headers)
        self.got.append((path, message_id, json.loads(body)))
        self.failures -= 1
        return 500 if self.failures >= 0 else 204

    def kinds(self, path: str = "/in") -> list[str]:
        """The types of the messages that came to this path."""
        return [body["type"] for there, _, body in self.got if there == path]


@contextmanager
def receiver(failures: int = 0) -> Iterator[Receiver]:
    """A receiver that runs until the end of the block."""
    ours = Receiver(failures=failures)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                status = ours.take(self.path, headers, body)
            except Exception:
                status = 400
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    ours.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield ours
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
