"""Which failures are the same, over all companies: a message without what is particular in it.

Ids, correlation ids, amounts, dates, quoted names and e-mail addresses are taken out; what remains
is the sentence itself, and its hash is the fingerprint.
"""

import re
from functools import lru_cache
from hashlib import sha256

FORM = 1
"""To be raised when anything here changes, so that kept fingerprints are made anew."""

LONGEST = 2000
SOMETHING = "#"

_SAME_MARKS = str.maketrans("‘’‚‛“”„‟–—−\u00a0", "''''\"\"\"\"--- ")
_EMAIL = re.compile(r"[^\s'\"<>(),;:]{1,200}@[^\s'\"<>(),;:]{1,200}")
# An apostrophe inside a word neither opens nor closes a quotation.
_QUOTED = re.compile(
    r"(?<!\w)'(?:[^']|(?<=\w)'(?=\w)){0,200}'(?!\w)|\"[^\"]{0,200}\"|`[^`]{0,200}`|«[^»]{0,200}»"
)
_HEX = re.compile(
    r"\b(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{8,64})\b", re.IGNORECASE
)
_CORRELATION = re.compile(r"correlation ?id: ?[0-9a-f-]{32,36}\b", re.IGNORECASE)
_TOKEN = re.compile(r"[^\s'\"<>()\[\]{}=;]+")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_CURRENCY = re.compile(r"[-+]?(?:\b[A-Z]{3} ?|[$£€¥] ?)#|# ?(?:[A-Z]{3}\b|[$£€¥])")
_DATE = re.compile(rf"# (?:of )?{_MONTH}\b,?(?: #)?|\b{_MONTH} #(?:, ?#)?", re.IGNORECASE)
_CLOCK = re.compile(r"# (?:am|pm|utc|gmt)\b", re.IGNORECASE)
_SEVERAL = re.compile(r"#(?:(?:, ?| and |[ /;-])#)+")


def plain(message: str | None) -> str:
    """The message as rules compare it: lower case, single blanks, plain quotes, at most 2000.

    Correlation ids are left out: equal failures then are one question to the rules.
    """
    return _CORRELATION.sub("correlation id", _one_line(message)).lower()


def masked(message: str | None) -> str:
    """The message with `#` for everything particular; the same for all that share a fingerprint."""
    return _masked(_CORRELATION.sub(f"correlation id: {SOMETHING}", _one_line(message)))


@lru_cache(maxsize=4096)
def _masked(text: str) -> str:
    if "@" in text:
        text = _EMAIL.sub(SOMETHING, text)
    for pattern in (_QUOTED, _HEX):
        text = pattern.sub(SOMETHING, text)
    text = _TOKEN.sub(_without_digits, text)
    for pattern in (_CURRENCY, _DATE, _CLOCK, _SEVERAL):
        text = pattern.sub(SOMETHING, text)
    return text.lower()


def fingerprint(message: str | None) -> str:
    """Sixteen hex digits that equal failures share, whatever company they happen to."""
    return sha256(masked(message).encode()).hexdigest()[:16]


def _one_line(message: str | None) -> str:
    cut = (message or "")[:LONGEST]
    # none of these marks is ASCII; and splitting takes a quarter of the time of a pattern
    one = cut if cut.isascii() else cut.translate(_SAME_MARKS)
    return " ".join(one.split())


def _without_digits(found: re.Match[str]) -> str:
    """A word with a digit in it is somebody's number; its punctuation at both ends stays."""
    word = found[0]
    if not any(letter.isdigit() for letter in word):
        return word
    head = word[: len(word) - len(word.lstrip(".,:!?"))]
    tail = word[len(word.rstrip(".,:!?")) :]
    return f"{head}{SOMETHING}{tail}"
