"""What a report is made of, rendered to HTML and to Markdown from one list, so both say the same.

All text is escaped here and nowhere else; only `Chart.svg` (made by us) passes through as it is.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Note:
    """A boxed remark; kind is `warning` or `info`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Cards:
    """Headline numbers: (label, value, small print)."""

    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """Rows under columns; a column name that starts with '>' holds numbers and is right-aligned.

    `strong` and `faint` are row indices to stress or to mute.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: frozenset[int] = frozenset()
    faint: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chart:
    """An inline SVG. `alt` tells in words what it shows; the numbers stand in a table nearby."""

    svg: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str


@dataclass(frozen=True)
class Folded:
    """Closed until opened."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Case:
    """One example answer: a heading, facts as (name, value), then more blocks."""

    title: str
    right: bool
    facts: Sequence[tuple[str, str]]
    blocks: Sequence[Block] = field(default=())


Block = Text | Note | Cards | Table | Chart | Code | Folded | Case


@dataclass(frozen=True)
class Section:
    """A titled part of the report; `anchor` is its id in the page."""

    title: str
    anchor: str
    blocks: Sequence[Block]


def to_html(block: Block) -> str:
    """One block as HTML."""
    match block:
        case Text(text):
            return f"<p>{_escape(text)}</p>"
        case Note(kind, text):
            return f'<aside class="note {_escape(kind)}" role="note">{_escape(text)}</aside>'
        case Cards(items):
            cards = "".join(
                f"<div><dt>{_escape(label)}</dt><dd>{_escape(value)}"
                f"<small>{_escape(small)}</small></dd></div>"
                for label, value, small in items
            )
            return f'<dl class="cards">{cards}</dl>'
        case Table():
            return _table_html(block)
        case Chart(svg, caption, alt):
            return (
                f'<figure><div class="chart" role="img" aria-label="{_escape(alt)}">{svg}</div>'
                f"<figcaption>{_escape(caption)}</figcaption></figure>"
            )
        case Code(text):
            return f"<pre>{_escape(text)}</pre>"
        case Folded(title, blocks):
            inner = "".join(to_html(part) for part in blocks)
            return f"<details><summary>{_escape(title)}</summary>{inner}</details>"
        case Case(title, right, facts, blocks):
            rows = "".join(f"<dt>{_escape(k)}</dt><dd>{_escape(v)}</dd>" for k, v in facts)
            inner = "".join(to_html(part) for part in blocks)
            mood = "right" if right else "wrong"
            return (
                f'<article class="case {mood}"><h3>{_escape(title)}</h3>'
                f'<dl class="facts">{rows}</dl>{inner}</article>'
            )


def to_markdown(block: Block) -> str:
    """One block as Markdown; charts become their words, folded parts are written out."""
    match block:
        case Text(text):
            return _plain(text)
        case Note(kind, text):
            return f"> **{kind.capitalize()}:** {_plain(text)}"
        case Cards(items):
            return "\n".join(f"- **{_plain(a)}: {_plain(b)}** ({_plain(c)})" for a, b, c in items)
        case Table():
            return _table_markdown(block)
        case Chart(_, caption, alt):
            return f"*Chart in report.html: {_plain(caption)} {_plain(alt)}*"
        case Code(text):
            return "\n".join(f"    {line}" for line in text.splitlines())
        case Folded(title, blocks):
            return "\n\n".join([f"*{_plain(title)}*", *(to_markdown(part) for part in blocks)])
        case Case(title, _, facts, blocks):
            lines = [f"- {_plain(k)}: {_plain(v)}" for k, v in facts]
            return "\n\n".join(
                [f"### {_plain(title)}", "\n".join(lines), *(to_markdown(part) for part in blocks)]
            )


def _table_html(table: Table) -> str:
    classes = [' class="n"' if name.startswith(">") else "" for name in table.columns]
    head = "".join(
        f'<th scope="col"{c}>{_escape(name.lstrip(">"))}</th>'
        for c, name in zip(classes, table.columns, strict=True)
    )
    body = []
    for index, row in enumerate(table.rows):
        cells = "".join(
            f"<td{c}>{_escape(cell)}</td>" for c, cell in zip(classes, row, strict=True)
        )
        mood = "strong" if index in table.strong else "faint" if index in table.faint else ""
        body.append(f'<tr class="{mood}">{cells}</tr>' if mood else f"<tr>{cells}</tr>")
    caption = f"<caption>{_escape(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="table"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _table_markdown(table: Table) -> str:
    lines = [f"{_plain(table.caption)}\n"] if table.caption else []
    lines.append("| " + " | ".join(_cell(name.lstrip(">")) for name in table.columns) + " |")
    marks = ("---:" if name.startswith(">") else "---" for name in table.columns)
    lines.append("| " + " | ".join(marks) + " |")
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """One line that Markdown shows as it is: no raw HTML, no emphasis, link or heading in it."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    for mark in ("\\", "`", "*", "_", "[", "]", "#"):
        escaped = escaped.replace(mark, "\\" + mark)
    return escaped


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
