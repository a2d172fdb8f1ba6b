"""Ids in paths: any text, also with slashes in it, as long as they are percent-encoded.

A server decodes a path before a route sees it, so that `%2F` inside an id looks like the end of
the id. These routes match on the path as it came and decode each segment by itself.
"""

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import Path
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from starlette.routing import Match
from starlette.types import Scope

LONGEST_ID = 1000
_SLASH = "\udc2f"  # stands for an encoded slash while matching; no decoded path contains it


def plain_text(value: str) -> str:
    """The value, unless it holds a NUL, which no database text can. Raises ValueError."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


Id = Annotated[str, Path(max_length=LONGEST_ID), AfterValidator(plain_text)]


class IdRoute(APIRoute):
    """A route whose ids may hold encoded slashes."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As any route, on whole segments."""
        raw: bytes = scope.get("raw_path") or b""
        if scope["type"] == "http" and b"%2f" in raw.lower():
            scope = {**scope, "path": self.tidy(_by_segment(raw))}
        else:
            scope = {**scope, "path": self.tidy(scope["path"])}
        match, child = super().matches(scope)
        params = child.get("path_params", {})
        child["path_params"] = {
            name: value.replace(_SLASH, "/") if isinstance(value, str) else value
            for name, value in params.items()
        }
        return match, child

    def tidy(self, path: str) -> str:
        """The path this route is matched against."""
        return path


class LenientRoute(IdRoute):
    """A route that also forgives doubled slashes, as Codat's SDKs write them."""

    def tidy(self, path: str) -> str:
        """The path with each run of slashes as one."""
        return re.sub("/{2,}", "/", path)


def _by_segment(raw: bytes) -> str:
    segments = raw.split(b"?")[0].decode("latin-1").split("/")
    return "/".join(unquote(segment).replace("/", _SLASH) for segment in segments)
