"""Small bar drawings of the card: histograms, and a mix as target beside realised."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _ROW, _LABEL, _ROOM = 720.0, 22.0, 240.0, 390.0


def histogram(rows: Sequence[tuple[str, int]], title: str) -> str:
    """Horizontal bars, one a row: (label, count)."""
    top = max((count for _, count in rows), default=0) or 1
    parts = []
    for place, (label, count) in enumerate(rows):
        parts.append(_bar(place * _ROW, label, count / top, f"{count:,}", "kept"))
    return _svg(parts, len(rows) * _ROW, title)


def shares(rows: Sequence[tuple[str, float, float]], title: str) -> str:
    """Two bars a row: (label, target, realised), both shares of 1."""
    top = max((max(target, got) for _, target, got in rows), default=0.0) or 1.0
    parts = []
    for place, (label, target, got) in enumerate(rows):
        y = place * _ROW * 1.6
        parts.append(_bar(y, label, got / top, f"{got:.1%}", "kept"))
        parts.append(_bar(y + 0.62 * _ROW, "", target / top, f"target {target:.1%}", "target"))
    return _svg(parts, len(rows) * _ROW * 1.6, title)


def _bar(y: float, label: str, share: float, value: str, kind: str) -> str:
    width = max(1.0, share * _ROOM) if share else 0.0
    name = label if len(label) <= 32 else f"{label[:31]}…"
    text = f'<text x="{_LABEL - 8:.0f}" y="{y + 13:.1f}" text-anchor="end">{escape(name)}</text>'
    return (
        (text if label else "")
        + f'<rect class="bar {kind}" x="{_LABEL:.0f}" y="{y + 3:.1f}" width="{width:.1f}" '
        f'height="12"></rect><text class="number" x="{_LABEL + width + 6:.1f}" '
        f'y="{y + 13:.1f}">{escape(value)}</text>'
    )


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    return (
        f'<svg class="bars" viewBox="0 0 {_WIDTH:.0f} {height + 6:.0f}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )
