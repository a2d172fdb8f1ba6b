"""Misconfigurations, found in plain values; no finding contains a secret."""

from datetime import timedelta

import pytest

from app.domain.checks import (
    check_api_keys,
    check_clock,
    check_codat_base_url,
    check_sqlite_location,
    check_tls,
    is_loopback,
    redact_url,
)

MOUNTS = """\
overlay / overlay rw 0 0
/dev/sda1 /srv/data ext4 rw 0 0
server:/x /mnt/nfs nfs4 rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
tmpfs /run tmpfs rw 0 0
odd line
"""
GOOD_KEY = "tTq4h9mZx2Lk8WvB1sYd"


@pytest.mark.parametrize(
    ("keys", "others", "expected"),
    [
        ([GOOD_KEY], ["whsec_x"], []),
        ([], [], []),
        (["aaaaaaaabbbbbbbb"], [], ["api_key_weak"]),
        (["Change-me-please-now"], [], ["api_key_weak"]),
        ([GOOD_KEY, GOOD_KEY], [], ["api_key_repeated"]),
        ([GOOD_KEY], [GOOD_KEY], ["api_key_shared"]),
    ],
)
def test_api_keys_are_strong_and_used_for_one_purpose(
    keys: list[str], others: list[str], expected: list[str]
) -> None:
    """Length alone does not make a key strong."""
    found = check_api_keys(keys, others)
    assert [finding.name for finding in found] == expected
    assert not any(key in finding.text + finding.action for key in keys for finding in found)


@pytest.mark.parametrize(
    ("path", "mounts", "name"),
    [
        ("/srv/data/syncs.db", MOUNTS, None),
        ("/srv/database.db", MOUNTS, "sqlite_ephemeral"),
        ("/mnt/nfs/syncs.db", MOUNTS, "sqlite_on_network"),
        ("/mnt/ssh/syncs.db", MOUNTS, "sqlite_on_network"),
        ("/run/syncs.db", MOUNTS, "sqlite_ephemeral"),
        ("/srv/data/syncs.db", "", None),
        ("/tmp/syncs.db", "", "sqlite_ephemeral"),
    ],
)
def test_the_closest_mount_decides_where_sqlite_is_safe(
    path: str, mounts: str, name: str | None
) -> None:
    """Without /proc/mounts only the folder counts."""
    found = check_sqlite_location(path, mounts)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("host", "urls", "is_exposed"),
    [
        ("127.0.0.1", [], False),
        ("localhost", [], False),
        ("::1", [], False),
        ("0.0.0.0", [], True),
        ("10.1.2.3", ["http://us.example/webhooks/codat"], True),
        ("0.0.0.0", ["https://us.example/webhooks/codat"], False),
        ("our-host", [], True),
    ],
)
def test_listening_to_the_network_needs_a_sign_of_tls(
    host: str, urls: list[str], is_exposed: bool
) -> None:
    """The sign is the URL by which Codat reaches us."""
    assert (check_tls(host, urls) is not None) == is_exposed
    assert is_loopback("127.0.0.2")


@pytest.mark.parametrize(
    ("url", "is_finding"),
    [
        ("https://api.codat.io", False),
        ("http://127.0.0.1:9000", False),
        ("http://[::1]:9000", False),
        ("http://codat.internal", True),
    ],
)
def test_the_codat_key_is_not_sent_unencrypted(url: str, is_finding: bool) -> None:
    """Except to a simulator on the same machine."""
    assert (check_codat_base_url(url) is not None) == is_finding


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, None), (60, None), (-60, None), (61, "61 s ahead of"), (-90, "90 s behind")],
)
def test_a_clock_may_be_a_minute_off(seconds: int, text: str | None) -> None:
    """Webhooks are rejected from five minutes on, so this warns in time."""
    found = check_clock(timedelta(seconds=seconds))
    assert (found is not None) == (text is not None)
    assert text is None or (found and text in found.text)
    assert check_clock(None) is None


def test_a_url_is_shown_without_its_secrets() -> None:
    """People put tokens into the endpoint's URL."""
    url = "https://user:canary@us.example:8443/webhooks/codat?token=canary#canary"
    assert redact_url(url) == "https://us.example:8443/webhooks/codat"
