"""Causes: every documented message leads where it should, and nothing is guessed."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from app.domain.causes.classifier import UNCLASSIFIED
from app.domain.causes.loader import BadCauses, read, read_own, shipped
from app.domain.status_codes import STATUS_TEXTS

SAMPLES = Path(__file__).parents[2] / "samples"
FILES = sorted((SAMPLES / "messages").glob("*.json"))
CORPUS: list[dict[str, Any]] = [row for file in FILES for row in json.loads(file.read_text())]
LOOKALIKES = json.loads((SAMPLES / "lookalikes.json").read_text())
OWN_CAUSE = """
[[cause]]
key = "cost_centre"
title = "The cost centre is wrong"
text = "Our own cost centres are numbers."
customer = "Please choose another cost centre."
who = "customer"
next_step = "Ask for another one."
send_again = "after_next_step"
"""
OWN = (
    OWN_CAUSE
    + """
[[rule]]
cause = "cost_centre"
message = '\\bcost centre\\b'

[[rule]]
cause = "period_closed"
message = ['books are sealed', 'year is over']
integration_type = "bankfeeds"
"""
)


def cause_of(message: str | None, **more: Any) -> str | None:
    return shipped().of_transaction(message, **{"status": "PushError"} | more)


def test_the_corpus_is_large_and_says_where_each_message_is_documented() -> None:
    """Real messages of a dozen platforms, each with its public source, none twice."""
    assert len(CORPUS) >= 150
    assert len(FILES) >= 10
    for row in CORPUS:
        assert {"message", "cause", "source"} <= set(row), row
        assert row["source"].startswith("https://") or " " in row["source"], row
        assert row["cause"] in shipped().causes, row


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: row["message"][:50])
def test_a_documented_message_leads_to_its_cause(row: dict[str, Any]) -> None:
    """As documented, in capitals, inside Codat's wrapping, and with other quotes and blanks."""
    bare, wanted = row["message"], row["cause"]
    wrapped = (
        "An error occurred in a downstream service. "
        f"Correlation ID: 0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004. Message:  {bare}"
    )
    spaced = bare.replace(" ", "\u00a0 ").replace("'", "’")
    assert {cause_of(bare), cause_of(bare.upper()), cause_of(spaced)} == {wanted}
    anchored = bare.lower().startswith(("rate limit", "request limit", "configuration error"))
    assert anchored or cause_of(wrapped) == wanted


@pytest.mark.parametrize("row", LOOKALIKES, ids=lambda row: row["message"][:50])
def test_what_only_looks_alike_is_not_guessed(row: dict[str, str]) -> None:
    """Words of a rule in another sentence, and messages that say nothing."""
    assert cause_of(row["message"]) == row["cause"]


def test_every_cause_has_a_rule_and_a_documented_message_or_a_code() -> None:
    """A cause that nothing leads to is an invention."""
    led_to = {rule.cause for rule in shipped().rules} | {UNCLASSIFIED}
    assert led_to == set(shipped().causes)
    by_code = {rule.cause for rule in shipped().rules if rule.status_codes}
    assert {row["cause"] for row in CORPUS} | by_code == set(shipped().causes)


def test_every_text_is_a_sentence_that_people_can_read() -> None:
    """The words go to support and to customers as they stand."""
    for cause in shipped().causes.values():
        for sentence in (cause.text, cause.customer, cause.next_step):
            assert sentence[0].isupper(), sentence
            assert sentence.endswith("."), sentence
        assert not cause.title.endswith(".")


def test_who_must_act_the_next_step_and_the_customers_sentence_agree() -> None:
    """The customer is asked for something where the customer must act, and nowhere else."""
    for key, cause in shipped().causes.items():
        first = cause.next_step.split(";")[0].split(".")[0]
        theirs = cause.who == "customer"
        assert ("please" in cause.customer) is theirs, key
        assert (" the customer " in first) is theirs, key
        assert first.startswith("Wait ") is (cause.who in ("accounting_software", "codat")), key


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (1000, None), (1010, None), (2000, None), (2040, None), (None, None), (7000, None),
        (4000, "configuration"), (4040, "disconnected"), (4220, "disconnected"),
        (4260, "subscription_ended"), (5000, "codat_unavailable"), (5080, "already_processed"),
        (5120, "data_processing_error"), (5130, "data_write_error"),
        (4999, UNCLASSIFIED), (5999, UNCLASSIFIED),
    ],
)  # fmt: skip
def test_a_sync_that_failed_as_a_whole_has_the_cause_of_its_code(
    code: int | None, wanted: str | None
) -> None:
    """Codat's whole table of codes, and codes that it may add."""
    assert shipped().of_sync(code, None) == wanted
    assert shipped().of_sync(code, "") == wanted


def test_the_code_table_is_covered() -> None:
    """Each failing code of Codat's table leads somewhere."""
    failing = [code for code in STATUS_TEXTS if code >= 4000]
    assert UNCLASSIFIED not in {shipped().of_sync(code, None) for code in failing}


def test_a_syncs_message_says_more_than_its_code() -> None:
    """Also when only the second of its two messages is recognised."""
    lock = "The document date cannot be before the period lock date."
    assert shipped().of_sync(5130, lock) == "period_closed"
    assert shipped().of_sync(5130, "Oops", lock) == "period_closed"
    assert shipped().of_sync(5130, "Oops", "Alas") == "data_write_error"


def test_a_transaction_has_its_syncs_code_where_its_message_says_nothing() -> None:
    """But not a code that speaks only of the sync as a whole."""
    assert cause_of("Oops", status_code=4260) == "subscription_ended"
    assert cause_of("Oops", status_code=5130) == UNCLASSIFIED
    assert cause_of("Periods are closed", status_code=4260) == "period_closed"


@pytest.mark.parametrize("status", ["Completed", "Pending", "Unknown", "", None])
def test_what_has_not_failed_has_no_cause(status: str | None) -> None:
    """Codat sends messages with success too."""
    assert cause_of("Periods are closed", status=status) is None


@pytest.mark.parametrize(
    "hostile",
    ["account " * 9000, "'" * 9000, "contact supplier vendor " * 3000, "the name " * 9000,
     "a" * 100_000, "no a a a a a " * 5000, "tax rate " * 9000, "\u0000\ud800" * 2000],
)  # fmt: skip
def test_no_message_keeps_a_process_busy(hostile: str) -> None:
    """The work of a pattern is bounded, and so is the length it is tried on."""
    began = time.thread_time()  # its own: others may keep the machine busy
    cause_of(hostile)
    assert time.thread_time() - began < 0.5


def test_a_teams_own_rules_come_first_and_may_use_our_causes() -> None:
    """Other rules go on as before; the version tells that something changed."""
    ours = shipped()
    theirs = read_own(OWN, ours)
    assert theirs.of_transaction("Cost Centre 12 is closed", status="Failed") == "cost_centre"
    books = "The books are sealed"
    assert theirs.of_transaction(books, status="Failed") == UNCLASSIFIED
    for kind in ("bankfeeds", "BankFeeds"):
        found = theirs.of_transaction(books, status="Failed", integration_type=kind)
        assert found == "period_closed"
    assert theirs.of_transaction("Periods are closed", status="Failed") == "period_closed"
    assert theirs.causes["cost_centre"].who == "customer"
    assert theirs.version != ours.version == shipped().version


def test_a_team_may_word_one_of_our_causes_anew() -> None:
    """Under the same key; what leads to it stays, and so does the version."""
    ours = shipped()
    theirs = read_own(OWN_CAUSE.replace("cost_centre", "period_closed"), ours)
    assert theirs.causes["period_closed"].title == "The cost centre is wrong"
    assert theirs.version == ours.version


def rule(**parts: str) -> str:
    lines = {"cause": '"period_closed"', "message": "'x'"} | parts
    return "[[rule]]\n" + "\n".join(f"{name} = {value}" for name, value in lines.items())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule", "not TOML"), ("rules = 1", "unknown table 'rules'"), ("cause = 1", "[[cause]]"),
        ("rule = [1]", "[[rule]]"), (rule(cause='"nobody"'), "no such cause"),
        ("[[rule]]\nmessage = 'x'", "no such cause"),
        ("[[rule]]\ncause = 'period_closed'", "nothing to recognise"),
        (rule(messages="'x'"), "'messages' is unknown"), (rule(message="'(x'"), "no regular"),
        (rule(message="''"), "not empty"), (rule(message="[]"), "empty"),
        (rule(message="'Period'"), "lower case"), (rule(message="'a.*b'"), "unlimited"),
        (rule(message="'a+b'"), "unlimited"), (rule(message="'(?:a{0,9}){0,9}'"), "unlimited"),
        (rule(message="'a{2,}'"), "unlimited"), (rule(message="'(?=a)b'"), "unlimited"),
        (rule(message="'(a)\\1'"), "refers back"),
        (rule(message="'a.{0,99}b.{0,99}c.{0,99}d'"), "too long gaps"),
        (rule(message="'" + "a" * 301 + "'"), "300"), (rule(message="1"), "must be a text"),
        (rule(status_code="'4000'"), "number"), (rule(about="'company'"), "'about'"),
        (OWN_CAUSE + OWN_CAUSE, "twice"), (OWN_CAUSE + "colour = 'red'", "'colour' is unknown"),
        (OWN_CAUSE.replace('who = "customer"', ""), "'who' is missing"),
        (OWN_CAUSE.replace('"customer"', '"god"'), "'who' must be one of"),
        (OWN_CAUSE.replace('"after_next_step"', '"maybe"'), "'send_again' must be one of"),
        (OWN_CAUSE.replace("cost_centre", "cost centre"), "'key' must be"),
        (OWN_CAUSE.replace("Ask for another one.", " "), "not empty"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_in_one_line_that_says_where(text: str, says: str) -> None:
    """The start shows that line and nothing else."""
    with pytest.raises(BadCauses) as caught:
        read_own(text, shipped())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_changes_nothing() -> None:
    """A file that only has comments is a fine beginning."""
    assert read("# later").rules == ()
    assert read_own("", shipped()).version == shipped().version


def test_many_different_messages_do_not_fill_the_memory() -> None:
    """What was decided is remembered for a while, not for ever."""
    rules = read_own("", shipped())
    for n in range(5000):
        rules.of_transaction(f"message {n}", status="Failed")
    assert len(rules._seen) <= 4096
