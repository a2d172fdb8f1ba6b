"""How much of the null application is left once anything is kept: an endpoint that only inserts.

Plain ASGI, svix, and one multi-row insert into one table for all that wait. It knows a message that
comes twice, and else nothing: no companies, no syncs, no items, no owed fetch, no errors. What ours
does beyond this is what it has to be slower for.

    python -m bench.insert_only PORT DATABASE_URL SECRET
"""

import asyncio
import gc
import sys
from contextlib import asynccontextmanager
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
    SELECT message_id, body FROM json_to_recordset(%s::json) AS told (message_id text, body text)
    ON CONFLICT (message_id) DO NOTHING"""
QUIET_TURNS = 6  # of the event loop, until a burst is in


class _Waiting(NamedTuple):
    message_id: str
    body: bytes
    kept: "asyncio.Future[None]"


class InsertOnly:
    """The application."""

    def __init__(self, database: psycopg.AsyncConnection[Any], secret: str) -> None:
        self._database = database
        self._webhook = Webhook(secret)
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """204 once it is committed, 401 to whom svix does not know."""
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
            await self._keep(headers["webhook-id"], body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async def _keep(self, message_id: str, body: bytes) -> None:
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(message_id, body, kept))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await kept

    async def _write(self) -> None:
        while self._waiting:
            await self._gather()
            batch, self._waiting = self._waiting, []
            rows = [{"message_id": each.message_id, "body": each.body.decode()} for each in batch]
            await self._database.execute(INSERT, [orjson.dumps(rows).decode()], prepare=True)
            await self._database.commit()
            for each in batch:
                each.kept.set_result(None)

    async def _gather(self) -> None:
        seen = quiet = 0
        while quiet < QUIET_TURNS:
            quiet = quiet + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)
            await asyncio.sleep(0)


@asynccontextmanager
async def _database(url: str) -> Any:
    async with await psycopg.AsyncConnection.connect(url) as database:
        await database.execute(TABLE)
        await database.commit()
        yield database


async def serve(port: int, url: str, secret: str) -> None:
    """Until a signal."""
    async with _database(url) as database:
        config = uvicorn.Config(
            InsertOnly(database, secret),
            host="127.0.0.1",
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            backlog=2048,
        )
        gc.collect()
        gc.freeze()
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
