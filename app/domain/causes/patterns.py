r"""Message patterns: regular expressions that match in bounded time, whatever the message.

A pattern is written in lower case and matched against the normalized message
(`fingerprint.normalize`). Allowed: literals, character classes, `(?:a|b)`, `?`, `\b`, and counted
gaps such as `.{0,40}`. Not allowed: `*`, `+`, `{2,}`, repeated groups, back references, and
lookarounds, because one unusual message could then block a process for minutes. The number of
combinations a pattern can try is limited when the rules are loaded.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

MAX_LENGTH = 20_000
SHOWN_LENGTH = 200
MAX_COMBINATIONS = 100_000
GRAM_LENGTH = 3
_FREQUENT = frozenset(" acdeilnorst")

_ESCAPES = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]")
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}|\(\?(?!:)|\)\{|\\[1-9]")
_BACK_REFERENCE = re.compile(r"\\[1-9]")
_GAP = re.compile(r"\{(\d{1,3})(?:,(\d{1,3}))?\}")
_PART = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{[^}]*\}|\(\?:|.", re.DOTALL)


class InvalidPattern(ValueError):
    """A pattern that cannot be used. The text names the problem in one line."""


@dataclass(frozen=True)
class Pattern:
    """One message pattern.

    `text` is the regular expression, and `written` is how the rule has it, with names of words.
    What is derived from them is computed when it is needed: for all rules it takes a second.
    """

    text: str
    written: str = field(default="", repr=False, compare=False)

    def check(self) -> None:
        """Raise InvalidPattern if the pattern is not a regular expression or could be slow."""
        try:
            _check(self.text)
        except InvalidPattern as error:
            raise InvalidPattern(f"{self._shown} {error}") from None
        try:
            re.compile(self.text)
        except re.error as error:
            raise InvalidPattern(f"{self._shown} is not a regular expression: {error}") from None

    def matches(self, message: str) -> bool:
        """Return whether the pattern occurs anywhere in the normalized message."""
        # Looking for a substring is ten times as fast, and rules out most patterns.
        return self._literal in message and self._regex.search(message) is not None

    @cached_property
    def grams(self) -> tuple[frozenset[str], ...]:
        """Sets of texts of `GRAM_LENGTH` characters: every match contains one of each set.

        The first set says most.
        """
        required = [
            texts for texts in _required_texts(self.text) if min(map(len, texts)) >= GRAM_LENGTH
        ]
        required.sort(key=lambda texts: (len(texts), -min(map(len, texts))))
        return tuple(map(_rarest_grams, required))

    def is_possible(self, grams: set[str]) -> bool:
        """Return whether a text with these grams can match."""
        return not any(map(grams.isdisjoint, self.grams))

    @cached_property
    def _literal(self) -> str:
        required = _required_texts(self.text)
        return max((min(texts) for texts in required if len(texts) == 1), key=len, default="")

    @cached_property
    def _regex(self) -> "re.Pattern[str]":
        return re.compile(self.text)

    @property
    def _shown(self) -> str:
        return repr((self.written or self.text)[:SHOWN_LENGTH])


def grams_of(message: str) -> set[str]:
    """Return every text of `GRAM_LENGTH` characters in the message."""
    return {message[n : n + GRAM_LENGTH] for n in range(len(message) - GRAM_LENGTH + 1)}


def _rarest_grams(texts: frozenset[str]) -> frozenset[str]:
    """One gram of each text: the one whose letters are the least frequent."""
    return frozenset(
        min(grams_of(text), key=lambda gram: (sum(map(_FREQUENT.__contains__, gram)), gram))
        for text in texts
    )


def _check(text: str) -> None:
    if not text.strip() or len(text) > MAX_LENGTH:
        raise InvalidPattern(f"must have 1 to {MAX_LENGTH} characters")
    if text != text.lower() and not re.search(r"\\[A-Z]", text):
        raise InvalidPattern("must be lower case, because messages are lowercased")
    if _BACK_REFERENCE.search(text):
        raise InvalidPattern("has a back reference, which can be slow")
    bare = _ESCAPES.sub("x", text)
    if _UNBOUNDED.search(bare):
        raise InvalidPattern("has an unlimited repetition; use a gap such as .{0,40}")
    if _combinations(text) > MAX_COMBINATIONS:
        raise InvalidPattern("has too many gaps, or gaps that are too long")


@lru_cache(maxsize=1024)
def _combinations(text: str) -> int:
    """Return the maximum number of ways to combine the gaps and options of a pattern."""
    return max(_combinations_of_branch(branch) for branch in _branches(text))


def _combinations_of_branch(parts: list[str]) -> int:
    count = 1
    for part in parts:
        gap = _GAP.fullmatch(part)
        if part.startswith("(?:"):
            count *= _combinations(part[3:-1])
        elif part == "?":
            count *= 2
        elif gap:
            count *= max(1, int(gap[2] or gap[1]) - int(gap[1]) + 1)
    return count


@lru_cache(maxsize=1024)
def _required_texts(text: str) -> list[frozenset[str]]:
    """Return sets of texts. Every match contains at least one text of each set."""
    branches = [_required_by_branch(branch) for branch in _branches(text)]
    if len(branches) == 1:
        return branches[0]
    if not all(branches):
        return []
    # Of each branch the set whose shortest text is the longest says most.
    best = [max(sets, key=lambda texts: min(map(len, texts))) for sets in branches]
    return [frozenset().union(*best)]


@lru_cache(maxsize=1024)
def _branches(text: str) -> list[list[str]]:
    """The parts of each top-level alternative. A group is one part."""
    branches: list[list[str]] = [[]]
    depth, group = 0, ""
    for part in _PART.findall(text):
        opened = part in ("(", "(?:")
        if depth == 0 and part == "|":
            branches.append([])
        elif depth == 0 and not opened:
            branches[-1].append(part)
        else:
            group += part
            depth += opened - (part == ")")
            if depth == 0:
                branches[-1].append(group)
                group = ""
    return branches


def _required_by_branch(parts: list[str]) -> list[frozenset[str]]:
    runs, sets = [""], []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        is_optional = following == "?" or following.startswith("{0,")
        if part.startswith("(?:") and not is_optional:
            sets += _required_texts(part[3:-1])
        elif (part.isalnum() or part in " _-,:;'\"/=") and len(part) == 1 and not is_optional:
            runs[-1] += part
            if not following.startswith("{"):
                continue
        runs.append("")
    longest = max(runs, key=len)
    return [frozenset([longest]), *sets] if longest else sets
