"""Canaries: recognizable secrets in every secret setting, and then everything goes wrong.

None of them may be in a log, an answer, a repr or a traceback.
"""

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from app.bootstrap import create_app, make_codat, utc_now
from app.codat.webhooks.signature import Verifier
from app.settings import load_settings
from bench.hostile_requests import FOREIGN_SECRET
from tests import processes
from tests.processes import TLS, Process, Stage, failed_event, signed, wait_for, wait_until_live

RAW = b"canary-signing-secret-of-codat-1"
CANARIES = {
    "CODAT_WEBHOOK_SECRETS": "whsec_" + b64encode(RAW).decode(),
    "CODAT_API_KEY": "canary-key-for-codats-api",
    "API_KEYS": "canary-key-for-our-own-api",
}
SECRET = CANARIES["CODAT_WEBHOOK_SECRETS"]
PASSWORD = "canary-p4ssw0rd"
WORD_IN_BODY = "canary-in-the-body"
HIDDEN = (
    CANARIES["CODAT_WEBHOOK_SECRETS"].removeprefix("whsec_").rstrip("="),
    RAW.decode(),
    CANARIES["CODAT_API_KEY"],
    b64encode(CANARIES["CODAT_API_KEY"].encode()).decode().rstrip("="),
    CANARIES["API_KEYS"],
    b64encode(CANARIES["API_KEYS"].encode()).decode().rstrip("="),
    PASSWORD,
    WORD_IN_BODY,
)
PATHS = (
    "/api/v1/syncs", "/api/v1/syncs/x", "/api/v1/syncs?limit=x", "/api/v1/webhook-secrets",
    "/codat/companies", "/nowhere", "/api/v1/syncs?sort=-updated_at&cursor=x",
)  # fmt: skip
BEARER = {"authorization": f"Bearer {CANARIES['API_KEYS']}"}


def assert_hides_secrets(text: str, what: str) -> None:
    shown = [canary for canary in HIDDEN if canary in text]
    assert shown == [], f"{what} shows {shown}"


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    """A stage whose database address has a password in it, where it can have one."""
    if database_url.startswith("postgresql"):
        address = make_url(database_url).set(password=PASSWORD)
        database_url = address.render_as_string(hide_password=False)
    with processes.stage(tmp_path, database_url) as found:
        yield found


def serve(stage: Stage, plan: str, log_format: str) -> Process:
    """The service with planted errors, or as it is; it logs as much as it can."""
    python = ("-X", "dev", "-m", *(("tests.planted", plan) if plan else ("app",)))
    settings = CANARIES | {"LOG_LEVEL": "debug", "LOG_FORMAT": log_format}
    process = stage.start("serve", python=python, **settings)
    wait_until_live(process)
    return process


def use(process: Process) -> str:
    """Send right and wrong deliveries, and requests with right and wrong keys; all answers."""
    found = []

    def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        url = process.address + path
        try:
            answer = httpx.request(
                method, url, headers=headers, content=body, timeout=20, verify=TLS
            )
        except httpx.HTTPError:
            return
        found.append(f"{path} {answer.status_code} {answer.headers} {answer.text}")

    plain = failed_event("s1")
    with_word = json.dumps(json.loads(plain) | {"note": WORD_IN_BODY}).encode()
    for body, headers in (
        (plain, signed(plain, "m-valid", SECRET)),
        (plain, signed(plain, "m-forged", FOREIGN_SECRET)),
        (with_word, signed(with_word, "m-body", SECRET)),
        (b"\xff", {}),
    ):
        request("POST", "/webhooks/codat", headers, body)
    almost = {"authorization": BEARER["authorization"][:-1]}
    for path in PATHS:
        for headers in (BEARER, almost, {}):
            request("GET", path, headers)
    request("POST", "/api/v1/syncs/s1/refresh", BEARER)
    request("POST", "/api/v1/syncs/s1/refresh", almost)
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
        request("GET", path, BEARER)
    return "\n".join(found)


WAYS = [
    ("sqlite", "", "json"),
    ("sqlite", "raise-fetch,raise-api", "console"),
    ("postgresql", "raise-store,raise-worker", "json"),
]


@pytest.mark.parametrize(("database_url", "plan", "form"), WAYS, indirect=["database_url"])
def test_no_log_and_no_answer_shows_a_secret(stage: Stage, plan: str, form: str) -> None:
    """At debug level, while Codat refuses the key, and with unexpected errors."""
    stage.simulate("--key", "another")
    process = serve(stage, plan, form)
    answered = use(process)
    wait_for(lambda: not plan or "Unexpected" in process.logged())
    assert process.stop() == 0
    assert_hides_secrets(answered, "an answer")
    assert_hides_secrets(process.logged(), "the log")
    assert ("Traceback" in process.logged()) is bool(plan)
    assert ("/api/v1/syncs 500" in answered) is ("raise-api" in plan)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_broken_database_shows_no_secret(stage: Stage) -> None:
    """A table is gone: neither the address of the database is shown, nor what was not written."""
    process = serve(stage, "", "console")
    with psycopg.connect(stage.database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE webhook_events RENAME TO events_gone")
    answered = use(process)
    assert process.stop() == 0
    assert " 503 " in answered
    assert_hides_secrets(answered, "an answer")
    assert_hides_secrets(process.logged(), "the log")


# What settings alone refuse is in test_settings.
WRONG = (
    {"CODAT_WEBHOOK_SECRETS": f"whsec_!{PASSWORD}"},
    {"CODAT_WEBHOOK_SECRETS": f"{CANARIES['CODAT_WEBHOOK_SECRETS']},whsec_{PASSWORD}"},
    {"API_KEYS": PASSWORD[:10]},
    {"DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"},
    {"DATABASE_URL": f"postgresql://u:{PASSWORD}@[nonsense/x"},
    {"DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:port/x"},
    {"DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:1/x?nonsense={PASSWORD}"},
    {"DATABASE_URL": "sqlite:////dev/null/nowhere/x.db"},
)
VERBS = ("serve", "worker", "migrate", "reconcile", "redrive --all-dead", "send SyncFailed")
# all wrong settings with one verb, and all verbs with one wrong setting
REFUSALS = [*zip(WRONG, cycle(VERBS), strict=False)]


@pytest.mark.parametrize(("wrong", "verb"), REFUSALS, ids=range(len(REFUSALS)))
def test_a_refused_start_shows_no_secret(tmp_path: Path, wrong: dict[str, str], verb: str) -> None:
    """Whatever is wrong with a secret setting: one line, and no traceback."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "LOG_LEVEL": "debug"}
    done = processes.run(tmp_path, *verb.split(), **CANARIES | settings | wrong)
    text = done.stdout + done.stderr
    assert_hides_secrets(text, verb)
    for part in (PASSWORD[:10], PASSWORD[-8:], "Traceback"):
        assert part not in text


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_nothing_that_can_be_printed_shows_a_secret(stage: Stage) -> None:
    """Settings, application, verifier, database, client: as repr, as text, in f-strings."""
    settings = load_settings(
        database_url=stage.database_url, **{name.lower(): v for name, v in CANARIES.items()}
    )
    app = create_app(settings)
    state = app.state
    client = make_codat(settings, state.database, utc_now)
    engine = state.database.engine
    verifier = Verifier([SECRET])
    objects = (settings, app, vars(app), state, state.database, engine, engine.url, verifier,
               vars(verifier), client, vars(client), settings.api_keys,
               settings.codat_webhook_secrets, settings.codat_api_key)  # fmt: skip
    for value in objects:
        assert_hides_secrets(f"{value} {value!r} {value!s}", type(value).__name__)
    state.database.close()


def test_the_environment_of_this_test_has_no_canary() -> None:
    """Else a process could show one that it does not have from us."""
    assert_hides_secrets(str(os.environ), "the environment")
