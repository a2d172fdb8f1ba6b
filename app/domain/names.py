"""Names of companies in the form in which they are compared and sorted."""

import re
import unicodedata

_IGNORED = "'’‘‛ʼʹ`´′＇®©™℠"
_PARTS_OF_WORDS = "%&#@*_"
_LETTERS = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ı": "i"}
)
"""Letters that Unicode does not take apart and people type without their strokes."""
_UMLAUTS = re.compile("(?<=a)[ae]+|(?<=o)e+|(?<=u)e+")


def fold_name(name: str) -> str:
    """The words of a name as people type them, with one space between them.

    Without case, accents, apostrophes and invisible characters, in one Unicode form, and with
    spaces in place of all other punctuation. Umlauts may be written in either way: `Müller` and
    `Mueller` are `muller`. A name without any word stays as it is.
    """
    joined = "".join(char for char in name if char not in _IGNORED)
    letters = unicodedata.normalize("NFKD", joined).casefold().translate(_LETTERS)
    folded = "".join(map(_fold_character, unicodedata.normalize("NFKD", letters)))
    return " ".join((_UMLAUTS.sub("", folded) if folded.strip() else name).split())


def _fold_character(char: str) -> str:
    category = unicodedata.category(char)
    if char in _PARTS_OF_WORDS or category[0] in "LNS" or category == "Mc":
        return char
    return "" if category in ("Mn", "Me", "Cf") else " "
