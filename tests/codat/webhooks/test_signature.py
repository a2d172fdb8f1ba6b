"""Signature verification: deliveries signed by the svix library, and every known attack."""

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
OTHER_SECRET = "whsec_" + b64encode(b"b" * 32).decode()
BODY = json.dumps({"RuleType": "Sync Failed"}).encode()
PARTS = ("id", "timestamp", "signature")

Headers = list[tuple[bytes, bytes]]


def signed(
    *,
    family: str = "webhook",
    message_id: str = "msg_1",
    secret: str = SECRET,
    ago: timedelta = timedelta(),
) -> Headers:
    at = datetime.now(UTC) - ago
    signature = Webhook(secret).sign(message_id, at, BODY.decode())
    values = (message_id, str(int(at.timestamp())), signature)
    return [
        (f"{family}-{part}".encode(), value.encode())
        for part, value in zip(PARTS, values, strict=True)
    ]


def rejection(headers: Headers, body: bytes = BODY) -> str:
    with pytest.raises(SignatureError) as caught:
        Verifier([SECRET]).verify(headers, body)
    return str(caught.value)


def replaced(headers: Headers, name: str, value: bytes) -> Headers:
    return [(n, value if n == name.encode() else v) for n, v in headers]


@pytest.mark.parametrize("family", ["webhook", "svix"])
def test_both_header_families_are_accepted(family: str) -> None:
    """Codat changed from one to the other in August 2024. Where both are sent, they must agree."""
    verified = Verifier([SECRET]).verify(signed(family=family), BODY)
    assert (verified.message_id, verified.secret_index, verified.family) == ("msg_1", 0, family)
    equal = signed() + signed(family="svix")
    assert Verifier([SECRET]).verify(equal, BODY).message_id == "msg_1"
    assert rejection(signed() + signed(family="svix", message_id="msg_2")) == "mixed"


def test_the_documented_example_verifies() -> None:
    """Codat's page on webhook consumers has one; its time is February 2021."""
    headers = [
        (b"webhook-id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
        (b"webhook-timestamp", b"1614265330"),
        (b"webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]
    verifier = Verifier(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    with time_machine.travel(datetime.fromtimestamp(1614265330, UTC), tick=False):
        verified = verifier.verify(headers, b'{"test": 2432232314}')
    assert verified.message_id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_every_secret_and_every_signature_is_tried() -> None:
    """One secret per endpoint, two while rotating; then Codat signs with the new and the old key.

    Entries of another scheme (ed25519) are skipped.
    """
    headers = signed()
    assert Verifier([OTHER_SECRET, SECRET]).verify(headers, BODY).secret_index == 1
    several = b"v1a,AAAA " + signed(secret=OTHER_SECRET)[2][1] + b" " + headers[2][1]
    assert Verifier([SECRET]).verify(replaced(headers, "webhook-signature", several), BODY)


def test_plain_forgeries_are_rejected() -> None:
    """Another body, another secret, missing headers, a body that is not UTF-8."""
    assert rejection(signed(), BODY + b" ") == "mismatch"
    assert rejection(signed(secret=OTHER_SECRET)) == "mismatch"
    assert rejection(signed(), b"\xff\xfe") == "mismatch"
    assert rejection([]) == "missing"
    assert rejection(signed()[:2]) == "missing"


@pytest.mark.parametrize("part", PARTS)
def test_repeated_and_mixed_headers_are_rejected(part: str) -> None:
    """It must not matter which of two headers a proxy or a library takes."""
    headers, index = signed(), PARTS.index(part)
    repeated = headers[index : index + 1]
    assert rejection(headers + repeated) == "missing"
    assert rejection(headers + repeated * 2) == "missing"
    svix = signed(family="svix")
    assert rejection([*headers[:index], svix[index], *headers[index + 1 :]]) == "mixed"


@pytest.mark.parametrize("part", PARTS)
def test_an_added_header_of_the_other_family_is_ignored(part: str) -> None:
    """A captured delivery must not get a new message id by an added header."""
    added = [(f"webhook-{part}".encode(), b"msg_made_up")]
    verified = Verifier([SECRET]).verify(added + signed(family="svix"), BODY)
    assert (verified.message_id, verified.family) == ("msg_1", "svix")


@pytest.mark.parametrize("seconds", [299, -299, 301, -301])
def test_five_minutes_either_way_are_tolerated(seconds: int) -> None:
    """The timestamp is that of the attempt, so a late retry is fresh."""
    with time_machine.travel(datetime(2026, 1, 1, tzinfo=UTC), tick=False):
        headers = signed(ago=timedelta(seconds=seconds))
        if abs(seconds) < 300:
            assert Verifier([SECRET]).verify(headers, BODY)
        else:
            assert rejection(headers) == "stale"


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
def test_hostile_headers_are_rejected_with_one_error(name: str, value: bytes) -> None:
    """The library raises four types of errors on these."""
    assert rejection(replaced(signed(), f"webhook-{name}", value))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [f"{family}-{part}".encode() for family in ("webhook", "svix") for part in PARTS]
                + [b"host"]
            ),
            st.binary(max_size=60),
        ),
        max_size=8,
    ),
    st.binary(max_size=60),
)
def test_random_input_is_rejected_with_one_error(headers: Headers, body: bytes) -> None:
    """No input makes the endpoint answer 500."""
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
def test_a_secret_that_could_never_match_is_a_settings_error(secret: str) -> None:
    """The error names the setting and the place in the list, never the secret."""
    with pytest.raises(SettingsError) as caught:
        Verifier([SECRET, secret])
    assert "CODAT_WEBHOOK_SECRETS: secret 2 is invalid" in str(caught.value)
    assert len(secret) < 10 or secret not in str(caught.value)
    assert SECRET not in repr(Verifier([SECRET]))
