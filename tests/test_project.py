"""The house itself: files stay small, rooms keep their names, promises are written down."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "app").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef

LONGEST_FILE = 300
LONG_FUNCTION = 30
FORBIDDEN = {"utils", "helpers", "core", "services", "common", "models", "schemas", "crud", "misc"}


def functions(file: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_no_file_grows_past_one_subject() -> None:
    """About three hundred lines, then it is two subjects."""
    long = {f.name: n for f in FILES if (n := len(f.read_text().splitlines())) > LONGEST_FILE}
    assert long == {}


def test_nine_functions_in_ten_fit_a_screen() -> None:
    """And none is longer than two of them."""
    lengths = sorted(length(f) for f in chain.from_iterable(map(functions, FILES)))
    assert lengths[len(lengths) * 9 // 10] <= LONG_FUNCTION
    assert lengths[-1] <= 2 * LONG_FUNCTION


def test_no_room_is_named_after_nothing() -> None:
    """A name that says nothing collects everything."""
    assert {file.stem for file in FILES} & FORBIDDEN == set()


def test_every_public_thing_says_its_promise() -> None:
    """Modules, public functions, public classes and their public methods."""
    silent = []
    for file in FILES:
        tree = ast.parse(file.read_text())
        if not ast.get_docstring(tree):
            silent.append(str(file))
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        holders: list[ast.Module | ast.ClassDef] = [tree, *classes]
        for holder in holders:
            for node in holder.body:
                if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                    continue
                if not ast.get_docstring(node):
                    silent.append(f"{file}:{node.lineno} {node.name}")
    assert silent == []


def test_every_test_says_its_promise_and_checks_something() -> None:
    """A test that cannot fail is a defect."""
    idle = []
    for file in (ROOT / "tests").rglob("test_*.py"):
        for function in functions(file):
            if not function.name.startswith("test_"):
                continue
            body = ast.unparse(function)
            checks = re.search(r"\bassert|raises|refused|expect|check", body)
            if not ast.get_docstring(function) or not checks:
                idle.append(f"{file.name}: {function.name}")
    assert idle == []


def test_every_file_stands_on_its_floor() -> None:
    """The floors are in pyproject.toml; what breaks them is told there by name."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tracked() -> list[Path]:
    """Every file of the project; in an unpacked archive, without git, those of its folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    folders = ("app", "migrations", "tests", "docs")
    found = [ROOT / name for name in names] or [
        *ROOT.iterdir(), *chain.from_iterable((ROOT / folder).rglob("*") for folder in folders)
    ]  # fmt: skip
    return [file for file in found if file.is_file()]


def pins(lock_name: str) -> dict[str, set[str]]:
    """The versions a lock names, by package; one that differs by Python version has several."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==([^\s;]+)", (ROOT / lock_name).read_text(), re.MULTILINE
    ):
        found.setdefault(name, set()).add(version)
    return found


def test_the_locks_agree_with_each_other() -> None:
    """What is tested is what runs."""
    runs, tested = pins("requirements.txt"), pins("requirements-dev.txt")
    assert {name: tested.get(name) for name in runs} == runs


def extras_pinned(lock_name: str) -> dict[str, set[str]]:
    """The extras that a lock pins, by package."""
    found: dict[str, set[str]] = {}
    for name, extras in re.findall(
        r"^([a-z0-9-]+)(?:\[([a-z,]+)\])?==", (ROOT / lock_name).read_text(), re.MULTILINE
    ):
        found.setdefault(name, set()).update(filter(None, extras.split(",")))
    return found


def test_every_extra_that_a_distribution_requires_is_pinned_with_it() -> None:
    """pip 23.2, which ships with Python 3.11, rejects a hashed file that lacks one.

    It reports `coverage[toml]` as unpinned where the lock names `coverage` alone.
    """
    locked = extras_pinned("requirements-dev.txt")
    required = [
        (requirement, name)
        for name, extras in locked.items()
        for requirement in map(Requirement, installed_requirements(name))
        if requirement.extras
        and (
            requirement.marker is None
            or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        )
    ]
    assert any(requirement.name == "coverage" for requirement, _ in required)
    missing = [
        f"{name} requires {requirement}"
        for requirement, name in required
        if not requirement.extras <= locked[canonicalize_name(requirement.name)]
    ]
    assert missing == []


def installed_requirements(name: str) -> list[str]:
    """What an installed distribution requires; none for one that another platform needs."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def test_nothing_is_left_for_later_and_no_lock_names_an_index() -> None:
    """Unfinished work belongs in an issue; an address in a lock breaks other machines."""
    unfinished = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError")
    for file in FILES:
        assert not unfinished.search(file.read_text()), file
    for name in ("requirements.txt", "requirements-dev.txt"):
        lock = (ROOT / name).read_text()
        assert not re.search(r"https?://|file:|--index|--find-links|-i ", lock)
        pinned = re.findall(r"^[a-z0-9].*", lock, re.MULTILINE)
        assert pinned
        assert all("==" in line for line in pinned)
        assert lock.count("--hash=sha256:") >= len(pinned)


def test_every_dependency_is_locked_and_justified() -> None:
    """A line in pyproject needs a fitting pin in the lock and a reason in the record of decisions.

    Forgotten after a change of pyproject.toml: `make lock`.
    """
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reasons = (ROOT / "docs" / "adr" / "0001-dependencies.md").read_text()
    development = project["optional-dependencies"]["dev"]
    for more, lock_name in ([], "requirements.txt"), (development, "requirements-dev.txt"):
        locked = pins(lock_name)
        for requirement in map(Requirement, project["dependencies"] + more):
            assert requirement.name in locked, f"{lock_name}: {requirement}"
            assert all(v in requirement.specifier for v in locked[requirement.name]), requirement
            assert f"`{requirement.name}`" in reasons, requirement


def test_no_file_of_the_project_carries_a_path_of_a_machine() -> None:
    """What is committed must mean the same on every machine."""
    paths = re.compile(r"/(root|home/[a-z]+|Users/[a-z]+)/")
    text_files = [f for f in tracked() if f.suffix in {".py", ".md", ".toml", ".yml", ".txt", ""}]
    assert [f.name for f in text_files if paths.search(f.read_text(errors="ignore"))] == []
