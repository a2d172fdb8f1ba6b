"""Loads causes and rules from TOML: the built-in files, and a custom CAUSES_FILE."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from app.domain.causes.classifier import (
    OWNERS,
    RETRY_ADVICE,
    SCOPES,
    UNCLASSIFIED,
    Cause,
    Classifier,
    Rule,
    Scope,
)
from app.domain.causes.patterns import InvalidPattern, Pattern

_CAUSE_FIELDS = (
    "key", "title", "text", "customer_message", "owner", "next_step", "retry_advice",
)  # fmt: skip
_RULE_FIELDS = ("cause", "message", "status_code", "status", "integration_type", "applies_to")
_CHOICES: dict[str, tuple[str, ...]] = {"owner": OWNERS, "retry_advice": RETRY_ADVICE}
_RENAMED = {
    "who": "owner",
    "customer": "customer_message",
    "send_again": "retry_advice",
    "about": "applies_to",
}
MAX_KEY_LENGTH = 60
BUILTIN_FILES = ("causes.toml", "rules.toml")
_WORD = re.compile(r"\{([a-z_]{1,30})\}")
Row = Mapping[str, Any]


class InvalidCausesFile(ValueError):
    """A causes file that cannot be used. The text names the place and the problem in one line."""


@lru_cache(maxsize=1)
def load_builtin() -> Classifier:
    """Return the classifier with the built-in causes and rules."""
    folder = Path(__file__).parent
    texts = [(folder / name).read_text(encoding="utf-8") for name in BUILTIN_FILES]
    return parse("\n".join(texts), source="rules.toml")


def load_custom(text: str, fallback: Classifier) -> Classifier:
    """Return a classifier that tries the rules of a CAUSES_FILE before those of `fallback`.

    Custom rules can use the causes of `fallback`. A custom cause with the key of an existing one
    replaces its texts. Raises InvalidCausesFile.
    """
    custom = parse(text, source="CAUSES_FILE", known_causes=fallback.causes)
    for number, rule in enumerate(custom.rules, 1):
        with _name_place(f"rule {number}", rule.cause):
            for pattern in rule.messages:
                pattern.check()
    causes = {**fallback.causes, **custom.causes}
    return Classifier(causes, (*custom.rules, *fallback.rules))


def parse(text: str, *, source: str, known_causes: Mapping[str, Cause] | None = None) -> Classifier:
    """Parse a TOML text of causes and rules. Raises InvalidCausesFile.

    `source` is where the rules come from, for their names. Rules can also use `known_causes`.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidCausesFile(f"invalid TOML: {error}".splitlines()[0]) from None
    if unknown := sorted(set(tables) - {"cause", "rule", "words"}):
        raise InvalidCausesFile(f"unknown table {unknown[0]!r}; use [[cause]] and [[rule]]")
    causes: dict[str, Cause] = {}
    for n, row in enumerate(_table_list(tables, "cause"), 1):
        with _name_place(f"cause {n}", row.get("key", "no key")):
            cause = _parse_cause(row)
            if cause.key in causes:
                raise InvalidCausesFile("duplicate key")
            causes[cause.key] = cause
    keys = {UNCLASSIFIED, *causes, *(known_causes or {})}
    words = _parse_words(tables.get("words", {}))
    rules: list[Rule] = []
    for n, row in enumerate(_table_list(tables, "rule"), 1):
        with _name_place(f"rule {n}", row.get("cause", "no cause")):
            rules.append(_parse_rule(row, keys, words, name=f"{source}, rule {n}"))
    return Classifier(causes, tuple(rules))


@contextmanager
def _name_place(table: str, name: object) -> Iterator[None]:
    """Add to the errors of the block where in the file they are."""
    try:
        yield
    except (InvalidCausesFile, InvalidPattern) as error:
        place = f"{table} ({' '.join(str(name).split())[:MAX_KEY_LENGTH]})"
        raise InvalidCausesFile(f"{place}: {error}") from None


def _table_list(tables: Mapping[str, Any], name: str) -> list[Row]:
    rows = tables.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidCausesFile(f"{name!r} must be a list of tables: [[{name}]]")
    return rows


def _parse_cause(row: Row) -> Cause:
    _check_field_names(row, _CAUSE_FIELDS)
    for name in _CAUSE_FIELDS:
        if name not in row:
            raise InvalidCausesFile(f"missing field {name!r}")
        _check_text(name, row[name])
    for name, choices in _CHOICES.items():
        if row[name] not in choices:
            raise InvalidCausesFile(f"{name!r} must be one of: {', '.join(choices)}")
    if len(row["key"]) > MAX_KEY_LENGTH or not row["key"].replace("_", "a").isalnum():
        raise InvalidCausesFile(
            f"'key' must be letters, digits, and underscores, at most {MAX_KEY_LENGTH} characters"
        )
    return Cause(**row)


def _parse_words(words: object) -> dict[str, str]:
    """Return the alternatives that a pattern can name, such as `{contact}`, as regex groups."""
    if not isinstance(words, dict):
        raise InvalidCausesFile("'words' must be a table: [words]")
    return {name: f"(?:{'|'.join(_texts(words, name))})" for name in words}


def _parse_rule(row: Row, keys: set[str], words: Mapping[str, str], name: str) -> Rule:
    _check_field_names(row, _RULE_FIELDS)
    if "cause" not in row:
        raise InvalidCausesFile("missing field 'cause'")
    _check_text("cause", row["cause"])
    if row["cause"] not in keys:
        raise InvalidCausesFile("unknown cause")
    if set(row) <= {"cause", "applies_to"}:
        raise InvalidCausesFile(
            "no condition; add message, status_code, status, or integration_type"
        )
    status_codes = _values(row, "status_code")
    if not all(type(code) is int for code in status_codes):
        raise InvalidCausesFile("'status_code' must be a number or a list of numbers")
    scopes = _texts(row, "applies_to")
    if not set(scopes) <= set(SCOPES):
        raise InvalidCausesFile(f"'applies_to' must be one of: {', '.join(SCOPES)}")
    return Rule(
        cause=row["cause"],
        messages=tuple(
            Pattern(_WORD.sub(lambda name: words.get(name[1], name[0]), text), text)
            for text in _texts(row, "message")
        ),
        status_codes=tuple(status_codes),
        statuses=tuple(map(str.lower, _texts(row, "status"))),
        integration_types=tuple(map(str.lower, _texts(row, "integration_type"))),
        applies_to=cast(tuple[Scope, ...], tuple(scopes)),
        name=name,
    )


def _check_field_names(row: Row, known: Sequence[str]) -> None:
    for name in row:
        if name not in known:
            new_name = _RENAMED.get(name)
            hint = f"; use {new_name!r}" if new_name in known else ""
            raise InvalidCausesFile(f"unknown field {name!r}{hint}")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidCausesFile(f"{name!r} must be text that is not empty")


def _texts(row: Row, name: str) -> list[str]:
    values = _values(row, name)
    for value in values:
        _check_text(name, value)
    return values


def _values(row: Row, name: str) -> list[Any]:
    """The one value, or the list of values, of a field."""
    value = row.get(name, [])
    if name in row and value == []:
        raise InvalidCausesFile(f"{name!r} is empty")
    return value if isinstance(value, list) else [value]
