"""A process loads what it needs and nothing else, so that it starts fast and stays small."""

from pathlib import Path

import pytest

from tests.processes import Process, Stage, count_workers, run, wait_for

WEB = {"fastapi", "starlette", "uvicorn", "jinja2", "prometheus_client"}
OTHER_VERBS = {"alembic", "apprise", "simulator"}
PROFILE = {"PYTHONPROFILEIMPORTTIME": "1"}  # Python then lists on stderr all that it imports

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def imported_modules(process: Process) -> set[str]:
    """The modules that a process has imported; it must end well."""
    assert process.stop() == 0
    lines = process.logged().splitlines()
    return {line.split("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_a_worker_loads_no_web_framework(stage: Stage) -> None:
    worker = stage.start("worker", **PROFILE)
    wait_for(lambda: count_workers(stage))
    modules = imported_modules(worker)
    assert "app.worker.runner" in modules
    assert modules & (WEB | OTHER_VERBS | {"svix"}) == set()


def test_the_web_server_loads_nothing_of_other_verbs(stage: Stage) -> None:
    """No migrations, no simulator, and no notifications unless an address is set."""
    modules = imported_modules(stage.serve(WORKER_IN_WEB="false", **PROFILE))
    assert "fastapi" in modules
    assert modules & OTHER_VERBS == set()


def test_help_loads_no_library_that_takes_long(tmp_path: Path, database_url: str) -> None:
    listed = run(tmp_path, "--help", DATABASE_URL=database_url, **PROFILE).stderr
    assert "app.settings" in listed
    assert not [name for name in ("fastapi", "sqlalchemy", "httpx", "alembic") if name in listed]
