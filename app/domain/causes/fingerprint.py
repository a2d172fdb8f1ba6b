"""Fingerprints group equal failures of all companies, whatever IDs, amounts, or names they contain.

Masking replaces IDs, amounts, dates, quoted names, names after a word such as "supplier", and email
addresses in the innermost message with `#`. The hash of the masked message is the fingerprint.
"""

import re
from functools import lru_cache
from hashlib import sha256

from app.domain.causes.innermost import unwrap

ALGORITHM_VERSION = 2
"""Increase this after any change to this module, so that stored fingerprints are recomputed."""

MAX_LENGTH = 2000
PLACEHOLDER = "#"

_TYPOGRAPHY = str.maketrans("‘’‚‛“”„‟–—−\u00a0", "''''\"\"\"\"--- ")
_EMAIL = re.compile(r"[^\s'\"<>(),;:]{1,200}@[^\s'\"<>(),;:]{1,200}")
# An apostrophe inside a word neither opens nor closes a quotation.
_QUOTED = re.compile(
    r"(?<!\w)'(?:[^']|(?<=\w)'(?=\w)){0,200}'(?!\w)|\"[^\"]{0,200}\"|`[^`]{0,200}`|«[^»]{0,200}»"
)
_HEX = re.compile(
    r"\b(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{8,64})\b", re.IGNORECASE
)
_REQUEST_ID = re.compile(
    r"\b((?:correlation|request|trace|support|activity|incident)[ _-]?id)\b\W{1,4}"
    r"[^\s\"'<>\])]{6,80}",
    re.IGNORECASE,
)
# A name without quotes: words with a capital letter between a noun and a verb. Not the name of a
# field, such as "Account Code".
_NAME = re.compile(
    r"\b((?i:supplier|vendor|customer|client|contact|payee|employee|account|project|job|department"
    r"|class|location|item|product)) "
    r"(?!(?:Code|Type|Number|No|Id|ID|Ref|Name|Group|Email|Address|Currency|Date|Period|Posting"
    r"|Card|Entry|Ledger|Tax|Rate|Status|Line|Category|Unit|Price|Quantity|Terms?)\b)"
    r"(?:[A-Z#&][^\s,;:()]{0,40} (?:(?:of|and|de|van|von|the) )?){1,6}"
    r"(?=(?:is|isn't|was|wasn't|has|hasn't|does|doesn't|could|can|can't|cannot|not|already|in) )"
)
_TOKEN = re.compile(r"[^\s'\"<>()\[\]{}=;]+")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_CURRENCY = re.compile(r"[-+]?(?:\b[A-Z]{3} ?|[$£€¥] ?)#|# ?(?:[A-Z]{3}\b|[$£€¥])")
_DATE = re.compile(rf"# (?:of )?{_MONTH}\b,?(?: #)?|\b{_MONTH} #(?:, ?#)?", re.IGNORECASE)
_TIME = re.compile(r"# (?:am|pm|utc|gmt)\b", re.IGNORECASE)
_LIST = re.compile(r"#(?:(?:, ?| and |[ /;-])#)+")
_INSIDE_SENTENCE = re.compile(r"\.+(?=\S)|(?<= [Nn]o)\.")
_QUOTE = re.compile(r"['\"`]")
_INSIDE_IDENTIFIER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")


def normalize(message: str | None) -> str:
    """Return the message as rules match it, at most `MAX_LENGTH` characters long.

    It is the innermost message. Letters are lower case, whitespace is single spaces, and quotes and
    dashes are ASCII. Request IDs are removed, so equal failures are classified only once.
    """
    return normalize_texts(message)[0]


def normalize_texts(message: str | None) -> tuple[str, ...]:
    """Return the texts of a message that rules match: the normalized message and its error codes.

    And both in plain words, so that a rule need not describe each way of writing.
    """
    unwrapped = unwrap(message or "")
    texts = [_REQUEST_ID.sub(r"\1", _clean(unwrapped.text)), " ".join(unwrapped.codes)]
    variants = [text.lower() for text in texts] + [_plain_words(text) for text in texts]
    return tuple(dict.fromkeys(filter(None, variants))) or ("",)


def _plain_words(text: str) -> str:
    """Lower case without quotes and contractions, with the words of identifiers apart.

    "TAX_CODE" and "TaxCode" become "tax code". Dots remain only where they end a sentence.
    """
    words = _INSIDE_SENTENCE.sub(" ", _INSIDE_IDENTIFIER.sub(" ", text)).lower()
    return _QUOTE.sub("", words.replace("can't", "cannot").replace("n't", " not"))


def mask(message: str | None) -> str:
    """Return the message with `#` for each variable part: the text that a fingerprint hashes."""
    return _mask(_REQUEST_ID.sub(rf"\1: {PLACEHOLDER}", _clean(unwrap(message or "").text)))


@lru_cache(maxsize=4096)
def _mask(text: str) -> str:
    """Mask until nothing changes: a placeholder may open what was no quotation before."""
    masked = _mask_once(text)
    while masked != text:
        text, masked = masked, _mask_once(masked)
    return masked


def _mask_once(text: str) -> str:
    if "@" in text:
        text = _EMAIL.sub(PLACEHOLDER, text)
    text = _NAME.sub(rf"\1 {PLACEHOLDER} ", text)
    for pattern in (_QUOTED, _HEX):
        text = pattern.sub(PLACEHOLDER, text)
    text = _TOKEN.sub(_mask_number, text)
    for pattern in (_CURRENCY, _DATE, _TIME, _LIST):
        text = pattern.sub(PLACEHOLDER, text)
    return text.lower()


def fingerprint(message: str | None) -> str:
    """Return 16 hex digits that are the same for equal failures of any company."""
    return sha256(mask(message).encode()).hexdigest()[:16]


def _clean(text: str) -> str:
    text = text[:MAX_LENGTH]
    if not text.isascii():  # every character that the table translates is outside ASCII
        text = text.translate(_TYPOGRAPHY)
    return " ".join(text.split())  # four times as fast as a regular expression


def _mask_number(match: re.Match[str]) -> str:
    """Replace a word that contains a digit, but leave the punctuation around the word."""
    word = match[0]
    if not any(character.isdigit() for character in word):
        return word
    head = word[: len(word) - len(word.lstrip(".,:!?"))]
    tail = word[len(word.rstrip(".,:!?")) :]
    return f"{head}{PLACEHOLDER}{tail}"
