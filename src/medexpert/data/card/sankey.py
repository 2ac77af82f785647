"""Flows -> one SVG: sources on the left, stages and ways out on the right, bands between them.

A band's thickness is its documents times one scale for the whole drawing, one pixel at least.
Colours come from the page's style sheet by class, so the drawing follows dark and light.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from medexpert.data.card.facts import DEBITS
from medexpert.data.card.flow import NAMES, Flow

WIDTH = 960.0
LEFT, RIGHT, BAR = 310.0, 740.0, 12.0  # pixels: right edge of the left bars, left of the right ones
_GAP = 14.0
_LEAST_NODE = 16.0  # a label's height
_PER_NODE = 34.0


@dataclass
class Node:
    """A bar: where it stands, how high it is, and how much of it has bands already."""

    name: str
    kind: str
    documents: int = 0
    thickness: float = 0.0
    top: float = 0.0
    used: float = 0.0


@dataclass
class _Band:
    source: Node
    target: Node
    documents: int
    thickness: float = field(default=0.0)


def sankey(rows: list[Flow]) -> str:
    """The drawing; empty text when nothing was read."""
    rows = [row for row in rows if row.read]
    total = sum(row.read for row in rows)
    if not total:
        return ""
    left = [Node(f"{row.stage}/{row.source}", "source") for row in rows]
    stages = {row.stage: Node(f"stage {row.stage}", "kept") for row in rows}
    ways = {step: Node(NAMES[step], step) for step in reversed(DEBITS)}
    bands = []
    for row, node in zip(rows, left, strict=True):
        bands.append(_Band(node, stages[row.stage], row.kept))
        bands += [_Band(node, ways[step], row.out[step]) for step in ways]
    bands = [band for band in bands if band.documents]
    right = [node for node in (*stages.values(), *ways.values())]
    height = _PER_NODE * max(len(left), len(right), 6)
    for band in bands:
        band.thickness = max(1.0, band.documents * 0.75 * height / total)
        for node in (band.source, band.target):
            node.documents += band.documents
            node.thickness += band.thickness
    right = [node for node in right if node.documents]
    height = max(_stack(left), _stack(right))
    parts = [_path(band) for band in bands]
    parts += [_bar(node, LEFT - BAR, "end", LEFT - BAR - 8) for node in left]
    parts += [_bar(node, RIGHT, "start", RIGHT + BAR + 8) for node in right]
    title = f"{total:,} documents from {len(left)} sources to stages and ways out"
    return (
        f'<svg class="sankey" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _stack(nodes: list[Node]) -> float:
    """Set the nodes below each other; returns the height they need."""
    top = _GAP
    for node in nodes:
        node.top = top
        top += max(node.thickness, _LEAST_NODE) + _GAP
    return top


def _path(band: _Band) -> str:
    y0 = band.source.top + band.source.used + band.thickness / 2
    y1 = band.target.top + band.target.used + band.thickness / 2
    band.source.used += band.thickness
    band.target.used += band.thickness
    middle = (LEFT + RIGHT) / 2
    title = f"{band.source.name} to {band.target.name}: {band.documents:,} documents"
    return (
        f'<path class="band {band.target.kind}" stroke-width="{band.thickness:.2f}" '
        f'data-documents="{band.documents}" '
        f'd="M{LEFT:.0f} {y0:.2f}C{middle:.0f} {y0:.2f} {middle:.0f} {y1:.2f} '
        f'{RIGHT:.0f} {y1:.2f}">'
        f"<title>{escape(title)}</title></path>"
    )


def _bar(node: Node, x: float, anchor: str, text_x: float) -> str:
    middle = node.top + max(node.thickness, 2.0) / 2 + 4
    name = node.name if len(node.name) <= 36 else f"{node.name[:35]}…"
    return (
        f'<rect class="bar {node.kind}" x="{x:.1f}" y="{node.top:.2f}" width="{BAR:.0f}" '
        f'height="{max(node.thickness, 2.0):.2f}"></rect>'
        f'<text x="{text_x:.1f}" y="{middle:.2f}" text-anchor="{anchor}">{escape(name)} '
        f'<tspan class="number">{node.documents:,}</tspan></text>'
    )
