"""Reads the tables of causes and rules: those that come with this service, and a team's own."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from app.domain.causes.classifier import (
    ABOUT,
    SEND_AGAIN,
    UNCLASSIFIED,
    WHO,
    About,
    Cause,
    Rule,
    Rules,
)
from app.domain.causes.patterns import BadPattern, Pattern

_WORDS = ("key", "title", "text", "customer", "who", "next_step", "send_again")
_CHOICES: dict[str, tuple[str, ...]] = {"who": WHO, "send_again": SEND_AGAIN}
_RULE = {"cause", "message", "status_code", "status", "integration_type", "about"}
LONGEST_KEY = 60
SHIPPED = ("causes.toml", "rules.toml")


class BadCauses(ValueError):
    """A table that cannot be used. Its text says what is wrong and where, in one line."""


def read(text: str, known: Rules | None = None) -> Rules:
    """The rules of a TOML text, which may lead to causes of `known` too. Raises BadCauses."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadCauses(f"is not TOML: {error}".splitlines()[0]) from None
    if odd := sorted(set(tables) - {"cause", "rule"}):
        raise BadCauses(f"has an unknown table {odd[0]!r}; [[cause]] and [[rule]] are known")
    causes = _causes(_rows(tables, "cause"))
    there = {**(known.causes if known else {}), **causes}
    rules = [_rule(n, row, there) for n, row in enumerate(_rows(tables, "rule"), 1)]
    return Rules(causes, tuple(rules))


@lru_cache(maxsize=1)
def shipped() -> Rules:
    """The rules that come with this service."""
    here = Path(__file__).parent
    return read("\n".join((here / name).read_text(encoding="utf-8") for name in SHIPPED))


def read_own(text: str, known: Rules) -> Rules:
    """A team's own rules, tried before the known ones. Raises BadCauses."""
    return read(text, known).before(known)


def _rows(tables: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = tables.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadCauses(f"{name} must be a list of tables: [[{name}]]")
    return rows


def _causes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Cause]:
    causes: dict[str, Cause] = {}
    for n, row in enumerate(rows, 1):
        cause = _cause(f"cause {n} ({row.get('key', 'without a key')})", row)
        if cause.key in causes:
            raise BadCauses(f"cause {n} ({cause.key}) is there twice")
        causes[cause.key] = cause
    return causes


def _cause(where: str, row: Mapping[str, Any]) -> Cause:
    if odd := sorted(set(row) ^ set(_WORDS)):
        raise BadCauses(f"{where}: {odd[0]!r} is {'unknown' if odd[0] in row else 'missing'}")
    for name in _WORDS:
        _require_words(f"{where}: {name!r}", row[name])
    for name, choices in _CHOICES.items():
        if row[name] not in choices:
            raise BadCauses(f"{where}: {name!r} must be one of {', '.join(choices)}")
    if len(row["key"]) > LONGEST_KEY or not row["key"].replace("_", "a").isalnum():
        raise BadCauses(f"{where}: 'key' must be letters, digits and _, at most {LONGEST_KEY}")
    return Cause(**row)


def _require_words(where: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise BadCauses(f"{where} must be a text that is not empty")


def _rule(n: int, row: Mapping[str, Any], causes: Mapping[str, Cause]) -> Rule:
    where = f"rule {n} ({row.get('cause', 'without a cause')})"
    if odd := sorted(set(row) - _RULE):
        raise BadCauses(f"{where}: {odd[0]!r} is unknown")
    if row.get("cause") not in causes and row.get("cause") != UNCLASSIFIED:
        raise BadCauses(f"{where}: there is no such cause")
    if set(row) <= {"cause", "about"}:
        raise BadCauses(f"{where}: says nothing to recognise a failure by")
    return Rule(
        cause=row["cause"],
        messages=_patterns(where, _texts(where, row, "message")),
        status_codes=_codes(where, row),
        statuses=tuple(each.lower() for each in _texts(where, row, "status")),
        integration_types=tuple(each.lower() for each in _texts(where, row, "integration_type")),
        about=_about(where, row),
    )


def _patterns(where: str, texts: Sequence[str]) -> tuple[Pattern, ...]:
    try:
        return tuple(Pattern(text) for text in texts)
    except BadPattern as error:
        raise BadCauses(f"{where}: {error}") from None


def _texts(where: str, row: Mapping[str, Any], name: str) -> list[str]:
    """One text or a list of them."""
    values = _listed(row.get(name, []))
    if name in row and not values:
        raise BadCauses(f"{where}: {name!r} is empty")
    for value in values:
        _require_words(f"{where}: {name!r}", value)
    return values


def _codes(where: str, row: Mapping[str, Any]) -> tuple[int, ...]:
    values = _listed(row.get("status_code", []))
    if not all(type(value) is int for value in values):
        raise BadCauses(f"{where}: 'status_code' must be a number or a list of numbers")
    return tuple(values)


def _about(where: str, row: Mapping[str, Any]) -> tuple[About, ...]:
    values = _texts(where, row, "about")
    if not set(values) <= set(ABOUT):
        raise BadCauses(f"{where}: 'about' must be one of {', '.join(ABOUT)}")
    return tuple(cast(About, value) for value in values)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
