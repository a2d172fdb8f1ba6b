"""Log lines: what comes first, and what never appears."""

import json
import logging

import pytest
import structlog

from app import logging as log

pytestmark = pytest.mark.usefixtures("restored_logging")


def test_json_lines_begin_with_time_level_and_event(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        log.get("test").warning("webhook stored", sync_id="s1")
    logging.getLogger("library").error("%s happened", "it")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert list(ours)[:3] == list(theirs)[:3] == ["timestamp", "level", "event"]
    assert (ours["sync_id"], ours["request_id"]) == ("s1", "r1")
    assert (theirs["event"], theirs["level"]) == ("it happened", "error")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_do_not_show_local_variables(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    log.configure("info", log_format)
    key = "canary-" + "key"
    try:
        raise ValueError(len(key))
    except ValueError:
        log.get("test").exception("failed unexpectedly")
    output = capsys.readouterr().err
    assert "ValueError: 10" in output
    assert "canary-key" not in output


def test_levels_below_the_setting_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("warning", "console")
    log.get("test").info("hidden")
    logging.getLogger("library").info("hidden too")
    assert capsys.readouterr().err == ""
