"""Checks of an installation, on plain values: each misconfiguration is one named finding.

No finding contains a secret or a part of one.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from urllib.parse import urlsplit

MAX_CLOCK_SKEW = timedelta(seconds=60)
MIN_DISTINCT_CHARACTERS = 8  # in an API key of at least sixteen
_GUESSABLE = ("change", "example", "secret", "password", "your-", "your_", "123456", "qwerty")
_SHARED_FILE_SYSTEMS = frozenset({
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "glusterfs",
    "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "gfs2", "ocfs2", "wekafs",
    # a folder of the host in a virtual machine or a desktop's container
    "9p", "v9fs", "virtiofs", "vboxsf", "prl_fs", "drvfs", "vmhgfs", "fakeowner", "osxfs",
})  # fmt: skip
_EPHEMERAL_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "overlay", "aufs"})
_OCTAL = re.compile(r"\\([0-7]{3})")  # how /proc/mounts writes blanks
_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - only compared, never written


@dataclass(frozen=True, slots=True)
class Misconfiguration:
    """One thing that is wrong: its name, what was found, and what to do about it."""

    name: str
    text: str
    action: str


def is_loopback(host: str) -> bool:
    """True when only this machine can reach an address to listen on."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_api_keys(keys: Sequence[str], other_secrets: Sequence[str]) -> Iterator[Misconfiguration]:
    """Weak, repeated or reused API keys; `other_secrets` must differ from all of them."""
    if any(map(_is_weak, keys)):
        yield Misconfiguration(
            "api_key_weak",
            "One of API_KEYS is easy to guess.",
            "Generate one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    if len(set(keys)) < len(keys):
        yield Misconfiguration(
            "api_key_repeated",
            "API_KEYS contains the same key twice.",
            "Give each caller its own key, so that you can revoke one.",
        )
    if set(keys) & set(other_secrets):
        yield Misconfiguration(
            "api_key_shared",
            "One of API_KEYS is also a Codat secret.",
            "Generate a separate key for this API.",
        )


def _is_weak(key: str) -> bool:
    folded = key.lower()
    return len(set(folded)) < MIN_DISTINCT_CHARACTERS or any(w in folded for w in _GUESSABLE)


def check_sqlite_location(path: str, mounts: str) -> Misconfiguration | None:
    """Whether an absolute path is safe for the SQLite file; `mounts` is as in /proc/mounts."""
    kind = _file_system(path, mounts)
    if kind in _SHARED_FILE_SYSTEMS or kind.partition(".")[0] == "fuse":
        return Misconfiguration(
            "sqlite_on_network",
            f"The SQLite file of DATABASE_URL is on a network or virtual file system ({kind}).",
            "Move it to a local disk, or use PostgreSQL: file locks are not safe there.",
        )
    if kind in _EPHEMERAL_FILE_SYSTEMS or any(_is_in(path, f) for f in _TEMPORARY_FOLDERS):
        return Misconfiguration(
            "sqlite_ephemeral",
            "The SQLite file of DATABASE_URL is in a temporary location.",
            "Move it to a persistent volume.",
        )
    return None


def _file_system(path: str, mounts: str) -> str:
    """The type of the file system that contains a path; empty when unknown."""
    kind, length = "", 0
    for line in mounts.splitlines():
        fields = line.split(" ")
        folder = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[1]) if fields[3:] else ""
        if folder and len(folder) >= length and _is_in(path, folder):  # the last one is on top
            kind, length = fields[2], len(folder)
    return kind


def _is_in(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))


def check_tls(host: str, endpoint_urls: Sequence[str]) -> Misconfiguration | None:
    """A finding when we listen to the network and nothing indicates TLS in front of us.

    The indication is one of `endpoint_urls`, our endpoints as configured at Codat, that is HTTPS.
    """
    if is_loopback(host) or any(urlsplit(url).scheme == "https" for url in endpoint_urls):
        return None
    return Misconfiguration(
        "host_exposed",
        f"HOST is {host}, and no https:// endpoint at Codat shows that a proxy terminates TLS.",
        "Put a TLS proxy in front and enter its https:// URL in the Codat Portal, "
        "or set HOST=127.0.0.1.",
    )


def check_codat_base_url(base_url: str) -> Misconfiguration | None:
    """A finding when the API key would travel to Codat unencrypted."""
    parts = urlsplit(base_url)
    if parts.scheme == "https" or is_loopback(parts.hostname or ""):
        return None
    return Misconfiguration(
        "codat_in_clear",
        "CODAT_BASE_URL is not https://, so the API key is sent unencrypted.",
        "Use https://api.codat.io.",
    )


def check_clock(skew: timedelta | None) -> Misconfiguration | None:
    """A finding when this machine's clock is off; `skew` is its time minus Codat's."""
    if skew is None or abs(skew) <= MAX_CLOCK_SKEW:
        return None
    direction = "ahead of" if skew > timedelta() else "behind"
    return Misconfiguration(
        "clock_skewed",
        f"This machine's clock is {abs(int(skew.total_seconds()))} s {direction} Codat's.",
        "Enable NTP. Webhooks are rejected when the clocks differ by more than 5 minutes.",
    )


def redact_url(url: str) -> str:
    """A URL without the parts that may carry secrets: user, password, query and fragment."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
