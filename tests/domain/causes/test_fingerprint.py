"""Fingerprints: equal failures share one, whatever IDs, amounts, dates, and names they contain."""

from datetime import date

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.domain.causes.fingerprint import fingerprint, mask, normalize

WORDS = st.text("abcdefghijklmnopqrstuvwxyzäöü", min_size=1, max_size=9)
NAMES = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789&.,()-", min_size=1),
    min_size=1,
    max_size=4,
).map(" ".join)
QUOTES = st.sampled_from(["'{}'", '"{}"', "‘{}’", "“{}”", "`{}`", "«{}»"])
QUOTED = st.builds(lambda form, name: form.format(name), QUOTES, NAMES)
IDS = st.one_of(
    st.uuids().map(str),
    st.uuids().map(lambda value: str(value).upper()),
    st.uuids().map(lambda value: value.hex),
    st.integers(0, 10**12).map(str),
    st.integers(1, 10**6).map(lambda n: f"INV-{n:05}"),
)
AMOUNTS = st.builds(
    lambda sign, form, n: sign + form.format(n / 100),
    st.sampled_from(["", "-", "+"]),
    st.sampled_from(["{:.2f}", "{:,.2f}", "£{:.2f}", "€ {:.2f}", "EUR {:.2f}", "{:.2f} USD"]),
    st.integers(0, 10**9),
)
DATES = st.builds(
    lambda form, day: day.strftime(form),
    st.sampled_from(
        ["%Y-%m-%d", "%d/%m/%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%B %d, %Y", "%Y-%m-%dT09:30Z"]
    ),
    st.dates(date(1990, 1, 1), date(2090, 1, 1)),
)
EMAILS = st.builds("{}.{}@{}.example.com".format, *[st.from_regex(r"\A[a-z0-9]{1,8}\Z")] * 3)
TEMPLATE = (
    "An error occurred in a downstream service. Correlation ID: {id}. Message: the invoice {quoted}"
    " of {email} over {amount} cannot be dated {date} because {other} was changed."
)
MESSAGES = st.builds(
    TEMPLATE.format,
    id=st.uuids(),
    quoted=QUOTED,
    email=EMAILS,
    amount=AMOUNTS,
    date=DATES,
    other=IDS,
)


@settings(max_examples=40)
@given(MESSAGES, MESSAGES)
def test_messages_that_differ_only_in_variable_parts_share_a_fingerprint(
    one: str, other: str
) -> None:
    """IDs, correlation IDs, amounts, dates, quoted names, and email addresses."""
    assert mask(one) == mask(other)
    assert fingerprint(one) == fingerprint(other)


@given(WORDS, WORDS, IDS)
def test_messages_with_different_words_have_different_fingerprints(
    one: str, other: str, number: str
) -> None:
    """Only the variable parts are masked."""
    same = fingerprint(f"The {one} {number} is closed") == fingerprint(f"The {other} 7 is closed")
    assert same == (one == other)


@example("0''")
@given(st.text())
def test_any_text_has_a_fingerprint_and_masking_twice_changes_nothing(text: str) -> None:
    """Messages from Codat can contain any text."""
    assert len(fingerprint(text)) == 16
    assert mask(mask(text)) == mask(text)


@given(st.lists(IDS, min_size=1, max_size=5), st.lists(IDS, min_size=1, max_size=5))
def test_a_list_of_ids_is_masked_like_one_id(ids: list[str], other_ids: list[str]) -> None:
    """Codat lists the transactions that were already processed."""
    text = "One or more transactions have previously been processed: {}"
    assert fingerprint(text.format(", ".join(ids))) == fingerprint(
        text.format(", ".join(other_ids))
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Account code '429' is not active", "account code # is not active"),
        ("You can't use O'Brien's card", "you can't use o'brien's card"),
        ("The supplier 'O'Brien & Co' is gone", "the supplier # is gone"),
        ("Feed Connection failed(409): taken", "feed connection failed(#): taken"),
        ("currently set at 31-Jul-2013", "currently set at #"),
        ("must equal the transaction total -1.1", "must equal the transaction total #"),
        ("  two \n lines ", "two lines"),
        (None, ""),
    ],
)
def test_masked_message_is_readable(message: str | None, expected: str) -> None:
    """The causes page shows the masked message as the name of a group."""
    assert mask(message) == expected


def test_normalized_message_is_what_rules_match() -> None:
    """Lower case, single spaces, ASCII quotes, and a limited length."""
    assert normalize("You’re\u00a0 “HERE” – now") == 'you\'re "here" - now'
    assert len(normalize("x" * 5000)) == 2000


@given(st.uuids(), st.uuids())
def test_normalized_message_has_no_correlation_id(one: object, other: object) -> None:
    """Nor the sentence around it. Equal failures then share one cached result."""
    text = "Failed. Correlation ID: {}. Message: Oops"
    assert normalize(text.format(one)) == normalize(text.format(other))
    assert normalize(text.format(one)) == "oops"
