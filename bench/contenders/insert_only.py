"""The fastest receiver that stores anything: verify, one multi-row INSERT for all waiting requests.

Plain ASGI, svix and psycopg, without a framework, an ORM, metrics, limits or error handling. It
recognizes duplicates by their message id and does nothing else.

    python -m bench.contenders.insert_only PORT DATABASE_URL SECRET
"""

import asyncio
import gc
import sys
from typing import Any, NamedTuple

import orjson
import psycopg
import uvicorn
import uvloop
from svix.webhooks import Webhook, WebhookVerificationError

TABLE = """CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL UNIQUE,
    received_at timestamptz NOT NULL DEFAULT now(),
    body text NOT NULL
)"""
INSERT = """INSERT INTO events (message_id, body)
    SELECT message_id, body FROM json_to_recordset(%s::json) AS event (message_id text, body text)
    ON CONFLICT (message_id) DO NOTHING"""
QUIET_PASSES = 6  # of the event loop, without a new request: then a batch is written


class _Waiting(NamedTuple):
    message_id: str
    body: bytes
    stored: "asyncio.Future[None]"


class InsertOnly:
    """The application."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], secret: str) -> None:
        self._connection = connection
        self._webhook = Webhook(secret)
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 204 after the commit, 401 to an invalid signature."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status = 204
        try:
            self._webhook.verify(body, headers)
        except WebhookVerificationError:
            status = 401
        else:
            await self._store(headers["webhook-id"], body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async def _store(self, message_id: str, body: bytes) -> None:
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(message_id, body, stored))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await stored

    async def _write(self) -> None:
        while self._waiting:
            await self._gather()
            batch, self._waiting = self._waiting, []
            rows = [{"message_id": request.message_id, "body": request.body.decode()}
                    for request in batch]  # fmt: skip
            await self._connection.execute(INSERT, [orjson.dumps(rows).decode()], prepare=True)
            await self._connection.commit()
            for request in batch:
                request.stored.set_result(None)

    async def _gather(self) -> None:
        seen = quiet = 0
        while quiet < QUIET_PASSES:
            quiet = quiet + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)
            await asyncio.sleep(0)


async def serve(port: int, url: str, secret: str) -> None:
    """Serve until a signal."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(TABLE)
        await connection.commit()
        app = InsertOnly(connection, secret)
        config = uvicorn.Config(
            app, port=port, log_config=None, access_log=False, server_header=False, lifespan="off"
        )
        gc.collect()
        gc.freeze()
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
