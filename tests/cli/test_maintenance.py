"""The verbs for stored data, in this process."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import update

from app.db.engine import Database
from app.db.tables import jobs, syncs, webhook_events
from app.domain.causes.loader import load_builtin
from tests.cli.conftest import RunVerb
from tests.factories import count_rows, deliver, fetch_job, sync_row

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
MESSAGE = "The accounting period is closed."


def set_values(database: Database, table: Any, **values: Any) -> None:
    with database.writing() as connection:
        connection.execute(update(table).values(**values))


def test_migrate_creates_the_schema_once(run_verb: RunVerb, empty_database_url: str) -> None:
    first = run_verb("migrate", DATABASE_URL=empty_database_url)
    again = run_verb("migrate", DATABASE_URL=empty_database_url)
    assert (first.exit_code, again.exit_code) == (0, 0)
    version = re.fullmatch(r"Created schema (\w+)\.\n", first.stdout)
    assert version
    assert again.stdout == f"Already up to date ({version[1]}).\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("worker",),
        ("reconcile",),
        ("redrive", "--all-dead"),
        ("rebuild",),
        ("erase", "--company", "c1", "--yes"),
        ("prune",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_verbs_refuse_a_database_that_was_not_migrated(
    run_verb: RunVerb, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = run_verb(*arguments, DATABASE_URL=f"sqlite:///{tmp_path}/new.db")
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "`python -m app migrate`" in line


@on_sqlite
def test_prune_removes_old_bodies(run_verb: RunVerb, database: Database, database_url: str) -> None:
    deliver(database, "m1")
    long_ago = datetime.now(UTC) - timedelta(days=8)
    set_values(database, webhook_events, received_at=long_ago)
    unlimited = run_verb(
        "prune", DATABASE_URL=database_url, KEEP_EVENTS_DAYS="0", KEEP_CHANGES_DAYS="0"
    )
    assert unlimited.exit_code == 0
    assert unlimited.stdout.startswith("Removed 0 raw webhook bodies, ")
    unchanged = run_verb("prune", DATABASE_URL=database_url)
    assert unchanged.stdout.startswith("Removed 0 raw webhook bodies, ")
    pruned = run_verb("prune", DATABASE_URL=database_url, KEEP_EVENTS_DAYS="7")
    assert pruned.exit_code == 0
    assert pruned.stdout.startswith("Removed 1 raw webhook bodies, ")


@on_sqlite
def test_redrive_queues_dead_fetches_again(
    run_verb: RunVerb, database: Database, database_url: str
) -> None:
    for number in (1, 2):
        deliver(database, f"m{number}", sync_id=f"s{number}")
    set_values(database, jobs, state="dead", attempts=12)
    one = run_verb("redrive", "--sync", "s1", DATABASE_URL=database_url)
    assert (one.exit_code, one.stdout) == (0, "Abandoned fetches queued again: 1\n")
    job = fetch_job(database, "s1")
    assert job
    assert (job.state, job.attempts) == ("pending", 0)
    every = run_verb("redrive", "--all-dead", DATABASE_URL=database_url)
    assert every.stdout == "Abandoned fetches queued again: 1\n"
    messages = run_verb("redrive", "--messages", DATABASE_URL=database_url)
    assert messages.stdout == "Abandoned messages queued again: 0\n"
    unknown = run_verb("redrive", "--sync", "nope", DATABASE_URL=database_url)
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("error: ")


def test_redrive_needs_exactly_one_choice(run_verb: RunVerb) -> None:
    for arguments in ((), ("--sync", "s1", "--messages")):
        result = run_verb("redrive", *arguments)
        assert result.exit_code == 2
        assert "Choose one of" in result.stderr


def test_rebuild_restores_what_the_events_say(
    run_verb: RunVerb, database: Database, database_url: str
) -> None:
    deliver(database, "m1")
    clean = run_verb("rebuild", DATABASE_URL=database_url)
    before = dict(sync_row(database))
    set_values(database, syncs, state="completed", outcome="all_written")
    repaired = run_verb("rebuild", DATABASE_URL=database_url)
    assert (clean.exit_code, repaired.exit_code) == (0, 0)
    assert dict(sync_row(database)) | {"updated_at": None} == before | {"updated_at": None}
    assert clean.stdout != repaired.stdout


@on_sqlite
def test_erase_asks_first_and_prints_a_receipt(
    run_verb: RunVerb, database: Database, database_url: str
) -> None:
    deliver(database, "m1", company_id="c1")
    deliver(database, "m2", company_id="c2", sync_id="s2")
    unasked = run_verb("erase", "--company", "c1", DATABASE_URL=database_url)
    assert unasked.exit_code == 2
    assert "pass --yes" in unasked.stderr
    erased = run_verb("erase", "--company", "c1", "--yes", DATABASE_URL=database_url)
    assert erased.exit_code == 0
    assert "syncs: 1" in erased.stdout.splitlines()
    assert "c1" in erased.stdout.splitlines()[-1]
    assert count_rows(database, "syncs") == count_rows(database, "companies") == 1
    again = run_verb("erase", "--company", "c1", "--yes", DATABASE_URL=database_url)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.startswith("error: ")


@contextmanager
def codat_with(
    companies: list[dict[str, Any]],
    syncs: list[dict[str, Any]],
    statuses: Mapping[str, int] = MappingProxyType({}),
    calls: list[str] | None = None,
) -> Iterator[str]:
    """An HTTP server that lists these companies, and these syncs of each; its address.

    For companies in `statuses` it answers with this HTTP status instead.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if calls is not None:
                calls.append(self.path)
            if self.path.partition("?")[0] == "/companies":
                total = len(companies)
                page = {"results": companies, "pageNumber": 1, "pageSize": 100}
                self._answer({**page, "totalResults": total, "_links": {}})
            else:
                self._answer(syncs, statuses.get(self.path.split("/")[2], 200))

        def _answer(self, value: Any, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@on_sqlite
def test_reconcile_reports_differences_and_queues_them(
    run_verb: RunVerb, database: Database, database_url: str
) -> None:
    status = {"companyId": "c1", "syncId": "s1", "syncStatusCode": 2000, "syncStatus": "Complete"}
    with codat_with([{"id": "c1", "name": "One"}], [status]) as address:
        where = {"DATABASE_URL": database_url, "CODAT_BASE_URL": address}
        dry = run_verb("reconcile", "--dry-run", **where)
        assert (dry.exit_code, count_rows(database, "syncs")) == (0, 0)
        assert dry.stdout.startswith("Dry run, nothing was changed: ")
        done = run_verb("reconcile", "--since", "2020-01-01", **where)
        assert (done.exit_code, count_rows(database, "syncs")) == (0, 1)
        assert "1 companies" in done.stdout or "1 company" in done.stdout
    assert fetch_job(database)
    failed = run_verb("reconcile", **where)
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert len(failed.stderr.splitlines()) == 1


@on_sqlite
@pytest.mark.parametrize(
    ("statuses", "exit_code", "calls"),
    [
        ({"c1": 403, "c3": 422, "c4": 404}, 0, 6),
        ({"c2": 500, "c3": 403}, 1, 6),
        ({"c2": 400}, 1, 6),
        ({"c2": 401, "c3": 401}, 1, 3),
        ({"c2": 402, "c3": 403}, 1, 3),
        ({"c2": 429}, 1, 3),
        (dict.fromkeys(("c1", "c2", "c3", "c4", "c5"), 503), 1, 6),
    ],
    ids=str,
)
def test_reconcile_fails_only_if_there_is_trouble(
    run_verb: RunVerb, database_url: str, statuses: dict[str, int], exit_code: int, calls: int
) -> None:
    """Companies without the product are none; what concerns all calls is trouble once."""
    companies = [{"id": f"c{n}", "name": "One"} for n in range(1, 6)]
    made: list[str] = []
    with codat_with(companies, [], statuses, made) as address:
        done = run_verb("reconcile", DATABASE_URL=database_url, CODAT_BASE_URL=address)
    assert (done.exit_code, len(made)) == (exit_code, calls)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == exit_code
    if not exit_code:
        assert "3 companies without Sync for Expenses" in done.stdout


def test_classify_shows_cause_rule_and_fingerprint(run_verb: RunVerb) -> None:
    result = run_verb("classify", MESSAGE)
    expected = load_builtin().explain(MESSAGE)
    assert expected.cause
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"cause: {expected.cause} ({load_builtin().causes[expected.cause].title})",
        f"rule: {expected.rule}",
        f"fingerprint: {expected.fingerprint}",
    ]
    unknown = run_verb("classify", "Qwxz zzyx 17")
    assert unknown.stdout.startswith("cause: unclassified (")
    assert "rule: none matched" in unknown.stdout


def test_classify_reads_files_and_custom_rules(run_verb: RunVerb, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[[rule]]\ncause = 'period_closed'\nmessage = 'sealed'\n")
    (tmp_path / "messages.txt").write_text(f"The ledger is sealed\n\n{MESSAGE}\nQwxz 17\nQwxz 18\n")
    result = run_verb("classify", "--file", "messages.txt", CAUSES_FILE="own.toml")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "The ledger is sealed"
    assert lines[1].startswith("cause: period_closed (")
    assert "CAUSES_FILE" in lines[2]
    assert lines[16:] == [
        "messages: 4, with 3 fingerprints", "       2 period_closed", "       2 unclassified",
    ]  # fmt: skip
    assert run_verb("classify", "--file", "-", stdin=MESSAGE).stdout.startswith(MESSAGE)
    for arguments in ((), ("text", "--file", "messages.txt"), ("--file", "nowhere.txt")):
        assert run_verb("classify", *arguments).exit_code == 2
