"""Small at rest: a process loads what it needs, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Process, Stage, a_worker_lives, run, stage, wait_for

WEB = {"fastapi", "starlette", "uvicorn", "jinja2", "prometheus_client"}
ELSEWHERE = {"alembic", "apprise", "simulator", "app.cli.demo"}
TELL = {"PYTHONPROFILEIMPORTTIME": "1"}  # Python then names on stderr all it imports


@pytest.fixture
def playing(tmp_path: Path) -> Iterator[Stage]:
    """A migrated SQLite database, and room for processes."""
    with stage(tmp_path, f"sqlite:///{tmp_path / 'syncs.db'}") as playing:
        assert run(tmp_path, "migrate", DATABASE_URL=playing.database_url).returncode == 0
        yield playing


def loaded(process: Process) -> set[str]:
    """The modules a process has imported, once it has ended well."""
    assert process.stop() == 0
    lines = process.log.read_text().splitlines()
    return {line.split("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_a_worker_loads_no_web_framework(playing: Stage) -> None:
    """It runs beside the door, in as many copies as one likes."""
    worker = playing.start("worker", **TELL)
    wait_for(lambda: a_worker_lives(playing))
    modules = loaded(worker)
    assert "app.worker.runner" in modules
    assert modules & (WEB | ELSEWHERE | {"svix"}) == set()


def test_who_serves_loads_nothing_of_the_other_verbs(playing: Stage) -> None:
    """No migrations, no demo, no notifications in words."""
    modules = loaded(playing.serve(WORKER_IN_WEB="false", **TELL))
    assert "fastapi" in modules
    assert modules & ELSEWHERE == set()


def test_help_loads_none_of_it(tmp_path: Path) -> None:
    """A question about the command line is answered at once."""
    said = run(tmp_path, "--help", **TELL).stderr
    assert "app.settings" in said
    assert not [name for name in ("fastapi", "sqlalchemy", "httpx", "alembic") if name in said]
