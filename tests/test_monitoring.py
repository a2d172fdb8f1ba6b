"""Alerting rules, dashboard and runbook: valid, complete, and about what real processes expose."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.db import workers
from app.db.engine import Database, open_database
from app.web import health
from app.web.health import ReadinessProbe
from tests.conftest import NewDatabase
from tests.ports import free_port
from tests.processes import TLS, Process, Stage, deliver, failed_event, get, wait_for
from tests.test_docs import ROOT, anchors, first_cells, read, section
from tests.web.store import NOW

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "codat-sync-receiver.json"
# A name, perhaps with matchers; not a function, an operator, or the labels after `by`.
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"\b([a-z_]+)\b(?:\{([^}]*)\})?(?!\s*\()")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_OPERATORS = {
    "and",
    "or",
    "unless",
    "offset",
    "bool",
    "s",
    "m",
    "h",
    "__rate_interval",
    "__interval",
}
_OF_PROMETHEUS = {"up", "instance", "job"}

Scrape = Mapping[str, list[Mapping[str, str]]]
"""The labels of each sample, by its name."""


@pytest.fixture(scope="module")
def promtool() -> str:
    """Debian's package `prometheus` has it; in CI a missing one fails the tests."""
    path = shutil.which("promtool")
    if path is None:
        reason = "promtool not found: install prometheus"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def dashboard_queries() -> Iterator[str]:
    board = json.loads(DASHBOARD.read_text())
    yield from (item["expr"] for item in board["annotations"]["list"])
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_the_rules_are_valid_and_pass_their_unit_tests(promtool: str) -> None:
    run(promtool, "check", "config", str(PROMETHEUS / "prometheus.yml"))
    run(promtool, "test", "rules", str(PROMETHEUS / "rules.test.yml"))


def test_each_rule_has_a_test_that_fires_and_one_that_does_not() -> None:
    names = {rule["alert"] for rule in rules()}
    fires: set[str] = set()
    rests: set[str] = set()
    for test in yaml.safe_load((PROMETHEUS / "rules.test.yml").read_text())["tests"]:
        for check in test["alert_rule_test"]:
            (fires if check.get("exp_alerts") else rests).add(check["alertname"])
    assert fires == rests == names


def test_each_alert_has_a_severity_and_a_section_of_the_runbook() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule
        document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in anchors(ROOT / document), rule


def test_the_queries_of_the_dashboard_are_valid(promtool: str, tmp_path: Path) -> None:
    """As recording rules, which promtool checks."""
    queries = [re.sub(r"\$__\w+", "5m", query) for query in dashboard_queries()]
    assert len(queries) > 25
    recorded = [{"record": f"q{n}", "expr": query} for n, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    run(promtool, "check", "rules", str(file))


def read_metrics(process: Process, port: int | None = None) -> str:
    address = f"http://127.0.0.1:{port}" if port else process.address
    answer = httpx.get(f"{address}/metrics", verify=TLS, timeout=10)
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


def parsed(*texts: str) -> dict[str, list[Mapping[str, str]]]:
    found: dict[str, list[Mapping[str, str]]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory, new_database: NewDatabase) -> Iterator[str]:
    """The metrics of `serve` and of a `worker` of its own that has fetched a sync."""
    with new_database("sqlite") as url:
        stage = Stage(tmp_path_factory.mktemp("monitoring"), url)
        try:
            stage.simulate()
            port = free_port()
            web = stage.serve(WORKER_IN_WEB="false")
            worker = stage.start("worker", WORKER_METRICS_PORT=str(port))
            assert deliver(web, "m1", failed_event("s1")) == 204
            wait_for(lambda: get(web, "/syncs/s1"))
            is_done = 'job_attempts_total{kind="fetch",result="dead"} 1.0'
            wait_for(lambda: answers_with(is_done, worker, port))
            yield read_metrics(web) + "\x00" + read_metrics(worker, port)
        finally:
            for process in stage.processes:
                process.stop()


def answers_with(line: str, process: Process, port: int) -> bool:
    try:
        return line in read_metrics(process, port)
    except httpx.TransportError:
        return False


def test_a_worker_of_its_own_serves_what_it_counts(scraped: str) -> None:
    """And nothing that only `serve` knows, such as whether the database answers."""
    web, worker = scraped.split("\x00")
    assert 'job_attempts_total{kind="fetch",result="dead"} 0.0' in web
    assert 'codat_call_seconds_count{result="refused"} 1.0' in worker
    assert "process_resident_memory_bytes" in worker
    assert "database_up" not in worker
    assert "workers_alive 1.0" in web


def test_real_processes_expose_what_rules_and_dashboard_use(scraped: str) -> None:
    """Every name, every label, and every value of a label that is written out."""
    exposed = parsed(*scraped.split("\x00"))
    used = set()
    for query in (*dashboard_queries(), *(rule["expr"] for rule in rules())):
        metrics = list(selectors(query))
        assert metrics, query
        for name, matchers in metrics:
            used.add(name)
            if name in _OF_PROMETHEUS:
                continue
            assert name in exposed, f"{name}: {query}"
            for label, operator, value in matchers:
                values = {labels.get(label) for labels in exposed[name]}
                assert None not in values, f"{name} has no {label}: {query}"
                if operator in ("=", "!=") or (operator == "=~" and label != "status"):
                    assert set(value.split("|")) <= values, f"{name}: {query}"
        grouped = {name.strip() for group in _GROUPING.findall(query) for name in group.split(",")}
        known = {
            label for name, _ in metrics for labels in exposed.get(name, ()) for label in labels
        }
        assert grouped <= known, query
    assert len(used) > 25


def selectors(query: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The metrics in a query, with their matchers."""
    for name, matchers in _SELECTOR.findall(_GROUPING.sub("", query)):
        if name not in _OPERATORS:
            yield name, _MATCHER.findall(matchers)


@pytest.mark.usefixtures("promtool")
def test_names_and_units_follow_the_conventions(promtool: str, scraped: str) -> None:
    for text in scraped.split("\x00"):
        command = [promtool, "check", "metrics"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# --- the runbook ----------------------------------------------------------------------------------

STEPS = ("Meaning", "See more", "Do", "Over when")


def runbook() -> dict[str, str]:
    """The sections of the runbook, by heading."""
    parts = re.split(
        r"^### (.+)$", section(read("docs/operations.md"), "Runbook"), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def triggers(kind: str) -> set[str]:
    """The rules, alerts, findings or reasons that the sections are about."""
    found: set[str] = set()
    for text in runbook().values():
        (line,) = re.findall(r"^\*(.+?)\*$", text, re.MULTILINE | re.DOTALL)[:1]
        for part in line.split("·"):
            if part.strip().startswith(kind):
                found |= set(re.findall(r"`([^`]+)`", part.partition(kind)[2]))
    return found


def test_each_section_of_the_runbook_has_the_same_four_steps() -> None:
    for heading, text in runbook().items():
        assert tuple(re.findall(r"^- \*\*([^*]+):\*\*", text, re.MULTILINE)) == STEPS, heading


def test_each_rule_alert_and_finding_has_a_section() -> None:
    document = read("docs/operations.md")
    assert triggers("Rule") == {rule["alert"] for rule in rules()}
    for kind, title in (("Alert", "Alerts"), ("Finding", "Doctor findings")):
        assert triggers(kind) == first_cells(section(document, title)), kind


@pytest.mark.own_database
def test_each_reason_of_readiness_has_a_section(
    database: Database, empty_database_url: str
) -> None:
    """Numbers and versions stand as an ellipsis."""
    constants = [value for name, value in vars(health).items() if re.fullmatch("_[A-Z_]+", name)]
    reasons = {value for value in constants if isinstance(value, str)} - {"not checked"}
    reasons |= set(health._STOPPING.checks.values())

    def check(checked: Database) -> None:
        checks = ReadinessProbe(checked, lambda: NOW).check().checks.values()
        texts = (text.partition(" Run ")[0] for text in checks)
        reasons.update(
            re.sub(r"\d+", "…", text) for text in texts if text not in ("ok", "not checked")
        )

    empty = open_database(empty_database_url)
    check(empty)
    empty.close()
    check(database)
    with database.writing() as connection:
        workers.beat(connection, "w1", NOW - timedelta(minutes=2))
    check(database)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    check(database)
    assert reasons == triggers("`/readyz`:")
