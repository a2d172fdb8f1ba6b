"""What can be wrong with an installation, judged from plain values; each as one named finding.

No finding ever contains a secret or a part of one.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from urllib.parse import urlsplit, urlunsplit

MOST_SKEW = timedelta(seconds=60)
FEWEST_CHARACTERS = 8  # different ones, in a key of at least sixteen
_GUESSABLE = ("change", "example", "secret", "password", "your-", "your_", "123456", "qwerty")
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs"}
)
_EPHEMERAL = frozenset({"tmpfs", "ramfs", "overlay", "aufs"})
_SWEPT = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - names to warn of, not to write to


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """One thing that is wrong: its name, what was seen, and what to do about it."""

    name: str
    text: str
    do: str


def is_loopback(host: str) -> bool:
    """True when only this machine reaches an address to listen on."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def keys_wrong(keys: Sequence[str], others: Sequence[str]) -> list[Misconfigured]:
    """What is wrong with the keys of our own API; `others` are secrets they must differ from."""
    found = []
    if any(_is_weak(key) for key in keys):
        found.append(
            Misconfigured(
                "api_key_weak",
                "one of API_KEYS is easy to guess",
                "make a random one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        )
    if len(set(keys)) < len(keys):
        found.append(
            Misconfigured(
                "api_key_repeated",
                "API_KEYS has the same key twice",
                "give each caller a key of its own, so that one can be taken away",
            )
        )
    if set(keys) & set(others):
        found.append(
            Misconfigured(
                "api_key_shared",
                "one of API_KEYS is also used towards Codat",
                "make a key of its own for our API",
            )
        )
    return found


def _is_weak(key: str) -> bool:
    told = key.lower()
    return len(set(told)) < FEWEST_CHARACTERS or any(word in told for word in _GUESSABLE)


def place_wrong(path: str, mounts: str) -> Misconfigured | None:
    """Why an absolute path is no place for SQLite's file; `mounts` is as in /proc/mounts."""
    kind = _file_system(path, mounts)
    if kind in _NETWORK or kind.startswith("fuse.") or kind == "fuse":
        return Misconfigured(
            "sqlite_on_network",
            f"DATABASE_URL is an SQLite file on a network file system ({kind})",
            "put it on a local disk, or use PostgreSQL: locks are not safe there",
        )
    if kind in _EPHEMERAL or any(_is_under(path, folder) for folder in _SWEPT):
        return Misconfigured(
            "sqlite_ephemeral",
            "DATABASE_URL is an SQLite file that does not outlive a restart",
            "put it on a volume or a folder that is kept",
        )
    return None


def _file_system(path: str, mounts: str) -> str:
    """The kind of the file system that holds a path; empty when not known."""
    lines = [line.split(" ") for line in mounts.splitlines() if line.count(" ") >= 3]
    over = [(fields[1], fields[2]) for fields in lines if _is_under(path, fields[1])]
    return max(over, key=lambda each: len(each[0]))[1] if over else ""


def _is_under(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))


def exposed(host: str, addresses: Sequence[str]) -> Misconfigured | None:
    """A finding when we listen to the network and nothing hints at TLS in front of us.

    The hint is one of `addresses`, our endpoints as Codat knows them, that is HTTPS.
    """
    if is_loopback(host) or any(urlsplit(each).scheme == "https" for each in addresses):
        return None
    return Misconfigured(
        "host_exposed",
        f"HOST is {host} and nothing shows that TLS ends in front of this service",
        "put a proxy with TLS before it and enter its https:// address in the Codat Portal, "
        "or set HOST=127.0.0.1",
    )


def in_clear(base_url: str) -> Misconfigured | None:
    """A finding when the key for Codat would travel unencrypted."""
    parts = urlsplit(base_url)
    if parts.scheme == "https" or is_loopback(parts.hostname or ""):
        return None
    return Misconfigured(
        "codat_in_clear",
        "CODAT_BASE_URL is not https://: the key travels unencrypted",
        "use https://api.codat.io",
    )


def skewed(skew: timedelta | None) -> Misconfigured | None:
    """A finding when our clock is off; `skew` is ours less Codat's."""
    if skew is None or abs(skew) <= MOST_SKEW:
        return None
    way = "ahead of" if skew > timedelta() else "behind"
    return Misconfigured(
        "clock_skewed",
        f"this machine's clock is {abs(int(skew.total_seconds()))} s {way} Codat's",
        "let NTP set it: deliveries more than 5 minutes off are refused",
    )


def shown(address: str) -> str:
    """An address without the parts in which secrets travel: user, password, query."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
