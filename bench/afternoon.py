"""The yardstick: the receiver one writes in an afternoon. Correct, and one commit per request.

FastAPI, SQLAlchemy's AsyncSession (psycopg or aiosqlite), svix. It keeps the raw event once per
message id, folds it into its sync, and answers after the commit.

    python -m bench.afternoon PORT DATABASE_URL SECRET PROCESSES
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
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
    """A webhook as it came."""

    __tablename__ = "events"
    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    event_type: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)


class Sync(Base):
    """The latest that was said of a sync."""

    __tablename__ = "syncs"
    company_id: Mapped[str] = mapped_column(Text, primary_key=True)
    sync_id: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def make_engine(url: str) -> AsyncEngine:
    """An engine; SQLite with the write-ahead log, as one does."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _use_write_ahead_log)
    return engine


def _use_write_ahead_log(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def make_app(url: str, secret: str) -> FastAPI:
    """The receiver."""
    engine = make_engine(url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    webhook = Webhook(secret)
    insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

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
        told = json.loads(body)
        now = datetime.now(UTC)
        kind, company_id, sync_id = meaning(told)
        raw = {"message_id": request.headers["webhook-id"], "received_at": now, "event_type": kind}
        await session.execute(
            insert(Event).values(**raw, body=body.decode()).on_conflict_do_nothing()
        )
        state = "completed" if "complete" in kind or kind.endswith(".successful") else "failed"
        sync = {"company_id": company_id, "sync_id": sync_id, "state": state, "updated_at": now}
        await session.execute(
            insert(Sync)
            .values(**sync)
            .on_conflict_do_update(
                index_elements=["company_id", "sync_id"],
                set_={"state": state, "updated_at": now},
            )
        )
        await session.commit()
        return Response(status_code=204)

    return app


def meaning(told: dict[str, Any]) -> tuple[str, str, str]:
    """The event type, the company and the sync of a webhook of either generation."""
    if "eventType" in told:
        payload = told["payload"]
        return told["eventType"], payload["referenceCompany"]["id"], payload["syncId"]
    return told["RuleType"].lower(), told["CompanyId"], told["Data"]["syncId"]


async def make_tables(url: str) -> None:
    """Once, before the processes that use them."""
    engine = make_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


def told_app() -> FastAPI:
    """The receiver for a database and a secret that the environment names; each process asks."""
    return make_app(os.environ["AFTERNOON_DATABASE"], os.environ["AFTERNOON_SECRET"])


if __name__ == "__main__":
    port, os.environ["AFTERNOON_DATABASE"], os.environ["AFTERNOON_SECRET"], processes = sys.argv[1:]
    asyncio.run(make_tables(os.environ["AFTERNOON_DATABASE"]))
    uvicorn.run(
        "bench.afternoon:told_app",
        factory=True,
        workers=int(processes),
        host="127.0.0.1",
        port=int(port),
        log_config=None,
        access_log=False,
    )
