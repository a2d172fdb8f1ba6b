"""Custom causes files: how they combine with the built-in rules, and what their errors say."""

import pytest

from app.domain.causes.classifier import UNCLASSIFIED
from app.domain.causes.loader import InvalidCausesFile, load_builtin, load_custom, parse
from app.domain.causes.patterns import Pattern, grams_of

CAUSE = """
[[cause]]
key = "cost_center"
title = "Invalid cost center"
text = "Our own cost centers are numbers."
customer_message = "Please choose another cost center."
owner = "customer"
next_step = "Ask the customer to choose another cost center."
retry_advice = "after_next_step"
"""
RULES = """
[[rule]]
cause = "cost_center"
message = '\\bcost center\\b'

[[rule]]
cause = "period_closed"
message = ['books are sealed', 'year is over']
integration_type = "bankfeeds"
"""


def rule(**fields: str) -> str:
    lines = {"cause": '"period_closed"', "message": "'x'"} | fields
    return "[[rule]]\n" + "\n".join(f"{name} = {value}" for name, value in lines.items())


def test_custom_rules_come_first_and_can_use_builtin_causes() -> None:
    """Built-in rules still apply, and the version changes."""
    builtin = load_builtin()
    custom = load_custom(CAUSE + RULES, builtin)
    assert custom.classify_transaction("Cost Center 12 is closed", status="Failed") == "cost_center"
    books = "The books are sealed"
    assert custom.classify_transaction(books, status="Failed") == UNCLASSIFIED
    for name in ("bankfeeds", "BankFeeds"):
        cause = custom.classify_transaction(books, status="Failed", integration_type=name)
        assert cause == "period_closed"
    assert custom.classify_transaction("Periods are closed", status="Failed") == "period_closed"
    assert custom.causes["cost_center"].owner == "customer"
    assert custom.causes["cost_center"].customer_message == "Please choose another cost center."
    assert custom.version != builtin.version == load_builtin().version


def test_words_stand_for_alternatives_in_the_patterns_of_their_file() -> None:
    """Other braces are part of the pattern. The version changes with the words."""
    text = "[words]\nbooks = 'books|ledger'\n" + rule(message="'{books}.{0,3} {sealed}'")
    custom = load_custom(text, load_builtin())
    for message in ("Books {sealed}", "The ledger is {sealed}"):
        assert custom.classify_transaction(message, status="Failed") == "period_closed"
    assert custom.classify_transaction("Books sealed", status="Failed") == UNCLASSIFIED
    other = load_custom(text.replace("|ledger", ""), load_builtin())
    assert other.version != custom.version


def test_a_word_can_be_a_list_of_alternatives() -> None:
    """The same as one text with bars between them."""
    text = "[words]\nbooks = ['books', 'ledger']\n" + rule(message="'{books} sealed'")
    custom = load_custom(text, load_builtin())
    assert custom.classify_transaction("Ledger sealed", status="Failed") == "period_closed"
    one_text = load_custom(text.replace("['books', 'ledger']", "'books|ledger'"), load_builtin())
    assert custom.version == one_text.version
    explanation = custom.explain("Ledger sealed").rule
    assert explanation == "CAUSES_FILE, rule 1: message matches '{books} sealed'"


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("abc", "abc"), ("abcd?e", "abc"), ("ab(?:cdef|g)h", "ab"), ("abc|d", ""),
        ("a.{0,9}bc", "bc"), ("ab{2}cd", "ab"), (r"\bab[cd] ef", " ef"), ("(?:a|b)", ""),
        (r"a\.bc", "bc"),
    ],
)  # fmt: skip
def test_required_literal_is_a_text_of_every_match(text: str, literal: str) -> None:
    """Patterns whose literal is not in the message are skipped."""
    assert Pattern(text)._literal == literal


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("(?:blocked|archived) ?account", ["blocked account"]), ("abc|xyz", ["abc", "xyz"]),
        ("ab|xyz", ["ab"]), ("(?:abc|xyz)?", [""]), ("q(?:abc|xyz)?", ["q"]),
    ],
)  # fmt: skip
def test_every_match_contains_one_of_the_grams(text: str, matching: list[str]) -> None:
    """If a pattern has none, it is always tried."""
    assert all(Pattern(text).is_possible(grams_of(message)) for message in matching)


def test_custom_file_can_replace_the_texts_of_a_builtin_cause() -> None:
    """The rules and their version stay the same."""
    builtin = load_builtin()
    custom = load_custom(CAUSE.replace("cost_center", "period_closed"), builtin)
    assert custom.causes["period_closed"].title == "Invalid cost center"
    assert custom.version == builtin.version


def test_empty_file_changes_nothing() -> None:
    """A file with only comments is valid."""
    assert parse("# later", source="test").rules == ()
    assert load_custom("", load_builtin()).version == load_builtin().version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[rule", "invalid TOML: "),
        ("rules = 1", "unknown table 'rules'; use [[cause]] and [[rule]]"),
        ("cause = 1", "'cause' must be a list of tables: [[cause]]"),
        ("rule = [1]", "'rule' must be a list of tables: [[rule]]"),
        (rule(cause='"nobody"'), "rule 1 (nobody): unknown cause"),
        (rule(cause='["a"]'), "'cause' must be text"),
        ("[[rule]]\nmessage = 'x'", "rule 1 (no cause): missing field 'cause'"),
        ("[[rule]]\ncause = 'period_closed'", "rule 1 (period_closed): no condition; add message"),
        (rule(messages="'x'"), "unknown field 'messages'"),
        (rule(message="'(x'"), "is not a regular expression"),
        (rule(message="''"), "'message' must be text that is not empty"),
        (rule(message="[]"), "'message' is empty"),
        (rule(message="'Period'"), "lower case"),
        (rule(message="'a.*b'"), "unlimited repetition"),
        (rule(message="'a+b'"), "unlimited repetition"),
        (rule(message="'(?:a{0,9}){0,9}'"), "unlimited repetition"),
        (rule(message="'a{2,}'"), "unlimited repetition"),
        (rule(message="'(?=a)b'"), "unlimited repetition"),
        (rule(message="'(a)\\1'"), "back reference"),
        (rule(message="'a.{0,99}b.{0,99}c.{0,99}d'"), "gaps that are too long"),
        (rule(message="'" + "a" * 20_001 + "'"), "1 to 20000 characters"),
        ("words = 1", "'words' must be a table: [words]"),
        ("[words]\nbooks = 1", "'books' must be text that is not empty"),
        ("[words]\nbooks = 'a+'\n" + rule(message="'{books}b'"), "unlimited repetition"),
        (rule(message="1"), "'message' must be text"),
        (rule(status_code="'4000'"), "'status_code' must be a number or a list of numbers"),
        (rule(status_code="[]"), "'status_code' is empty"),
        (rule(applies_to="'company'"), "'applies_to' must be one of: transaction, sync"),
        (CAUSE + CAUSE, "cause 2 (cost_center): duplicate key"),
        (CAUSE + "color = 'red'", "cause 1 (cost_center): unknown field 'color'"),
        (CAUSE.replace('owner = "customer"', ""), "missing field 'owner'"),
        (
            CAUSE.replace('"customer"', '"god"'),
            "'owner' must be one of: customer, us, accounting_software, codat",
        ),
        (
            CAUSE.replace('"after_next_step"', '"maybe"'),
            "'retry_advice' must be one of: helps, after_next_step, never_helps",
        ),
        (CAUSE.replace("cost_center", "cost center"), "'key' must be letters, digits, and"),
        (CAUSE.replace("cost_center", "cost\\ncenter"), "cause 1 (cost center): 'key' must be"),
        (CAUSE.replace("Our own cost centers are numbers.", " "), "'text' must be text that is"),
    ],
)
def test_invalid_file_is_rejected_with_one_line_that_names_the_place(
    text: str, expected: str
) -> None:
    """The line is shown when the service refuses to start."""
    with pytest.raises(InvalidCausesFile) as caught:
        load_custom(text, load_builtin())
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("who", "owner"),
        ("customer", "customer_message"),
        ("send_again", "retry_advice"),
        ("about", "applies_to"),
    ],
)
def test_old_field_name_is_rejected_with_the_right_name(old: str, new: str) -> None:
    """Files in the first format name the field to change."""
    text = (CAUSE + rule(cause='"cost_center"', applies_to="'sync'")).replace(
        f"\n{new} =", f"\n{old} ="
    )
    with pytest.raises(InvalidCausesFile) as caught:
        load_custom(text, load_builtin())
    table = "rule" if old == "about" else "cause"
    assert str(caught.value) == f"{table} 1 (cost_center): unknown field {old!r}; use {new!r}"
