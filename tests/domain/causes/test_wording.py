"""The texts of the built-in causes follow the writing rules, because they are shown unedited."""

import re
from dataclasses import asdict

import pytest

from app.domain.causes.classifier import OWNERS, RETRY_ADVICE, Cause
from app.domain.causes.loader import load_builtin

CAUSES = list(load_builtin().causes.values())
BRITISH = re.compile(
    r"\w(?:isation|ised?\b|ising\b|our\b)|\b(?:centre|licence|cheque|catalogue|cancelled)", re.I
)
NOT_BRITISH = re.compile(r"\b(?:your|our|hour|four|raised?|otherwise|promised?)\b", re.I)
VAGUE = re.compile(
    r"\b(?:told|kept|owed|heed\w*|mend\w*|anew|whoever|somebody|in vain|for ever|may not|let Codat"
    r"|refused|says that)\b",
    re.I,
)
OPENS_WITH_PRONOUN = re.compile(r"(?:^|\. )(?:It|Its|They|Their)\b")


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=\.) ", text) if part]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.key)
def test_texts_can_be_shown_without_editing(cause: Cause) -> None:
    """A title is a phrase. Every other text is whole sentences that fit in two lines or so."""
    assert cause.owner in OWNERS
    assert cause.retry_advice in RETRY_ADVICE
    assert not cause.title.endswith(".")
    assert cause.title[0].isupper()
    assert len(cause.title) <= 50
    for text in (cause.text, cause.customer_message, cause.next_step):
        assert text.endswith(".")
        for sentence in sentences(text):
            assert sentence[0].isupper(), sentence
            assert sentence.endswith("."), sentence
            assert len(sentence) <= 180, sentence
    assert len(sentences(cause.customer_message)) == 2


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.key)
def test_texts_are_plain_american_english(cause: Cause) -> None:
    """No semicolons, no parentheses for customers, no sentence about an unnamed "it"."""
    for field, text in asdict(cause).items():
        assert ";" not in text, field
        assert "  " not in text, field
        assert text == text.strip(), field
        assert not BRITISH.search(NOT_BRITISH.sub("", text)), field
        assert not VAGUE.search(text), field
        assert not OPENS_WITH_PRONOUN.search(text), field
    assert "(" not in cause.customer_message
    assert "Codat" not in cause.customer_message  # customers may not have heard of Codat


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.key)
def test_owner_next_step_and_customer_message_agree(cause: Cause) -> None:
    """Only a customer who owns the cause is asked for something. Support waits for software."""
    first_step = sentences(cause.next_step)[0]
    assert ("Please " in cause.customer_message) is (cause.owner == "customer")
    assert (" the customer " in first_step) is (cause.owner == "customer")
    assert first_step.startswith("Wait ") is (cause.owner in ("accounting_software", "codat"))


def test_titles_are_unique() -> None:
    """Two causes with one title would look the same on pages."""
    assert len({cause.title for cause in CAUSES}) == len(CAUSES)
