"""A bar chart as SVG: one group of bars per number of connections, on a logarithmic scale."""

from collections.abc import Mapping
from html import escape
from math import ceil, floor, log10

COLORS = ("#9aa0a6", "#5f6368", "#c98f3c", "#2f6f9f", "#1d4a6d", "#dcbf8f", "#86b0cc", "#a8c6dd")
BAR, LEFT, WIDTH = 16, 230, 500


def bars(values: Mapping[tuple[str, int], float], title: str) -> str:
    """Draw `values` by name and connections; each bar is labeled relative to the smallest."""
    least = min(values.values())
    low, high = floor(log10(least)), ceil(log10(max(values.values())))
    names = list(dict.fromkeys(name for name, _ in values))
    parts, y = [_label(10, 22, title, "start")], 40
    for connections in sorted({connections for _, connections in values}):
        parts.append(_label(10, y + BAR - 3, f"{connections} connections", "start"))
        y += BAR
        for name, color in zip(names, COLORS, strict=False):
            value = values.get((name, connections))
            if value is None:
                continue
            width = round(WIDTH * (log10(value) - low) / (high - low))
            parts += [
                f'<rect x="{LEFT}" y="{y + 2}" width="{width}" height="{BAR - 3}" fill="{color}"/>',
                _label(LEFT - 8, y + BAR - 3, name, "end"),
                _label(LEFT + width + 6, y + BAR - 3, f"{value / least:.1f}", "start"),
            ]
            y += BAR
        y += BAR
    size = f'width="{LEFT + WIDTH + 70}" height="{y}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, background, *parts, "</svg>\n"])


def _label(x: int, y: int, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#202124">{escape(text)}</text>'
