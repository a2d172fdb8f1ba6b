"""Read a JSON array that arrives in pieces, whatever its size."""

import codecs
import json
import re
from typing import Any

MAX_ELEMENT = 1024 * 1024
_BLANKS = re.compile(r"[ \t\n\r]*")


class ArrayReader:
    """Decodes the elements of an array; holds no more than one piece and one element."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._rest = ""
        self._expects = "["  # or: an element, "]" instead of the first one, a comma, the end

    def feed(self, piece: bytes, *, is_last: bool = False) -> list[Any]:
        """The elements that this piece completes.

        Raises ValueError for what is no array, for one that ends early, and for an element of more
        than MAX_ELEMENT characters.
        """
        text = self._rest + self._decode(piece, is_last)
        elements = []
        at = _skip_blanks(text, 0)
        while at < len(text):
            if self._expects in ("element", "first") and text[at] != "]":
                try:
                    element, end = self._scan(text, at)
                except ValueError:
                    break
                if end == len(text):  # a number may go on
                    break
                elements.append(element)
                at, self._expects = end, ","
            else:
                self._step(text[at])
                at += 1
            at = _skip_blanks(text, at)
        self._rest = text[at:]
        is_cut = is_last and (self._rest or self._expects != "end")
        if is_cut or len(self._rest) > MAX_ELEMENT:
            raise ValueError("not an array of JSON elements")
        return elements

    def _step(self, char: str) -> None:
        following = {"[[": "first", "first]": "end", ",,": "element", ",]": "end"}
        if self._expects + char not in following:
            raise ValueError("not a JSON array")
        self._expects = following[self._expects + char]


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at
