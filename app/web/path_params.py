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

    merges_slashes = False

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the segments of the path as it was sent."""
        path: str = scope["path"]
        raw: bytes = scope.get("raw_path") or b""
        if b"%2f" in raw.lower():
            segments = raw.split(b"?")[0].decode("latin-1").split("/")
            path = "/".join(unquote(segment).replace("/", _SLASH) for segment in segments)
        if self.merges_slashes:
            path = re.sub("/{2,}", "/", path)
        match, child = super().matches({**scope, "path": path})
        child["path_params"] = {
            name: value.replace(_SLASH, "/") if isinstance(value, str) else value
            for name, value in child.get("path_params", {}).items()
        }
        return match, child


class LenientRoute(IdRoute):
    """A route that also accepts repeated slashes, which Codat's SDKs send."""

    merges_slashes = True
