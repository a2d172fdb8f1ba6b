"""Is it Codat's? Signed by the svix library itself, and attacked in every way we know."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from svix.webhooks import Webhook

from app.codat.webhooks.signature import Verifier
from app.errors import SettingsError, SignatureError

SECRET = "whsec_" + b64encode(b"a" * 24).decode()
OTHER = "whsec_" + b64encode(b"b" * 32).decode()
BODY = json.dumps({"RuleType": "Sync Failed"}).encode()

Headers = list[tuple[bytes, bytes]]


def signed(
    *,
    family: str = "webhook",
    message_id: str = "msg_1",
    body: bytes = BODY,
    secret: str = SECRET,
    ago: timedelta = timedelta(),
) -> Headers:
    at = datetime.now(UTC) - ago
    signature = Webhook(secret).sign(message_id, at, body.decode())
    values = (message_id, str(int(at.timestamp())), signature)
    return [
        (f"{family}-{part}".encode(), value.encode())
        for part, value in zip(("id", "timestamp", "signature"), values, strict=True)
    ]


def refused(headers: Headers, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,)) -> str:
    with pytest.raises(SignatureError) as caught:
        Verifier(secrets).verify(headers, body)
    return str(caught.value)


def changed(headers: Headers, name: str, value: bytes) -> Headers:
    return [(n, value if n == name.encode() else v) for n, v in headers]


@pytest.mark.parametrize("family", ["webhook", "svix"])
def test_a_delivery_signed_by_svix_is_accepted_in_both_header_families(family: str) -> None:
    """Codat changed from one to the other in August 2024."""
    verified = Verifier([SECRET]).verify(signed(family=family), BODY)
    assert (verified.message_id, verified.secret_index, verified.family) == ("msg_1", 0, family)


def test_the_documented_vector_verifies() -> None:
    """Codat's page on webhook consumers shows one; its clock is that of February 2021."""
    headers = [
        (b"webhook-id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
        (b"webhook-timestamp", b"1614265330"),
        (b"webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]
    with time_machine.travel(datetime.fromtimestamp(1614265330, UTC), tick=False):
        verifier = Verifier(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
        found = verifier.verify(headers, b'{"test": 2432232314}')
    assert found.message_id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_every_secret_of_the_list_is_tried_and_the_match_is_told() -> None:
    """One secret per endpoint, and two while rotating."""
    verified = Verifier([OTHER, SECRET]).verify(signed(), BODY)
    assert verified.secret_index == 1


def test_several_signatures_may_stand_in_one_header() -> None:
    """While rotating, Codat signs with the new and the old key; ed25519 entries are skipped."""
    headers = signed()
    both = b"v1a,AAAA " + signed(secret=OTHER)[2][1] + b" " + headers[2][1]
    assert Verifier([SECRET]).verify(changed(headers, "webhook-signature", both), BODY)


def test_a_changed_body_a_wrong_secret_and_no_headers_are_refused() -> None:
    """The plain forgeries."""
    assert refused(signed(), BODY + b" ") == "mismatch"
    assert refused(signed(secret=OTHER)) == "mismatch"
    assert refused([]) == "missing"
    assert refused(signed()[:2]) == "missing"


@pytest.mark.parametrize("name", ["id", "timestamp", "signature"])
def test_a_header_that_comes_twice_is_refused(name: str) -> None:
    """Which of the two a proxy or a library takes must not matter."""
    headers = signed()
    twice = [pair for pair in headers if pair[0] == f"webhook-{name}".encode()]
    assert refused(headers + twice) == "missing"
    assert refused(headers + twice + twice) == "missing"


def test_no_family_is_completed_with_headers_of_the_other() -> None:
    """The library would take them header by header."""
    ours, theirs = signed(), signed(family="svix")
    for n in range(3):
        assert refused([*ours[:n], theirs[n], *ours[n + 1 :]]) == "mixed"


@pytest.mark.parametrize("part", ["id", "timestamp", "signature"])
def test_a_made_up_header_of_the_other_family_is_never_used(part: str) -> None:
    """A captured delivery must not get a new message id by an added header."""
    added = [(f"webhook-{part}".encode(), b"msg_made_up")]
    verified = Verifier([SECRET]).verify(added + signed(family="svix"), BODY)
    assert (verified.message_id, verified.family) == ("msg_1", "svix")


def test_two_complete_families_must_agree() -> None:
    """Equal ones are one delivery; different ones are refused as mixed."""
    equal = signed() + signed(family="svix")
    assert Verifier([SECRET]).verify(equal, BODY).message_id == "msg_1"
    assert refused(signed() + signed(family="svix", message_id="msg_2")) == "mixed"


@pytest.mark.parametrize(
    ("seconds", "fine"), [(299, True), (301, False), (-299, True), (-301, False)]
)
def test_five_minutes_either_way_are_tolerated(seconds: int, fine: bool) -> None:
    """The timestamp is that of the attempt, so an honest late retry is fresh."""
    with time_machine.travel(datetime(2026, 1, 1, tzinfo=UTC), tick=False):
        headers = signed(ago=timedelta(seconds=seconds))
        if fine:
            assert Verifier([SECRET]).verify(headers, BODY)
        else:
            assert refused(headers) == "stale"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timestamp", b""), ("timestamp", b"1614265330.9"), ("timestamp", b"1_614_265_330"),
        ("timestamp", b" 1614265330"), ("timestamp", b"nan"), ("timestamp", b"1e400"),
        ("timestamp", b"9" * 400), ("timestamp", b"-1"), ("timestamp", "١٦١٤".encode()),
        ("id", b""), ("id", b"x" * 256), ("id", b"msg\x01"), ("id", "mßg".encode()),
        ("signature", b""), ("signature", b"v1"), ("signature", b"v1,a,b"),
        ("signature", b"v1,%%%"), ("signature", b"v1,a  v1,b"), ("signature", b"\xff\xfe"),
        ("signature", b"v1,A " * 1000), ("signature", b"v1," + b"A" * 5000),
    ],
)  # fmt: skip
def test_hostile_headers_are_refused_and_nothing_else(name: str, value: bytes) -> None:
    """The library raises four kinds of errors on these; we raise one."""
    assert refused(changed(signed(), f"webhook-{name}", value))


def test_a_body_that_is_no_utf8_is_refused() -> None:
    """The scheme signs a text; nobody can have signed this."""
    assert refused(signed(), b"\xff\xfe") == "mismatch"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"webhook-id", b"webhook-timestamp", b"webhook-signature"]
                + [b"svix-id", b"svix-timestamp", b"svix-signature", b"host"]
            ),
            st.binary(max_size=60),
        ),
        max_size=8,
    ),
    st.binary(max_size=60),
)
def test_anything_at_all_is_refused_with_one_kind_of_error(headers: Headers, body: bytes) -> None:
    """No input makes the door answer 500."""
    with pytest.raises(SignatureError):
        Verifier([SECRET]).verify(headers, body)


@pytest.mark.parametrize(
    "secret",
    [
        "", "whsec_", "whsec_!!!!", f"v1,{SECRET}", SECRET.removeprefix("whsec_"), f" {SECRET}",
        f"{SECRET}\n", "whsec_" + b64encode(b"short").decode(),
        "whsec_" + b64encode(b"x" * 65).decode(), "whsec_AAAA",
    ],
)  # fmt: skip
def test_a_secret_that_could_never_match_stops_the_start_without_being_shown(secret: str) -> None:
    """The line names the setting and the place in the list."""
    with pytest.raises(SettingsError) as caught:
        Verifier([SECRET, secret])
    assert "CODAT_WEBHOOK_SECRETS: secret number 2" in str(caught.value)
    assert len(secret) < 10 or secret not in str(caught.value)


def test_no_secret_is_in_the_verifiers_repr() -> None:
    """It ends up in logs and tracebacks."""
    assert SECRET not in repr(Verifier([SECRET]))
