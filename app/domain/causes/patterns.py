r"""Patterns for messages: regular expressions whose work is bounded, whatever the message.

A pattern is written in lower case against the plain form of a message (`fingerprint.plain`). It
may use literals, classes, `(?:a|b)`, `?`, `\b` and counted gaps such as `.{0,40}`. Not `*`, `+`,
`{2,}`, repeated groups, back references or look-arounds: with those, one odd message could keep a
process busy for minutes. How many ways there are to try is counted when the rules are read.
"""

import re
from dataclasses import dataclass, field

LONGEST = 300
MOST_WAYS = 100_000

_ESCAPED = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]")
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}|\(\?(?!:)|\)\{|\\[1-9]")
_GAP = re.compile(r"\{(\d{1,3})(?:,(\d{1,3}))?\}")


class BadPattern(ValueError):
    """A pattern that cannot be used. Its text says what is wrong, in one line."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern. Raises BadPattern when it is no regular expression or could be slow."""

    text: str
    _search: "re.Pattern[str]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _refuse_slow(self.text)
        try:
            object.__setattr__(self, "_search", re.compile(self.text))
        except re.error as error:
            raise BadPattern(f"{self.text!r} is no regular expression: {error}") from None

    def is_in(self, message: str) -> bool:
        """True when the pattern is found anywhere in the message."""
        return self._search.search(message) is not None


def _refuse_slow(text: str) -> None:
    if not text.strip() or len(text) > LONGEST:
        raise BadPattern(f"a message pattern must have 1 to {LONGEST} characters")
    if text != text.lower() and not re.search(r"\\[A-Z]", text):
        raise BadPattern(f"{text!r} must be in lower case: messages are compared so")
    if re.compile(r"\\[1-9]").search(text):
        raise BadPattern(f"{text!r} refers back to a group, which can be slow")
    bare = _ESCAPED.sub("x", text)
    if _UNBOUNDED.search(bare):
        raise BadPattern(f"{text!r} has an unlimited repetition; write a gap such as .{{0,40}}")
    if _ways(bare) > MOST_WAYS:
        raise BadPattern(f"{text!r} has too many or too long gaps")


def _ways(bare: str) -> int:
    """How many ways the gaps and options of a pattern can be combined, at most."""
    ways = 2 ** len(re.findall(r"\?(?!:)", bare))
    for low, high in _GAP.findall(bare):
        ways *= max(1, int(high or low) - int(low) + 1)
    return int(ways)
