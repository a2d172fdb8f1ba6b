"""Every complete `python -m app` command in the documentation runs as it is written there."""

import re
import shlex
from pathlib import Path

import pytest

from app.__main__ import VERBS
from app.db.engine import Database
from tests.cli.conftest import RunVerb
from tests.factories import deliver
from tests.processes import SECRET
from tests.test_docs import command_lines

NOWHERE = "http://127.0.0.1:1"
NAMES_ONLY = {"VERB", "classify", "erase"}
ELSEWHERE = {"serve", "worker", "demo"}  # they do not end: test_serve.py, test_demo.py
NEEDS_A_SERVER = {
    "doctor": "codat_unreachable",
    "reconcile": "Cannot connect to Codat (connection refused)",
    "send": "Cannot reach http://127.0.0.1:",
}
"""Commands that call a server, which these tests do not have, and how they report that."""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_documented_commands_run(
    run_verb: RunVerb, database: Database, database_url: str, tmp_path: Path
) -> None:
    deliver(database, "m1", company_id="c1")
    (tmp_path / "messages.txt").write_text("The account is archived.\n")
    values = {"COMPANY": "c1", "SECRET": SECRET, "SYNC": "s1"}
    verbs = set()
    examples = (("--help", line) for lines in VERBS.values() for line in lines)
    for document, line in [*examples, *command_lines()]:
        _, is_command, rest = line.partition("python -m app ")
        if not is_command or rest in NAMES_ONLY:
            continue
        verb, *arguments = shlex.split(rest.replace("https://YOUR-HOST", NOWHERE), comments=True)
        if verb in ELSEWHERE:
            continue
        arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
        arguments = [re.sub(r"\$([A-Z]+)", lambda name: values[name[1]], a) for a in arguments]
        result = run_verb(
            verb, *arguments, DATABASE_URL=database_url, CODAT_BASE_URL=NOWHERE, PORT="1"
        )
        assert result.exit_code == (verb in NEEDS_A_SERVER), f"{document}: {line}: {result.output}"
        assert NEEDS_A_SERVER.get(verb, "") in result.output, f"{document}: {line}"
        verbs.add(verb)
        if verb == "erase":
            deliver(database, f"m{len(verbs)}", company_id="c1")
    assert len(verbs) > 8


def test_the_help_of_each_verb_has_examples(run_verb: RunVerb) -> None:
    for verb, examples in VERBS.items():
        shown = run_verb(verb.__name__, "--help", COLUMNS="100").stdout
        assert all(f" python -m app {verb.__name__}" in f" {line}" for line in examples)
        assert all(line in shown for line in ["Examples:", *examples])
