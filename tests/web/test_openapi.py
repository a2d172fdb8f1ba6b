"""What `/openapi.json` says of the whole service, Codat's door included, is what it does."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from app.bootstrap import create_app
from app.settings import load_settings
from tests.processes import API_KEY, SECRET

DOOR = "/webhooks/codat"


@pytest.fixture
def service(database_url: str) -> Iterator[FastAPI]:
    """The whole application, as it is served, not started."""
    app = create_app(
        load_settings(
            database_url=database_url,
            codat_webhook_secrets=SECRET,
            codat_api_key="codat-key",
            api_keys=API_KEY,
            max_body_bytes=1024,
        )
    )
    yield app
    app.state.database.close()
    asyncio.run(app.state.codat.close())


def ask(service: FastAPI, method: str, path: str, body: bytes = b"") -> httpx.Response:
    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(service)
        async with httpx.AsyncClient(transport=transport, base_url="http://us") as client:
            return await client.request(method, path, content=body)

    return asyncio.run(one())


def test_codats_door_is_described_with_every_answer_it_gives(service: FastAPI) -> None:
    """Both methods, the three headers of the signature, no key."""
    told = ask(service, "GET", "/openapi.json").json()
    assert set(told["paths"][DOOR]) == {"post", "put"}
    for call in told["paths"][DOOR].values():
        assert set(call["responses"]) == {"204", "401", "405", "408", "413", "503"}
        headers = [each["name"] for each in call["parameters"]]
        assert headers == ["webhook-id", "webhook-timestamp", "webhook-signature"]
        assert call["security"] == []
        assert "content" not in call["responses"]["204"]
    ids = [call["operationId"] for calls in told["paths"].values() for call in calls.values()]
    assert len(ids) == len(set(ids))


def test_the_description_is_written_once(service: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may ask for it, as often as they like; to write it takes long."""
    written: list[dict[str, str]] = []

    def openapi() -> dict[str, str]:
        written.append({"openapi": "3.1.0"})
        return written[-1]

    monkeypatch.setattr(service, "openapi", openapi)
    answers = {ask(service, "GET", "/openapi.json").content for _ in range(3)}
    assert (answers, len(written)) == ({b'{"openapi":"3.1.0"}'}, 1)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [("POST", b"{}", 401), ("PUT", b"{}", 401), ("POST", b"x" * 2000, 413), ("GET", b"", 405)],
)
def test_the_door_answers_as_described(
    service: FastAPI, method: str, body: bytes, status: int
) -> None:
    """Status, media type, members, headers."""
    described = service.openapi()["paths"][DOOR]["post"]["responses"][str(status)]
    answer = ask(service, method, DOOR, body)
    assert answer.status_code == status
    assert list(described["content"]) == [answer.headers["content-type"]]
    schema = described["content"]["application/problem+json"]["schema"]
    assert set(answer.json()) == set(schema["required"])
    assert set(described.get("headers", {})) <= {name.title() for name in answer.headers}


def test_asking_twice_describes_the_same(service: FastAPI) -> None:
    """The description is made once and kept."""
    assert service.openapi() == service.openapi()
    assert list(service.openapi()["paths"]).count(DOOR) == 1
