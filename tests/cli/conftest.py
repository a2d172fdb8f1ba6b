"""Runs verbs of the command line in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app import logging as log
from app.__main__ import cli
from app.settings import Settings
from tests.processes import environment

RunVerb = Callable[..., Result]


@pytest.fixture
def run_verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunVerb:
    """Run `python -m app ARGUMENTS` with complete settings, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log, "configure", lambda *_: None)  # it would be for the whole process
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def run(*arguments: str, stdin: str | None = None, **settings: str) -> Result:
        result = CliRunner().invoke(cli, arguments, input=stdin, env=environment(**settings))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
