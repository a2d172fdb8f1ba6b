r"""Message patterns: regular expressions that match in bounded time, whatever the message.

A pattern is written in lower case and matched against the normalized message
(`fingerprint.normalize`). Allowed: literals, character classes, `(?:a|b)`, `?`, `\b`, and counted
gaps such as `.{0,40}`. Not allowed: `*`, `+`, `{2,}`, repeated groups, back references, and
lookarounds, because one unusual message could then block a process for minutes. The number of
combinations a pattern can try is limited when the rules are loaded.
"""

import re
from dataclasses import dataclass, field

MAX_LENGTH = 1000
MAX_COMBINATIONS = 100_000

_ESCAPES = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]")
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}|\(\?(?!:)|\)\{|\\[1-9]")
_BACK_REFERENCE = re.compile(r"\\[1-9]")
_GAP = re.compile(r"\{(\d{1,3})(?:,(\d{1,3}))?\}")
_PART = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{[^}]*\}|.", re.DOTALL)


class InvalidPattern(ValueError):
    """A pattern that cannot be used. The text names the problem in one line."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One message pattern. Raises InvalidPattern if it is not a regular expression or too slow."""

    text: str
    _regex: "re.Pattern[str]" = field(init=False, repr=False, compare=False)
    _literal: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.text)
        try:
            object.__setattr__(self, "_regex", re.compile(self.text))
        except re.error as error:
            raise InvalidPattern(f"{self.text!r} is not a regular expression: {error}") from None
        object.__setattr__(self, "_literal", _required_literal(self.text))

    def matches(self, message: str) -> bool:
        """Return whether the pattern occurs anywhere in the normalized message."""
        # Looking for a substring is ten times as fast, and rules out most patterns.
        return self._literal in message and self._regex.search(message) is not None


def _check(text: str) -> None:
    if not text.strip() or len(text) > MAX_LENGTH:
        raise InvalidPattern(f"a message pattern must have 1 to {MAX_LENGTH} characters")
    if text != text.lower() and not re.search(r"\\[A-Z]", text):
        raise InvalidPattern(f"{text!r} must be lower case, because messages are lowercased")
    if _BACK_REFERENCE.search(text):
        raise InvalidPattern(f"{text!r} has a back reference, which can be slow")
    bare = _ESCAPES.sub("x", text)
    if _UNBOUNDED.search(bare):
        raise InvalidPattern(f"{text!r} has an unlimited repetition; use a gap such as .{{0,40}}")
    if _combinations(bare) > MAX_COMBINATIONS:
        raise InvalidPattern(f"{text!r} has too many gaps, or gaps that are too long")


def _combinations(bare: str) -> int:
    """Return the maximum number of ways to combine the gaps and options of a pattern."""
    count = 2 ** len(re.findall(r"\?(?!:)", bare))
    for low, high in _GAP.findall(bare):
        count *= max(1, int(high or low) - int(low) + 1)
    return int(count)


def _required_literal(text: str) -> str:
    """Return the longest text that is part of every match, or "" if there is none."""
    depth, runs = 0, [""]
    for part in _PART.findall(text):
        if part == "|" and depth == 0:
            return ""
        depth += (part == "(") - (part == ")")
        if depth == 0 and (part.isalnum() or part in " _-,:;'\"/="):
            runs[-1] += part
            continue
        if part == "?" or part[0] == "{":
            runs[-1] = runs[-1][:-1]  # the last character is optional or repeated
        runs.append("")
    return max(runs, key=len)
