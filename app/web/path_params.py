"""IDs in paths: any text, also with slashes, as long as they are percent-encoded.

A server decodes a path before a route sees it, and then `%2F` inside an ID looks like the end of
the ID. These routes match the path as it was sent and decode each segment separately.
"""

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import Path
from fastapi.routing import APIRoute
from pydantic import AfterValidator, Field
from starlette.routing import Match
from starlette.types import Scope

MAX_ID_LENGTH = 1000
_SLASH = "\udc2f"  # stands for an encoded slash while matching; no decoded path contains it


def reject_nul(value: str) -> str:
    """Return the value. Raises ValueError for a NUL, which no database text can contain."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


REJECT_NUL = AfterValidator(reject_nul)
NO_NUL_PATTERN = Field(json_schema_extra={"pattern": "^[^\\u0000]*$"})
Id = Annotated[str, Path(max_length=MAX_ID_LENGTH), REJECT_NUL, NO_NUL_PATTERN]


class IdRoute(APIRoute):
    """A route whose IDs may contain encoded slashes."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the segments of the path as it was sent."""
        raw: bytes = scope.get("raw_path") or b""
        path = _decode_segments(raw) if b"%2f" in raw.lower() else scope["path"]
        match, child = super().matches({**scope, "path": self.normalize_path(path)})
        child["path_params"] = {
            name: value.replace(_SLASH, "/") if isinstance(value, str) else value
            for name, value in child.get("path_params", {}).items()
        }
        return match, child

    def normalize_path(self, path: str) -> str:
        """Return the path to match."""
        return path


class LenientRoute(IdRoute):
    """A route that also accepts repeated slashes, which Codat's SDKs send."""

    def normalize_path(self, path: str) -> str:
        """Return the path with each run of slashes as one."""
        return re.sub("/{2,}", "/", path)


def _decode_segments(raw_path: bytes) -> str:
    segments = raw_path.split(b"?")[0].decode("latin-1").split("/")
    return "/".join(unquote(segment).replace("/", _SLASH) for segment in segments)
