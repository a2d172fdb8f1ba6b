"""A part of many things at a time: by their number, or by how large they are together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

Thing = TypeVar("Thing")


def chunked(rows: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """The rows in slices that stay under the databases' limit on bound values."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def first_within(things: Iterable[Thing], most: int, size: Callable[[Thing], int]) -> list[Thing]:
    """The first of these things that are together no larger than `most`; the first in any case."""
    taken: list[Thing] = []
    whole = 0
    for each in things:
        whole += size(each)
        if taken and whole > most:
            break
        taken.append(each)
    return taken
