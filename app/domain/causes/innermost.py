"""The innermost message: what the accounting software reports, without the envelopes around it.

Codat puts a sentence around a message, and the message may be a body of JSON, XML, or HTML. The
error codes of such a body are returned beside its text, with the name of the platform before a code
that is only a number: `qbo 2500`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from html import unescape
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

MAX_LENGTH = 64_000
MAX_MARKUP_LENGTH = 16_000
MAX_PAGE_LENGTH = 300
MAX_CODE_LENGTH = 60
MAX_DEPTH = 12
MAX_LAYERS = 4

# Names of members and elements, folded: lower case, letters and digits only. A detail says more
# than a message.
_DETAILS = frozenset(
    ("detail", "details", "errordescription", "description2", "correction", "faultstring",
     "statusmessage")
)  # fmt: skip
_MESSAGES = frozenset(
    ("message", "errormessage", "exceptionmessage", "messagetext", "msg", "reason", "error",
     "errors")
)  # fmt: skip
_TITLES = ("title", "description")
_CODES = frozenset(
    ("code", "errorcode", "oerrorcode", "errorno", "errno", "datacode", "statuscode", "error")
)  # fmt: skip

CODAT_ENVELOPE = re.compile(
    r"(?:\s*(?:an error occurred[^.:]{0,80}[.:]\s*)?"
    r"|[^{}<>]{1,120}?(?=correlation id: {0,3}[0-9a-f-]{32,36}\.\s+message:))"
    r"correlation ?id: {0,3}"
    r"(?P<id>[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32})\b[.,]?\s*"
    r"(?:message:(?P<message>.*))?",
    re.IGNORECASE | re.DOTALL,
)
"""The sentence that Codat puts around a message of the accounting software."""

_JSON_START = re.compile(r"\{|\[(?=\s*[{\"])")
_TAG = re.compile(r"<[a-zA-Z!?/]")
_TAG_ENDS = ("</", "/>", "<br")
_ESCAPED_SPACE = re.compile(r"\\(?:r\\n|[rnt])")
_MEMBER = re.compile(
    r"[\"'](\$?[a-z_]{3,20})[\"']\s*(?::|=>)\s*(?:\"((?:[^\"\\]|\\.){3,500})\"|'([^']{3,500})')",
    re.IGNORECASE,
)
_Found = list[tuple[str, str]]  # the folded name of a member or element, and its text


class Innermost(NamedTuple):
    """The text of the innermost message, and the error codes of the bodies that contain it."""

    text: str
    codes: tuple[str, ...] = ()


@lru_cache(maxsize=2048)
def unwrap(message: str) -> Innermost:
    """Return the innermost message. Only the first `MAX_LENGTH` characters are searched."""
    codes: list[str] = []
    text = _open_envelopes(message[:MAX_LENGTH], codes)
    decoded = _decode(text)  # once: an entity may be part of a name
    if decoded != text:
        text = _open_envelopes(decoded, codes)
    return Innermost(text, tuple(dict.fromkeys(codes)))


def innermost_text(message: str | None) -> str:
    """Return the text of the innermost message, for people."""
    return unwrap(message or "").text


def _open_envelopes(text: str, codes: list[str]) -> str:
    for _ in range(MAX_LAYERS):
        inner = _open_envelope(text, codes)
        if inner == text:
            break
        text = inner
    return text


def _open_envelope(text: str, codes: list[str]) -> str:
    envelope = CODAT_ENVELOPE.match(text)
    if envelope and (envelope["message"] or "").strip():
        return envelope["message"].strip()
    if ("{" in text or "[" in text) and (messages := _from_json(text, codes)):
        return _join(messages)
    if "<" in text and _TAG.search(text) and any(end in text for end in _TAG_ENDS):
        return _from_markup(text[:MAX_MARKUP_LENGTH], codes) or text
    return text


def _decode(text: str) -> str:
    if "&" in text and ";" in text:
        text = unescape(text)
    if "%20" in text:
        text = unquote_plus(text)
    if "\\" in text:
        text = _ESCAPED_SPACE.sub(" ", text).replace('\\"', '"')
    return text


def _join(parts: Iterable[str]) -> str:
    """One text of several sentences. Leaves out what another part says too."""
    texts = list(dict.fromkeys(" ".join(part.split()) for part in parts))
    distinct = [
        text for text in texts if not any(text in other for other in texts if text != other)
    ]
    return " ".join(
        text if text[-1] in ".!?:;" or text is distinct[-1] else f"{text}." for text in distinct
    )


def _most_specific(found: _Found) -> list[str]:
    details = [text for name, text in found if name in _DETAILS]
    return details or [text for name, text in found if name in _MESSAGES]


def _is_prose(value: Any) -> bool:
    return isinstance(value, str) and any(map(str.isalpha, value))


def _fold(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


# --- JSON -----------------------------------------------------------------------------------------


def _from_json(text: str, codes: list[str]) -> list[str]:
    """The messages of the first JSON value in the text that has any."""
    for candidate in dict.fromkeys((text, text.replace('\\"', '"'))):
        for start in list(_JSON_START.finditer(candidate))[:3]:
            try:
                value = json.JSONDecoder().raw_decode(candidate, start.start())[0]
            except (ValueError, RecursionError):
                continue
            messages = list(_messages(value, "", _platform(value), codes, MAX_DEPTH))
            if messages:
                return messages
    # JSON that was cut off, or the notation of another language
    members = [(_fold(member[1]), member[2] or member[3]) for member in _MEMBER.finditer(text)]
    return _most_specific([member for member in members if _is_prose(member[1])])


def _platform(value: Any) -> str:
    """The platform whose codes the body has."""
    names = {_fold(name) for name in value} if isinstance(value, dict) else set()
    if "fault" in names:
        return "qbo"
    return "zoho" if names == {"code", "message"} else ""


def _messages(value: Any, key: str, platform: str, codes: list[str], depth: int) -> Iterator[str]:
    """The innermost messages of the value of the member `key`."""
    if isinstance(value, str):
        if key in _DETAILS or key in _MESSAGES:
            yield value
    elif isinstance(value, list) and depth:
        for item in value:
            yield from _messages(item, key, platform, codes, depth - 1)
    elif isinstance(value, dict) and depth:
        _collect_codes(value, platform, codes)
        inner = [
            message
            for name, member in value.items()
            if isinstance(member, dict | list)
            for message in _messages(member, _fold(name), platform, codes, depth - 1)
        ]
        yield from inner or _own_messages(value, key)


def _own_messages(value: dict[str, Any], key: str) -> list[str]:
    """The messages of an object without any in a nested one."""
    found = [(_fold(name), member) for name, member in value.items() if _is_prose(member)]
    if messages := _most_specific(found):
        return messages
    if key == "message":  # {"message": {"lang": "en", "value": "..."}}
        return [text for name, text in found if name == "value"]
    if key in _MESSAGES:  # {"errors": {"contact_id": ["can't be blank"]}}
        return [
            text if name.lower() in text.lower() else f"{name} {text}"
            for name, member in value.items()
            for text in (member if isinstance(member, list) else [member])
            if _is_prose(text)
        ]
    if {_fold(name) for name in value} & (_CODES | {"status"}):
        return [text for name, text in found if name in _TITLES][:1]
    return []


def _collect_codes(value: dict[str, Any], platform: str, codes: list[str]) -> None:
    members = {_fold(name): str(member) for name, member in value.items()}
    if "severity" in members and not platform:
        platform = "myob"
    for name, code in members.items():
        if name in ("status", "statuscode") and code.isdecimal():
            codes.append(f"http {code}")
        elif not 0 < len(code) <= MAX_CODE_LENGTH or " " in code:
            continue
        elif name in _CODES and not code.isdecimal():
            codes.append(code)
        elif name in _CODES and (platform or name == "errno"):
            codes.append(f"{platform or 'freshbooks'} {code}")
        elif name == "name" and platform == "myob":
            codes.append(code)


# --- XML and HTML ---------------------------------------------------------------------------------


class _Markup(HTMLParser):
    """Collects the messages and codes of a document, and its visible text.

    Lenient, and without the entities of a document type.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: _Found = []
        self.codes: list[str] = []
        self.visible: list[str] = []
        self._open = [""]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(_fold(tag.rpartition(":")[2]))
        values = {_fold(name): value or "" for name, value in attrs}
        if values.get("statusmessage"):
            self.found.append(("statusmessage", values["statusmessage"]))
            self.codes.append(f"qbxml {values.get('statuscode')}")
        elif self._open[-1] == "error" and values.get("code"):
            self.codes.append(f"{'qbo ' if 'fault' in self._open else ''}{values['code']}")

    def handle_endtag(self, tag: str) -> None:
        name = _fold(tag.rpartition(":")[2])
        if name in self._open[1:]:
            while self._open.pop() != name:
                pass

    def handle_data(self, data: str) -> None:
        text, name = data.strip(), self._open[-1]
        if not text or name in ("script", "style"):
            return
        if name in _CODES and " " not in text and not text.isdecimal():
            self.codes.append(text[:MAX_CODE_LENGTH])
        self.found.append((name, text))
        self.visible.append(text)

    def unknown_decl(self, data: str) -> None:
        self.handle_data(data.removeprefix("CDATA["))


def _from_markup(text: str, codes: list[str]) -> str:
    """The messages of an XML document, or the visible text of an HTML page."""
    document = _Markup()
    document.feed(text)
    document.close()
    codes += document.codes
    messages = _most_specific(document.found)
    return _join(messages) if messages else _join(document.visible)[:MAX_PAGE_LENGTH]
