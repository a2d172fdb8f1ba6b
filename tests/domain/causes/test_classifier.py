"""The classifier: documented messages have the right cause, and nothing is guessed."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from app.domain.causes.classifier import UNCLASSIFIED, Classifier, Failure
from app.domain.causes.fingerprint import fingerprint, normalize_texts
from app.domain.causes.loader import load_builtin, load_custom
from app.domain.causes.patterns import grams_of
from app.domain.status_codes import STATUS_TEXTS

SAMPLES = Path(__file__).parents[2] / "samples"
FILES = sorted((SAMPLES / "messages").glob("*.json"))
CORPUS: list[dict[str, Any]] = [row for file in FILES for row in json.loads(file.read_text())]
LOOKALIKES = json.loads((SAMPLES / "lookalikes.json").read_text())
PHRASINGS = json.loads((SAMPLES / "phrasings.json").read_text())
GATHERED = json.loads((SAMPLES / "gathered.json").read_text())
CORRELATION_ID = "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004"


def cause_of(message: str | None, **fields: Any) -> str | None:
    return load_builtin().classify_transaction(message, **{"status": "PushError"} | fields)


def new_classifier() -> Classifier:
    """Return the built-in classifier with an empty cache."""
    return load_custom("", load_builtin())


def test_corpus_is_large_and_names_its_sources() -> None:
    """Real messages of a dozen platforms, each with a public source."""
    assert len(CORPUS) >= 150
    assert len(FILES) >= 10
    for row in CORPUS:
        assert {"message", "cause", "source"} <= set(row), row
        assert row["source"].startswith("https://") or " " in row["source"], row
        assert row["cause"] in load_builtin().causes, row


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: row["message"][:50])
def test_documented_message_has_its_cause(row: dict[str, Any]) -> None:
    """As documented, in capitals, wrapped by Codat, and with other quotes and spaces."""
    message, expected = row["message"], row["cause"]
    wrapped = (
        "An error occurred in a downstream service. "
        f"Correlation ID: {CORRELATION_ID}. Message:  {message}"
    )
    spaced = message.replace(" ", "\u00a0 ").replace("'", "’")
    assert {cause_of(message), cause_of(message.upper()), cause_of(spaced)} == {expected}
    anchored = message.lower().startswith(("rate limit", "request limit", "configuration error"))
    assert anchored or cause_of(wrapped) == expected


@pytest.mark.parametrize("row", LOOKALIKES, ids=lambda row: row["message"][:50])
def test_lookalike_is_not_guessed(row: dict[str, str]) -> None:
    """Words of a rule in an unrelated sentence, and messages without information."""
    assert cause_of(row["message"]) == row["cause"]


def test_phrasing_of_a_platform_never_has_a_wrong_cause() -> None:
    """Messages with all acceptable causes. Wrong is worse than none, but few have none."""
    missed = []
    for row in PHRASINGS + GATHERED:
        cause = cause_of(row["message"])
        if cause not in row["causes"]:
            assert cause == UNCLASSIFIED, row
            missed.append(row["message"])
    assert len(PHRASINGS + GATHERED) >= 1400
    assert len(missed) <= len(PHRASINGS + GATHERED) * 0.03, missed


def test_words_of_patterns_are_defined() -> None:
    """A misspelled `{word}` would be matched literally."""
    patterns = [pattern.text for rule in load_builtin().rules for pattern in rule.messages]
    assert not [text for text in patterns if re.search(r"\{[a-z_]+\}", text)]


def test_patterns_are_only_skipped_where_they_do_not_match() -> None:
    """Neither the required text nor the grams of a pattern rule out a match."""
    rows = (CORPUS + PHRASINGS + GATHERED)[::5]
    messages = {text for row in rows for text in normalize_texts(row["message"])}
    grams = {message: grams_of(message) for message in messages}
    for pattern in (pattern for rule in load_builtin().rules for pattern in rule.messages):
        pattern.check()
        regex = re.compile(pattern.text)
        for message in filter(regex.search, messages):
            assert pattern.matches(message), (pattern.written, message)
            assert pattern.is_possible(grams[message]), (pattern.written, message)


def test_every_cause_has_a_rule_and_a_documented_message_or_code() -> None:
    """No cause is made up."""
    rules = load_builtin().rules
    assert {rule.cause for rule in rules} | {UNCLASSIFIED} == set(load_builtin().causes)
    by_code = {rule.cause for rule in rules if rule.status_codes}
    assert {row["cause"] for row in CORPUS} | by_code == set(load_builtin().causes)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1000, None), (1010, None), (2000, None), (2040, None), (None, None), (7000, None),
        (4000, "configuration"), (4040, "disconnected"), (4220, "disconnected"),
        (4260, "subscription_ended"), (5000, "codat_unavailable"), (5080, "already_processed"),
        (5120, "data_processing_error"), (5130, "data_write_error"),
        (4999, UNCLASSIFIED), (5999, UNCLASSIFIED),
    ],
)  # fmt: skip
def test_failed_sync_without_a_message_has_the_cause_of_its_code(
    code: int | None, expected: str | None
) -> None:
    """Codat's documented codes, and codes that Codat may add."""
    assert load_builtin().classify_sync(code, None) == expected
    assert load_builtin().classify_sync(code, "") == expected


def test_every_documented_failure_code_has_a_cause() -> None:
    """Each code of Codat's table from 4000 on."""
    codes = [code for code in STATUS_TEXTS if code >= 4000]
    assert UNCLASSIFIED not in {load_builtin().classify_sync(code, None) for code in codes}


@pytest.mark.parametrize("code", [5000, 5120, 5130])
def test_message_of_a_sync_is_more_specific_than_its_code(code: int) -> None:
    """Even if only the exception message is recognized."""
    classify = load_builtin().classify_sync
    lock_date = "The document date cannot be before the period lock date."
    assert classify(code, lock_date) == "period_closed"
    assert classify(code, "Oops", lock_date) == "period_closed"
    assert classify(code, "Oops", "Sorry") == classify(code, None)


def test_transaction_without_a_known_message_has_the_cause_of_the_sync_code() -> None:
    """Unless the code applies only to the sync as a whole."""
    assert cause_of("Oops", status_code=4260) == "subscription_ended"
    assert cause_of("Oops", status_code=5130) == UNCLASSIFIED
    assert cause_of("Periods are closed", status_code=4260) == "period_closed"


@pytest.mark.parametrize("status", ["Completed", "Pending", "Unknown", "", None])
def test_transaction_that_has_not_failed_has_no_cause(status: str | None) -> None:
    """Codat sends messages for successful transactions too."""
    message = "Periods are closed"
    assert cause_of(message, status=status) is None
    explanation = load_builtin().explain(message, status=status)
    assert (explanation.cause, explanation.rule) == (None, None)
    assert explanation.fingerprint == fingerprint(message)


@pytest.mark.parametrize(
    "hostile",
    ["account " * 9000, "'" * 9000, "contact supplier vendor " * 3000, "the name " * 9000,
     "a" * 100_000, "no a a a a a " * 5000, "tax rate " * 9000, "\u0000\ud800" * 2000],
)  # fmt: skip
def test_classification_time_is_bounded(hostile: str) -> None:
    """Both the work of a pattern and the length it is matched against are limited."""
    start = time.thread_time()  # CPU time of this thread: other processes don't count
    cause_of(hostile)
    assert time.thread_time() - start < 0.5


@pytest.fixture
def matched(monkeypatch: pytest.MonkeyPatch) -> list[Failure]:
    """Collect the failures for which the rules are searched."""
    failures: list[Failure] = []
    original = Classifier._search

    def search(classifier: Classifier, failure: Failure, text: str, end: int) -> int:
        failures.append(failure)
        return original(classifier, failure, text, end)

    monkeypatch.setattr(Classifier, "_search", search)
    return failures


@pytest.mark.parametrize("text", ["The posting period is closed", "Oops"])
def test_equal_messages_are_classified_once(matched: list[Failure], text: str) -> None:
    """5,000 equal messages with their own correlation IDs, and 5,000 without Codat's envelope."""
    classifier = new_classifier()
    for n in range(5000):
        message = f"Correlation ID: {CORRELATION_ID[:-4]}{n:04}. Message: {text}"
        classifier.classify_transaction(message, status="PushError")
    for _ in range(5000):
        classifier.classify_transaction(text, status="PushError")
    assert len(matched) == 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("TAX_CODE_IS_NULL", "tax_rate_missing"), ("VendorDoesNotExist", "contact_missing"),
        ("ERROR: accountRef is required", "account_missing"),
        ('{"error": {"code": "Period_Is_Closed", "message": "Oops"}}', "period_closed"),
    ],
)  # fmt: skip
def test_words_of_an_identifier_are_read_apart(message: str, expected: str) -> None:
    """Field names and error codes are written with underscores, or with capitals inside."""
    assert cause_of(message) == expected


def test_cache_of_different_messages_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a long-running process does not grow with the number of messages."""
    monkeypatch.setattr("app.domain.causes.classifier.CACHE_SIZE", 100)
    classifier = new_classifier()
    for n in range(250):
        classifier.classify_transaction(f"message {n}", status="Failed")
    assert 0 < len(classifier._matches) <= 100


def test_explain_names_cause_rule_and_fingerprint() -> None:
    """For a rule that matches a message, and for one that matches a status code."""
    message = "The posting period is closed"
    explanation = load_builtin().explain(message)
    assert explanation.cause == cause_of(message) == "period_closed"
    assert explanation.fingerprint == fingerprint(message)
    assert explanation.rule is not None
    place, conditions = explanation.rule.split(": ", 1)
    file, number = place.split(", rule ")
    assert file == "rules.toml"
    assert load_builtin().rules[int(number) - 1].cause == "period_closed"
    assert conditions.startswith("message matches '")

    by_code = load_builtin().explain("Oops", status="Failed", status_code=4260)
    assert by_code.cause == "subscription_ended"
    assert by_code.rule is not None
    assert by_code.rule.endswith(": status code 4260")


def test_explain_names_a_custom_rule_and_all_its_conditions() -> None:
    """The rule of a CAUSES_FILE is tried first."""
    rule = """
    [[rule]]
    cause = "period_closed"
    message = ['nothing', 'is sealed']
    status = "Failed"
    integration_type = "bankfeeds"
    """
    explanation = load_custom(rule, load_builtin()).explain(
        "The year is sealed", status="Failed", integration_type="BankFeeds"
    )
    assert explanation.cause == "period_closed"
    assert explanation.rule == (
        "CAUSES_FILE, rule 1: message matches 'is sealed', status Failed,"
        " integration type BankFeeds"
    )


def test_explain_of_an_unknown_message_has_no_rule() -> None:
    """The cause is `unclassified`, as for `classify_transaction`."""
    explanation = load_builtin().explain("Oops")
    assert (explanation.cause, explanation.rule) == (UNCLASSIFIED, None)
    assert explanation.fingerprint == fingerprint("Oops")
