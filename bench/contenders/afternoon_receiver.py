"""The baseline: the receiver one writes in an afternoon. Correct, one commit per request.

FastAPI, SQLAlchemy's AsyncSession (psycopg or aiosqlite), svix. It stores the raw event once per
message id, upserts the state of its sync, and answers after the commit.

    python -m bench.contenders.afternoon_receiver PORT DATABASE_URL SECRET
"""

import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
import uvloop
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from sqlalchemy import DateTime, Text, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from svix import Webhook, WebhookVerificationError


class Base(DeclarativeBase):
    """The tables."""


class Event(Base):
    """A raw webhook event."""

    __tablename__ = "events"
    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    event_type: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)


class Sync(Base):
    """The latest state of a sync."""

    __tablename__ = "syncs"
    company_id: Mapped[str] = mapped_column(Text, primary_key=True)
    sync_id: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def _use_write_ahead_log(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def create_app(engine: AsyncEngine, secret: str) -> FastAPI:
    """Create the receiver."""
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    webhook = Webhook(secret)
    insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
    app = FastAPI()

    async def session() -> AsyncIterator[AsyncSession]:
        async with sessions() as opened:
            yield opened

    @app.post("/webhooks/codat", status_code=204)
    async def receive(
        request: Request, session: Annotated[AsyncSession, Depends(session)]
    ) -> Response:
        body = await request.body()
        try:
            webhook.verify(body, dict(request.headers))
        except WebhookVerificationError:
            raise HTTPException(401) from None
        now = datetime.now(UTC)
        kind, company_id, sync_id = parse(json.loads(body))
        raw = {"message_id": request.headers["webhook-id"], "received_at": now, "event_type": kind}
        statement = insert(Event).values(**raw, body=body.decode())
        await session.execute(statement.on_conflict_do_nothing())
        state = "completed" if "complete" in kind or kind.endswith(".successful") else "failed"
        changed = {"state": state, "updated_at": now}
        statement = insert(Sync).values(company_id=company_id, sync_id=sync_id, **changed)
        await session.execute(
            statement.on_conflict_do_update(index_elements=["company_id", "sync_id"], set_=changed)
        )
        await session.commit()
        return Response(status_code=204)

    return app


def parse(body: dict[str, Any]) -> tuple[str, str, str]:
    """The type, the company id and the sync id of an event of either generation."""
    if "eventType" in body:
        payload = body["payload"]
        return body["eventType"], payload["referenceCompany"]["id"], payload["syncId"]
    return body["RuleType"].lower(), body["CompanyId"], body["Data"]["syncId"]


async def serve(port: int, url: str, secret: str) -> None:
    """Create the tables of an empty database and serve until a signal."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _use_write_ahead_log)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    app = create_app(engine, secret)
    config = uvicorn.Config(app, port=port, log_config=None, access_log=False)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
