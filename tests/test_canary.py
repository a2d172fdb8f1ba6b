"""Canaries: recognisable secrets in every secret setting, and then everything goes wrong.

None of them may be in a log, an answer, a repr or a traceback.
"""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from app.bootstrap import check_settings, create_app
from app.clients import make_codat
from app.settings import load_settings
from bench.hostile import FOREIGN, signed_headers, sync_body
from tests.processes import TLS, Process, Stage, answers, environment, free_port, stage, wait_for

RAW = b"canary-signing-secret-of-codat-1"
CANARIES = {
    "CODAT_WEBHOOK_SECRETS": "whsec_" + b64encode(RAW).decode(),
    "CODAT_API_KEY": "canary-key-for-codats-api",
    "API_KEYS": "canary-key-for-our-own-api",
}
SECRET = CANARIES["CODAT_WEBHOOK_SECRETS"]
PASSWORD = "canary-password"
BODY_WORD = "canary-in-the-body"
SHOWN_BY_NOBODY = (
    CANARIES["CODAT_WEBHOOK_SECRETS"].removeprefix("whsec_").rstrip("="),
    RAW.decode(),
    CANARIES["CODAT_API_KEY"],
    b64encode(CANARIES["CODAT_API_KEY"].encode()).decode().rstrip("="),
    CANARIES["API_KEYS"],
    b64encode(CANARIES["API_KEYS"].encode()).decode().rstrip("="),
    PASSWORD,
    BODY_WORD,
)
QUESTIONS = (
    "/api/v1/syncs", "/api/v1/syncs/x", "/api/v1/syncs?limit=x", "/api/v1/webhook-secrets",
    "/codat/companies", "/nowhere", "/api/v1/syncs?sort=-updated_at&cursor=x",
)  # fmt: skip
BEARER = {"authorization": f"Bearer {CANARIES['API_KEYS']}"}


def assert_silent(text: str, what: str) -> None:
    told = [canary for canary in SHOWN_BY_NOBODY if canary in text]
    assert told == [], f"{what} tells {told}"


@pytest.fixture
def playing(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    """A stage whose database address has a password in it, where it can have one."""
    if database_url.startswith("postgresql"):
        address = make_url(database_url).set(password=PASSWORD)
        database_url = address.render_as_string(hide_password=False)
    with stage(tmp_path, database_url) as found:
        yield found


def body() -> bytes:
    return json.dumps(json.loads(sync_body("s1")) | {"note": BODY_WORD}).encode()


def drive(process: Process) -> str:
    """Right and wrong deliveries, questions with right and wrong keys; all that was answered."""
    answered = []

    def ask(method: str, path: str, headers: dict[str, str], content: bytes = b"") -> None:
        try:
            answer = httpx.request(
                method,
                process.address + path,
                headers=headers,
                content=content,
                timeout=20,
                verify=TLS,
            )
        except httpx.HTTPError:
            return
        answered.append(f"{path} {answer.status_code} {answer.headers} {answer.text}")

    right = sync_body("s1")
    for sent, headers in (
        (right, signed_headers(right, "m-right", secret=SECRET)),
        (right, signed_headers(right, "m-forged", secret=FOREIGN)),
        (body(), signed_headers(body(), "m-body", secret=SECRET)),
        (b"\xff", {}),
    ):
        ask("POST", "/webhooks/codat", headers, sent)
    near = {"authorization": BEARER["authorization"][:-1]}
    for path in QUESTIONS:
        for headers in (BEARER, near, {}):
            ask("GET", path, headers)
    ask("POST", "/api/v1/syncs/s1/refresh", BEARER)
    ask("POST", "/api/v1/syncs/s1/refresh", near)
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
        ask("GET", path, BEARER)
    return "\n".join(answered)


def planted(playing: Stage, point: str, **settings: str) -> Process:
    """The service with a planted error, or as it is, talking as much as it can."""
    port = free_port()
    log = playing.folder / f"{point or 'plain'}-{settings.get('LOG_FORMAT')}.log"
    module = ["tests.planted", point] if point else ["app"]
    env = environment(
        **{"DATABASE_URL": playing.database_url, "PORT": str(port), "LOG_LEVEL": "debug",
           "CODAT_BASE_URL": playing.codat, **CANARIES} | settings
    )  # fmt: skip
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, "-X", "dev", "-m", *module, "serve"],
            cwd=playing.folder,
            stdout=out,
            stderr=out,
            env=env,
        )
    process = Process(popen, f"http://127.0.0.1:{port}", log)
    playing.processes.append(process)
    wait_for(lambda: answers(process, "/livez"), 60)
    return process


POINTS = ("", "raise-keep", "raise-api", "raise-fetch", "raise-worker")
WAYS = [("postgresql", "", "json"), ("postgresql", "raise-keep", "console")]
WAYS += [("sqlite", point, form) for point in POINTS for form in ("json", "console")]


@pytest.mark.parametrize(("database_url", "point", "form"), WAYS, indirect=["database_url"])
def test_no_log_and_no_answer_shows_a_secret(playing: Stage, point: str, form: str) -> None:
    """At debug level, while Codat refuses the key, with errors that nobody foresaw."""
    playing.simulate("--key", "another")
    process = planted(playing, point, LOG_FORMAT=form)
    answered = drive(process)
    wait_for(lambda: not point or "Unforeseen" in said(process))
    assert process.stop() == 0
    assert_silent(answered, "an answer")
    assert_silent(said(process), "the log")
    if point:
        assert "Traceback" in said(process)
    if point == "raise-api":
        assert "/api/v1/syncs 500" in answered


def said(process: Process) -> str:
    return process.log.read_text(errors="replace")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_that_breaks_shows_no_secret(playing: Stage) -> None:
    """Tables that are gone, under load; neither the address, nor what was to be written."""
    process = planted(playing, "", LOG_FORMAT="console")
    import psycopg

    with psycopg.connect(playing.database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE events RENAME TO events_gone")
    answered = drive(process)
    assert process.stop() == 0
    assert " 503 " in answered
    assert_silent(answered, "an answer")
    assert_silent(said(process), "the log")


WRONG = (
    {"CODAT_WEBHOOK_SECRETS": f"whsec_!{PASSWORD}"},
    {"CODAT_WEBHOOK_SECRETS": f"{CANARIES['CODAT_WEBHOOK_SECRETS']},whsec_{PASSWORD}"},
    {"CODAT_WEBHOOK_SECRETS": PASSWORD},
    {"API_KEYS": PASSWORD[:10]},
    {"API_KEYS": f"{CANARIES['API_KEYS']},{PASSWORD[-8:]}"},
    {"DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"},
    {"DATABASE_URL": f"postgresql://u:{PASSWORD}@[nonsense/x"},
    {"DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:port/x"},
    {"DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:1/x?nonsense={PASSWORD}"},
    {"DATABASE_URL": f"mysql://u:{PASSWORD}@127.0.0.1/x"},
    {"DATABASE_URL": "sqlite:////dev/null/nowhere/x.db"},
    {"DATABASE_URL": f"postgresql+{PASSWORD}://u@127.0.0.1/x"},
    {"CODAT_API_KEY": "", "PORT": PASSWORD},
    {"CODAT_BASE_URL": f"ftp://u:{PASSWORD}@codat"},
)
VERBS = ("serve", "worker", "migrate", "reconcile", "redrive --all-dead", "send SyncFailed")


def ended(popen: subprocess.Popen[bytes]) -> None:
    """It must end by itself; when it does not, that is an error and still no process is left."""
    try:
        popen.wait(60)
    finally:
        popen.kill()
        popen.wait()


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_a_refused_start_names_the_setting_and_shows_no_secret(
    tmp_path: Path, wrong: dict[str, str]
) -> None:
    """Every verb, every way a secret setting can be wrong; one line each, no traceback."""
    said = {}
    with ExitStack() as started:
        for verb in VERBS:
            log = tmp_path / f"{verb.split()[0]}.log"
            address = {"DATABASE_URL": f"sqlite:///{log}.db", "LOG_LEVEL": "debug"}
            out = started.enter_context(log.open("wb"))
            popen = subprocess.Popen(
                [sys.executable, "-m", "app", *verb.split()],
                cwd=tmp_path,
                stdout=out,
                stderr=out,
                env=environment(**CANARIES | address | wrong),
            )
            started.callback(ended, popen)
            said[verb] = log
    for verb, log in said.items():
        told = log.read_text()
        assert_silent(told, verb)
        assert PASSWORD[:10] not in told, verb
        assert PASSWORD[-8:] not in told, verb
        assert "Traceback" not in told, verb


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_nothing_that_can_be_printed_shows_a_secret(playing: Stage) -> None:
    """Settings, application, verifier, database, client: as repr, as text, in f-strings."""
    settings = load_settings(
        database_url=playing.database_url, **{name.lower(): v for name, v in CANARIES.items()}
    )
    app = create_app(settings)
    state = app.state
    client = make_codat(settings, state.database, lambda: None)  # type: ignore[arg-type,return-value]
    engine = state.database.engine
    verifier = check_settings(settings)
    things = (settings, app, state, state.database, engine, engine.url, verifier,
              vars(verifier), client, vars(client), settings.api_keys,
              settings.codat_webhook_secrets, settings.codat_api_key)  # fmt: skip
    for thing in things:
        assert_silent(f"{thing} {thing!r} {thing!s}", type(thing).__name__)
    state.database.close()


def test_the_environment_of_this_test_has_no_canary() -> None:
    """Else a process could show one that we did not plant."""
    assert_silent(str(os.environ), "the environment")
