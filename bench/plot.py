"""A plain bar chart as SVG: groups of bars on a logarithmic scale, each with its ratio in words."""

from collections.abc import Mapping
from html import escape
from itertools import cycle
from math import ceil, floor, log10

COLOURS = (
    *("#9aa0a6", "#c98f3c", "#2f6f9f", "#dcbf8f", "#86b0cc", "#a8712b", "#1d4a6d", "#5f6368"),
    "#444444",
)
BAR, GAP, LEFT, WIDE, TOP = 16, 14, 230, 500, 40


def bars(values: Mapping[tuple[str, int], float]) -> str:
    """The chart of `values` by name and connections, relative to the smallest."""
    least = min(values.values())
    low, high = floor(log10(least)), ceil(log10(max(values.values())))
    names = list(dict.fromkeys(name for name, _ in values))
    colour = dict(zip(names, cycle(COLOURS), strict=False))
    drawn, y = [], TOP
    for connections in sorted({connections for _, connections in values}):
        drawn.append(_text(10, y + BAR - 3, f"{connections} at once", bold=True))
        y += BAR
        for name in names:
            if (name, connections) not in values:
                continue
            value = values[name, connections]
            width = WIDE * (log10(value) - low) / (high - low)
            drawn.append(
                f'<rect x="{LEFT}" y="{y + 2}" width="{width:.0f}" height="{BAR - 3}" '
                f'fill="{colour[name]}"/>'
            )
            drawn.append(_text(LEFT - 8, y + BAR - 3, name, end=True))
            drawn.append(_text(LEFT + round(width) + 6, y + BAR - 3, f"{value / least:.1f}"))
            y += BAR
        y += GAP
    title = "Deliveries kept per second, relative to the slowest (logarithmic)"
    return _page(y + 10, [_text(10, 22, title, bold=True), *drawn])


def _text(x: int, y: int, words: str, *, end: bool = False, bold: bool = False) -> str:
    looks = ' text-anchor="end"' if end else ""
    looks += ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}"{looks}>{escape(words)}</text>'


def _page(height: int, drawn: list[str]) -> str:
    size = f'width="{LEFT + WIDE + 70}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" '
            'font-size="12" fill="#202124">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *drawn,
            "</svg>\n",
        ]
    )
