"""Fingerprints: equal failures share one, whatever ids, amounts, dates and names they carry."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.causes.fingerprint import fingerprint, masked, plain

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
    st.uuids().map(lambda each: str(each).upper()),
    st.uuids().map(lambda each: each.hex),
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


@given(MESSAGES, MESSAGES)
def test_messages_that_differ_only_in_particulars_share_a_fingerprint(one: str, other: str) -> None:
    """Ids, correlation ids, amounts, dates, quoted names and e-mail addresses."""
    assert masked(one) == masked(other)
    assert fingerprint(one) == fingerprint(other)


@given(WORDS, WORDS, IDS)
def test_messages_of_other_words_have_other_fingerprints(one: str, other: str, number: str) -> None:
    """The sentence itself decides."""
    same = fingerprint(f"The {one} {number} is closed") == fingerprint(f"The {other} 7 is closed")
    assert same == (one == other)


@given(st.text())
def test_any_text_has_a_fingerprint_and_masking_twice_changes_nothing(text: str) -> None:
    """Whatever comes from Codat."""
    assert len(fingerprint(text)) == 16
    assert masked(masked(text)) == masked(text)


@given(st.lists(IDS, min_size=1, max_size=5), st.lists(IDS, min_size=1, max_size=5))
def test_a_list_of_ids_is_as_good_as_one(some: list[str], others: list[str]) -> None:
    """Codat lists the transactions that it has processed before."""
    said = "One or more transactions have previously been processed: {}"
    assert fingerprint(said.format(", ".join(some))) == fingerprint(said.format(", ".join(others)))


@pytest.mark.parametrize(
    ("message", "left"),
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
def test_what_is_left_can_be_read(message: str | None, left: str) -> None:
    """It stands on the page of causes as the group's sentence."""
    assert masked(message) == left


def test_the_plain_form_is_what_rules_are_written_against() -> None:
    """Lower case, single blanks, straight quotes, and not without end."""
    assert plain("You’re\u00a0 “HERE” – now") == 'you\'re "here" - now'
    assert len(plain("x" * 5000)) == 2000


@given(st.uuids(), st.uuids())
def test_rules_do_not_see_correlation_ids(one: object, other: object) -> None:
    """So what was decided for one failure is known for all equal ones."""
    said = "Failed. Correlation ID: {}. Message: Oops"
    assert plain(said.format(one)) == plain(said.format(other))
    assert plain(said.format(one)).endswith("message: oops")
