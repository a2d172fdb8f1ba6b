"""What can be wrong with an installation, from plain values; no finding shows a secret."""

from datetime import timedelta

import pytest

from app.domain.checks import exposed, in_clear, is_loopback, keys_wrong, place_wrong, shown, skewed

MOUNTS = """\
overlay / overlay rw 0 0
/dev/sda1 /srv/data ext4 rw 0 0
server:/x /mnt/nfs nfs4 rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
tmpfs /run tmpfs rw 0 0
odd line
"""
GOOD_KEY = "tTq4h9mZx2Lk8WvB1sYd"


def names(keys: list[str], others: list[str]) -> list[str]:
    found = keys_wrong(keys, others)
    for each in found:
        assert not any(key in each.text + each.do for key in keys + others)
    return [each.name for each in found]


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
def test_keys_are_strong_and_each_of_its_own(
    keys: list[str], others: list[str], expected: list[str]
) -> None:
    """Length alone does not make a key."""
    assert names(keys, others) == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/data/syncs.db", None),
        ("/srv/database.db", "sqlite_ephemeral"),
        ("/mnt/nfs/syncs.db", "sqlite_on_network"),
        ("/mnt/ssh/syncs.db", "sqlite_on_network"),
        ("/run/syncs.db", "sqlite_ephemeral"),
    ],
)
def test_a_file_system_tells_whether_sqlite_is_safe_on_it(path: str, name: str | None) -> None:
    """The mount that is nearest to the file counts."""
    found = place_wrong(path, MOUNTS)
    assert (found and found.name) == name


def test_where_no_mounts_are_known_only_the_folder_counts() -> None:
    """A machine without /proc is no reason to say nothing, or too much."""
    assert place_wrong("/srv/data/syncs.db", "") is None
    swept = place_wrong("/tmp/syncs.db", "")
    assert swept
    assert swept.name == "sqlite_ephemeral"


@pytest.mark.parametrize(
    ("host", "addresses", "wrong"),
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
def test_listening_to_the_network_needs_a_hint_of_tls(
    host: str, addresses: list[str], wrong: bool
) -> None:
    """The hint is the address by which Codat reaches us."""
    assert (exposed(host, addresses) is not None) == wrong
    assert is_loopback("127.0.0.2")


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("https://api.codat.io", False),
        ("http://127.0.0.1:9000", False),
        ("http://[::1]:9000", False),
        ("http://codat.internal", True),
    ],
)
def test_the_key_for_codat_does_not_travel_in_clear(address: str, wrong: bool) -> None:
    """Except to a simulator on the same machine."""
    assert (in_clear(address) is not None) == wrong


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, None), (60, None), (-60, None), (61, "61 s ahead of"), (-90, "90 s behind")],
)
def test_a_clock_may_be_a_minute_off(seconds: int, said: str | None) -> None:
    """Deliveries are refused from five on, so this warns in time."""
    found = skewed(timedelta(seconds=seconds))
    assert (found is not None) == (said is not None)
    assert said is None or (found and said in found.text)
    assert skewed(None) is None


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    """People put tokens into the endpoint's address."""
    told = "https://user:canary@us.example:8443/webhooks/codat?token=canary#canary"
    assert shown(told) == "https://us.example:8443/webhooks/codat"
