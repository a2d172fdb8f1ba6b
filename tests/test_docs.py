"""The documentation: it is complete, its links and names exist, and its examples are valid."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import parse_qsl, urlsplit

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from svix.webhooks import Webhook
from typer.main import get_command

from app.__main__ import cli
from app.bootstrap import create_app
from app.codat.client import CallResult
from app.codat.webhooks import payloads
from app.db.change_feed import sync_payload
from app.db.engine import open_database
from app.db.queries.monitoring import CAUSES, WITH_KEY
from app.db.sync_rows import sync_row
from app.db.tables import metadata
from app.domain.causes.loader import load_builtin, load_custom
from app.domain.outgoing import MessageKind
from app.domain.sync_state import Sync
from app.domain.webhook_loss import AlertCause
from app.settings import Settings, load_settings
from app.web.api import schemas
from app.web.metrics import DELIVERY_RESULTS, Metrics
from app.worker.job_pool import AttemptResult
from tests.web.store import T0, Store, completed_row, failed_row

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
API_KEY = "a-key-for-the-documentation"
_FENCE = re.compile(r"^(?:<!-- schema: (\w+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FOLDERS = "app|bench|deploy|docs|migrations|simulator|tests"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str) -> Iterator[tuple[str, str, str]]:
    """The code blocks of all documents: the document, the schema that it names, and the code."""
    for document in DOCUMENTS:
        for schema, found, code in _FENCE.findall(document.read_text(encoding="utf-8")):
            if found == language:
                yield document.name, schema, code


def prose(document: Path) -> str:
    """A document without its code blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def inline_code() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for code in re.findall(r"`([^`\n]+)`", prose(document)):
            yield document.name, code


def first_cells(text: str) -> set[str]:
    """The code in the first column of all tables."""
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row)}


def section(text: str, title: str) -> str:
    """A section of a document, with its subsections."""
    level, start = next(
        (len(found[1]), found.end())
        for found in re.finditer(r"^(#+) (.+)$", text, re.MULTILINE)
        if found[2] == title
    )
    end = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(text, start)
    return text[start : end.start() if end else len(text)]


def settings(database_url: str = "sqlite:///never-opened.db") -> Settings:
    return load_settings(
        database_url=database_url,
        codat_webhook_secrets=SECRET,
        codat_api_key="a-codat-key",
        api_keys=API_KEY,
        worker_in_web=False,
        retry_webhook_url=None,
        notify_webhook_urls=(),
        notify_urls=(),
        causes_file=None,
    )


@cache
def openapi() -> dict[str, Any]:
    return create_app(settings()).openapi()


# --- links and names ------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)}


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
            if urlsplit(target).scheme:
                continue
            path, _, anchor = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{document.name}: {target}")
    assert broken == []


def test_every_path_in_the_prose_exists() -> None:
    paths = [
        (name, code)
        for name, code in inline_code()
        if name != "CHANGELOG.md" and re.fullmatch(rf"(?:{_FOLDERS})/[\w./-]*", code)
    ]
    assert len(paths) > 50
    assert [(name, path) for name, path in paths if not (ROOT / path).exists()] == []


def test_every_function_in_the_prose_exists() -> None:
    """`sync_writer.write_syncs` is a function or class of a module of that name."""
    modules: dict[str, str] = {}
    for file in (ROOT / "app").rglob("*.py"):
        modules[file.stem] = modules.get(file.stem, "") + file.read_text(encoding="utf-8")
    classes = {
        name: source
        for source in modules.values()
        for name in re.findall(r"^class (\w+)", source, re.MULTILINE)
    }
    missing, checked = [], 0
    for document, code in inline_code():
        found = re.fullmatch(r"(\w+)\.(\w+)", code) if document == "architecture.md" else None
        source = (classes | modules).get(found[1]) if found else None
        if found is None or source is None or found[2] in ("id", "py", "toml"):
            continue
        checked += 1
        if not re.search(rf"(?:def|class) {found[2]}\b", source):
            missing.append((document, code))
    assert checked > 15
    assert missing == []


# --- commands -------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, str]]:
    """Every line of a shell block, continued lines joined, and every inline code."""
    for name, _, code in blocks("sh"):
        for line in code.replace("\\\n", " ").splitlines():
            yield name, line
    yield from inline_code()


def test_every_command_exists_with_its_options() -> None:
    verbs = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in get_command(cli).commands.items()  # type: ignore[attr-defined]  # a group
    }
    checked = []
    for name, line in command_lines():
        if "python -m app " not in line:
            continue
        _, _, rest = line.partition("python -m app ")
        verb, *words = shlex.split(rest, comments=True)
        options = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
        if verb != "VERB":
            assert verb in verbs, f"{name}: {line}"
            assert options <= verbs[verb], f"{name}: {line}"
        checked.append(verb)
    assert len(checked) > 20
    assert set(verbs) <= {code.split()[0] for code in first_cells(read("README.md"))}


def test_every_make_target_exists() -> None:
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    checked = 0
    for name, line in command_lines():
        found = re.match(r"make ([a-z-]+)((?: [A-Z]+=\S+)*)", line)
        if found is None:
            continue
        checked += 1
        assert found[1] in targets, f"{name}: {line}"
        for variable in re.findall(r"([A-Z]+)=", found[2]):
            assert f"$({variable}" in makefile or f" {variable})" in makefile, f"{name}: {line}"
    assert checked > 10
    assert {"demo", "test", "install", "run", "check"} <= targets


def test_every_variable_in_a_shell_block_is_a_setting_or_used() -> None:
    code = "\n".join(code for _, _, code in blocks("sh"))
    names = re.findall(r"^([A-Z_]+)=", code, re.MULTILINE)
    known = {name.upper() for name in Settings.model_fields}
    assert [name for name in names if name not in known and f"${name}" not in code] == []


# --- the API --------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A curl command; in `url`, `$NAME` stands for an id."""

    method: str
    url: str
    headers: dict[str, str]
    body: str | None

    @property
    def path(self) -> str:
        """The path with `{}` for each id."""
        return urlsplit(re.sub(r"\$[A-Z]+", "{}", self.url)).path

    @property
    def parameters(self) -> set[str]:
        return {name for name, _ in parse_qsl(urlsplit(self.url).query)}


def calls(document: Path) -> Iterator[Call]:
    """The curl commands of a document."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    code = "\n".join(code for _, language, code in _FENCE.findall(text) if language == "sh")
    variables = dict(re.findall(r'^([A-Z]+)="?([^"\n]+)"?$', code, re.MULTILINE))
    for line in code.splitlines():
        if not line.startswith("curl "):
            continue
        words = shlex.split(line.partition(" > ")[0])
        options = list(pairwise(words))
        body = next((value for option, value in options if option == "-d"), None)
        method = next((value for option, value in options if option == "-X"), None)
        headers = [value.partition(": ") for option, value in options if option == "-H"]
        url = next(word for word in words if re.match(r"(\$[A-Z]+|https?:)/", word))
        name = url.partition("/")[0].removeprefix("$")
        if name in variables and not variables[name].startswith("http"):
            url = url.replace(f"${name}", variables[name], 1)
        yield Call(
            method or ("POST" if body else "GET"),
            re.sub(r"^(\$URL|http://[^/]+)", "", url),
            {name: value for name, _, value in headers if value},
            body,
        )


def operation(method: str, path: str) -> tuple[str, Mapping[str, Any]] | None:
    """The template and the operation for a path, in which `{}` stands for any parameter."""
    found = None
    for template, operations in openapi()["paths"].items():
        pattern = re.sub(r"\\{\w+\\}", r"[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            found = found or (template, operations[method.lower()])
            if template.count("{") == path.count("{}"):
                return template, operations[method.lower()]
    return found


def test_every_call_exists_with_its_parameters_and_every_path_has_an_example() -> None:
    shown = set()
    for document in DOCUMENTS:
        for call in calls(document):
            found = operation(call.method, call.path)
            assert found, f"{document.name}: {call}"
            template, described = found
            parameters = described.get("parameters", ())
            known = {item["name"] for item in parameters if item["in"] == "query"}
            assert call.parameters <= known, f"{document.name}: {call.parameters - known}"
            shown.add((call.method, template))
    described_calls = {
        (method.upper(), path)
        for path, operations in openapi()["paths"].items()
        for method in operations
        if path.startswith(("/api/", "/codat/"))
    }
    assert described_calls - shown == set()


class FakeCodat:
    """Has a configuration for every company, and starts every sync."""

    async def start(
        self, _company_id: str, _dataset_ids: Sequence[str], *, actor: str | None
    ) -> str:
        return "started"

    async def get_config(self, company_id: str) -> dict[str, Any]:
        return {"companyId": company_id}


IDS = {
    "COMPANY": "c1",
    "SYNC": "s1",
    "TRANSACTION": "t1",
    "MESSAGE": "m1",
    "CURSOR": "1",
    "RETRY": "unknown",
    "ALERT": "1",
    "ETAG": '"x"',
}
EXPECTED = {
    "retry": 409, "retries": 409, "$RETRY": 404, "refresh": 202, "replay": 202, "note": 204,
    "syncs": 202,
}  # fmt: skip
"""The status of calls that do not answer 200: no RETRY_WEBHOOK_URL is set."""


@pytest.fixture
def client(sqlite_template: Path, tmp_path: Path) -> Iterator[TestClient]:
    """The application, with a sync that has a failed transaction, and an event."""
    path = tmp_path / "syncs.db"
    shutil.copy(sqlite_template, path)
    application = create_app(settings(f"sqlite:///{path}"))
    application.state.codat = application.state.sync_starter = FakeCodat()
    application.state.is_stopping = lambda: True  # else an event stream would not end
    database = open_database(f"sqlite:///{path}")
    store = Store(database)
    store.company(IDS["COMPANY"], "Toft stores")
    rows = (failed_row(IDS["TRANSACTION"], "The period is closed"), completed_row("another"))
    store.completed("earlier", IDS["COMPANY"], at=T0 - timedelta(days=1))
    store.failed(IDS["SYNC"], IDS["COMPANY"], rows=rows)
    store.event(IDS["MESSAGE"], parse_status="ok", body=b"{}", processed_at=T0)
    with TestClient(application) as opened:
        yield opened
    database.close()


def test_every_call_works(client: TestClient) -> None:
    made = 0
    for document in DOCUMENTS:
        for call in calls(document):
            url = re.sub(r"\$([A-Z]+)", lambda name: IDS[name[1]], call.url)
            headers = {name: IDS["ETAG"] if "$" in v else v for name, v in call.headers.items()}
            headers["Authorization"] = f"Bearer {API_KEY}"
            response = client.request(call.method, url, headers=headers, content=call.body)
            name = call.url.rpartition("/")[2]
            expected = 200 if call.method == "GET" and name != "$RETRY" else EXPECTED[name]
            assert response.status_code == expected, f"{document.name}: {call}: {response.text}"
            made += 1
    assert made > 30


def test_every_path_of_the_api_in_the_prose_exists() -> None:
    known = {re.sub(r"\{\w+\}", "{}", path) for path in openapi()["paths"]}
    paths = [
        (document, re.sub(r"\{\w+\}", "{}", found[1]))
        for document, code in inline_code()
        if (found := re.fullmatch(r"(?:(?:GET|POST|PUT) )?(/(?:api/v1|webhooks)/[\w/{}-]+)", code))
    ]
    assert len(paths) > 8
    assert [(document, path) for document, path in paths if path not in known] == []


def test_filters_and_values_are_documented() -> None:
    text = read("docs/api.md")
    for name in ("State", "Outcome", "ErrorsState", "TransactionClass"):
        for value in get_args(getattr(schemas, name)):
            assert f"`{value}`" in text, value


# --- examples -------------------------------------------------------------------------------------


def test_json_examples_parse_and_match_their_schema() -> None:
    checked = set()
    for document, schema, code in blocks("json"):
        example = json.loads(code)
        if schema:
            model = getattr(schemas, schema)
            dumped = json.loads(model.model_validate(example).model_dump_json())
            assert set(example) == set(dumped), f"{document}: {schema}"
            checked.add(schema)
    assert checked == {"Sync", "Transaction", "Cause", "Event", "Change"}


def test_causes_in_examples_are_those_of_the_classifier() -> None:
    def causes(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            if "customer_message" in value:
                yield value
            value = list(value.values())
        if isinstance(value, list):
            for member in value:
                yield from causes(member)

    known = load_builtin().causes
    found = [cause for _, _, code in blocks("json") for cause in causes(json.loads(code))]
    assert found
    for cause in found:
        expected = known[cause["key"]]
        assert cause == {name: getattr(expected, name) for name in cause}


def test_the_incoming_webhooks_are_understood() -> None:
    text = section(read("docs/webhooks.md"), "Payloads")
    bodies = [code for _, language, code in _FENCE.findall(text) if language == "json"]
    parsed = [payloads.parse(body.encode()) for body in bodies]
    assert [(event.parse_status, event.event_type) for event in parsed] == [
        ("ok", "sync.failed")
    ] * 2


def test_the_outgoing_messages_have_the_fields_of_the_real_ones() -> None:
    text = section(read("docs/webhooks.md"), "Outgoing webhooks")
    assert set(get_args(MessageKind)) <= first_cells(text)
    bodies = [json.loads(code) for _, language, code in _FENCE.findall(text) if language == "json"]
    assert {body["type"] for body in bodies} <= set(get_args(MessageKind))
    now = datetime(2026, 1, 31, tzinfo=UTC)
    row = sync_row(Sync("c", "s", first_seen_at=now), updated_at=now, classifier=load_builtin())
    expected = sync_payload(row).keys() - {"cause_key"}
    expected |= {"company_id", "sync_id", "cause", "errors", "failed_transactions"}
    failed = next(body for body in bodies if body["type"] == "sync.failed")
    assert failed["data"].keys() == expected


def test_the_verification_example_accepts_our_messages_and_no_others() -> None:
    ((_, _, code),) = blocks("python")
    namespace: dict[str, Any] = {}
    exec(compile(code, "docs/webhooks.md", "exec"), namespace)
    now, body = datetime.now(UTC), '{"type":"sync.failed"}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", now, body),
    }
    assert namespace["receive"](SECRET, headers, body.encode()) == {"type": "sync.failed"}
    with pytest.raises(Exception, match="signature"):
        namespace["receive"](SECRET, headers, b"{}")


def test_the_example_of_a_causes_file_works() -> None:
    ((_, _, code),) = blocks("toml")
    classifier = load_custom(code, load_builtin())
    for message, cause in (
        ("Cost centre 4711 is unknown", "cost_center_unknown"),
        ("The account is archived.", "account_inactive"),
    ):
        assert classifier.classify_transaction(message, status="PushError") == cause
    sealed = classifier.classify_transaction(
        "The ledger is sealed.", status="PushError", status_code=5130
    )
    assert sealed == "period_closed"


# --- completeness ---------------------------------------------------------------------------------


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    Metrics(registry, secrets=1, version="0")
    suffix = {"counter": "_total"}
    exposed = {family.name + suffix.get(family.type, "") for family in registry.collect()}
    text = section(read("docs/operations.md"), "Metrics")
    documented = {name.partition("{")[0] for name in first_cells(text)} - {"process_…"}
    assert documented == {name for name in exposed if not name.startswith("process_")}
    for name, results in (
        ("job_attempts_total", get_args(AttemptResult)),
        ("codat_call_seconds", get_args(CallResult)),
        ("webhook_deliveries_total", DELIVERY_RESULTS),
    ):
        row = re.search(rf"^\| `{name}.+$", text, re.MULTILINE)
        assert row
        assert set(results) <= set(re.findall(r"`(\w+)`", row[0])), name


def test_every_warning_in_the_log_is_documented() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "app").rglob("*.py"))
    logged = set(re.findall(r'log(?:ger)?\.(?:warning|error|exception)\(\s*"([^"]+)"', source))
    documented = first_cells(section(read("docs/operations.md"), "Logs"))
    assert logged - documented == set()
    assert [event for event in documented if f'"{event}"' not in source] == []


def test_every_doctor_finding_is_documented() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "app").rglob("*.py"))
    names = set(re.findall(r'Misconfiguration\(\s*"(\w+)"', source))
    names |= set(get_args(AlertCause)) - {"webhooks_lost"}  # `check_endpoints`
    assert first_cells(section(read("docs/operations.md"), "Doctor findings")) == names


def test_every_alert_is_documented() -> None:
    causes = {f"{cause}:KEY" if cause in WITH_KEY else cause for cause in CAUSES}
    assert first_cells(section(read("docs/operations.md"), "Alerts")) == causes


def test_every_table_is_documented() -> None:
    documented = first_cells(section(read("docs/architecture.md"), "Tables"))
    assert documented == set(metadata.tables)


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    current = {file.name for file in folder.glob("0*.md")} - {"0000-template.md"}
    index = re.findall(r"^\| \[\d{4}\]\((.+?)\)", read("docs/adr/README.md"), re.MULTILINE)
    assert set(index) == current
    for name in current:
        headings = re.findall(r"^## (.+)$", (folder / name).read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Alternatives", "References"]
