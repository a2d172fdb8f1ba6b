"""Rules of the project that no linter checks: layers, lock files, docstrings, vocabulary, paths."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SOURCES = sorted(chain((ROOT / "app").rglob("*.py"), (ROOT / "simulator").rglob("*.py")))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
LOCKS = ("requirements.txt", "requirements-otel.txt", "requirements-dev.txt")
_PIN = re.compile(r"^([a-z0-9-]+)(?:\[([a-z,-]+)\])?==([^\s;]+)", re.MULTILINE)

WORDS = {
    *("told", "said", "kept", "owe", "owed", "owes", "heed", "heeded", "mend", "mended", "cured"),
    *("anew", "in vain", "for ever", "whoever", "put off", "duty", "inbox", "verdict", "door"),
    *("doors", "unsettled", "hung up", "tally", "tallies", "tell", "tells", "telling"),
}
"""Words of the first version, for which there is a common term (`docs/development.md`)."""
ALLOWED = ("tell us which", "transaction.cured", "(?:besteld|gewijzigd) door", "door een andere")
VAGUE_NAMES = {"each", "some", "told", "said", "given", "asked", "kept", "those", "whose", "why"}


def test_layers() -> None:
    """Who may import whom is in pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_public_has_a_docstring() -> None:
    missing = []
    for file in SOURCES:
        tree = ast.parse(file.read_text())
        if not ast.get_docstring(tree):
            missing.append(str(file.relative_to(ROOT)))
        missing += [
            f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
            for node in public_definitions(tree)
            if not ast.get_docstring(node)
        ]
    assert missing == []


def public_definitions(parent: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """Public functions and classes, and what is public in these."""
    for node in parent.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


def test_nothing_is_unfinished() -> None:
    """Unfinished work belongs in an issue."""
    marker = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError")
    assert [file.name for file in SOURCES if marker.search(file.read_text())] == []


def test_texts_use_the_common_terms() -> None:
    words = re.compile(rf"\b({'|'.join(sorted(WORDS))})\b", re.IGNORECASE)
    allowed = re.compile("|".join(ALLOWED))
    suffixes = {".py", ".md", ".html", ".toml", ".js", ".css"}
    texts = chain(*((ROOT / folder).rglob("*") for folder in ("app", "simulator", "docs")))
    found = []
    for file in (*ROOT.glob("*.md"), *(file for file in texts if file.suffix in suffixes)):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if words.search(allowed.sub("", line)):
                found.append(f"{file.relative_to(ROOT)}:{number} {line.strip()}")
    assert found == []


def test_names_say_what_they_stand_for() -> None:
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            name = _defined_name(node)
            if name is not None and name.strip("_") in VAGUE_NAMES:
                found.append(f"{file.relative_to(ROOT)} {name}")
    assert found == []


def _defined_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, Definition):
        return node.name
    return node.arg if isinstance(node, ast.arg) else None


def tracked_files() -> list[Path]:
    """Every file of the project; in an unpacked archive, without git, those of its folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    folders = ("app", "migrations", "simulator", "tests", "docs", "bench")
    files = [ROOT / name for name in names] or [
        *ROOT.iterdir(), *chain(*((ROOT / folder).rglob("*") for folder in folders))
    ]  # fmt: skip
    return [file for file in files if file.is_file()]


def test_no_file_has_a_path_of_one_machine() -> None:
    paths = re.compile(r"/(root|home/[a-z]+|Users/[a-z]+)/")
    suffixes = {".py", ".md", ".toml", ".yml", ".txt", ""}
    texts = [file for file in tracked_files() if file.suffix in suffixes]
    assert [file.name for file in texts if paths.search(file.read_text(errors="ignore"))] == []


def pinned_versions(lock: str) -> dict[str, set[str]]:
    """The versions that a lock file names, by package; they may differ by Python version."""
    found: dict[str, set[str]] = {}
    for name, _, version in _PIN.findall((ROOT / lock).read_text()):
        found.setdefault(name, set()).add(version)
    return found


def pinned_extras() -> dict[str, set[str]]:
    """The extras that the development lock pins, by package."""
    found: dict[str, set[str]] = {}
    for name, extras, _ in _PIN.findall((ROOT / LOCKS[-1]).read_text()):
        found.setdefault(name, set()).update(filter(None, extras.split(",")))
    return found


def test_all_locks_pin_the_same_versions() -> None:
    """What is tested is what runs."""
    *runtime, development = map(pinned_versions, LOCKS)
    for locked in runtime:
        assert {name: development.get(name) for name in locked} == locked


def test_locks_have_hashes_and_no_address_of_an_index() -> None:
    """An address would break the installation on other machines."""
    for lock in LOCKS:
        text = (ROOT / lock).read_text()
        assert not re.search(r"https?://|file:|--index|--find-links|-i ", text)
        requirements = re.findall(r"^[a-z0-9].*", text, re.MULTILINE)
        assert requirements
        assert all("==" in line for line in requirements)
        assert text.count("--hash=sha256:") >= len(requirements)


def test_required_extras_are_pinned() -> None:
    """pip 23.2, which ships with Python 3.11, rejects a hashed file that lacks one.

    It reports `coverage[toml]` as unpinned where the lock names `coverage` alone.
    """
    locked = pinned_extras()
    required = [
        (requirement, name)
        for name, extras in locked.items()
        for requirement in installed_requirements(name)
        if requirement.extras and applies(requirement, extras)
    ]
    assert any(requirement.name == "coverage" for requirement, _ in required)
    missing = [
        f"{name} requires {requirement}"
        for requirement, name in required
        if not requirement.extras <= locked[canonicalize_name(requirement.name)]
    ]
    assert missing == []


def applies(requirement: Requirement, extras: set[str]) -> bool:
    """True when it is required here, of a distribution with these extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def installed_requirements(name: str) -> Iterator[Requirement]:
    """What an installed distribution requires; nothing for one that another platform needs."""
    try:
        yield from map(Requirement, metadata.requires(name) or [])
    except metadata.PackageNotFoundError:
        return


def test_every_dependency_is_locked_and_justified() -> None:
    """Run `make lock` after a change of pyproject.toml; the reasons are in ADR 0001."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reasons = (ROOT / "docs" / "adr" / "0001-dependencies.md").read_text()
    extras = project["optional-dependencies"]
    for more, lock in zip(([], extras["otel"], extras["dev"]), LOCKS, strict=True):
        locked = pinned_versions(lock)
        for requirement in map(Requirement, project["dependencies"] + more):
            assert requirement.name in locked, f"{lock}: {requirement}"
            versions = locked[requirement.name]
            assert all(version in requirement.specifier for version in versions), requirement
            assert f"`{requirement.name}`" in reasons, requirement
