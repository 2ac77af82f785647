"""The data card as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medexpert.data.card.facts import CardFacts, Sample
from medexpert.data.card.tables import Section, Table, sections, warning


def render_markdown(facts: CardFacts, samples: Sequence[Sample] = ()) -> str:
    """The card of one build; `samples` are shown as given, so a published card gets none.

    Raises UserError when the numbers of the facts do not add up.
    """
    lines = [f"# Data card: {_plain(facts['recipe'])}", ""]
    if warning(facts):
        lines += [f"> **{warning(facts)}**", ""]
    for section in sections(facts):
        lines += _section(section)
    if samples:
        lines += ["## Samples", ""]
    for sample in samples:
        lines += [f"### {_plain(sample['stage'])}/{_plain(sample['source'])}", ""]
        lines += [f"id `{_plain(sample['id'])}`", "", *_quoted(sample["text"]), ""]
    return "\n".join(lines)


def _section(section: Section) -> list[str]:
    lines = [f"## {_plain(section.title)}", ""]
    if section.lead:
        lines += [section.lead, ""]
    for table in section.tables:
        if table.columns == ("",):
            lines += [f"- {_plain(row[0])}" for row in table.rows]
        else:
            lines += _table(table)
        lines.append("")
    return lines


def _table(table: Table) -> list[str]:
    marks = ["---:" if i >= table.numbers else "---" for i in range(len(table.columns))]
    return [_row(table.columns), f"| {' | '.join(marks)} |", *map(_row, table.rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    """Text that can break neither a table nor a line, and holds no HTML."""
    text = re.sub(r"\s+", " ", text).replace("|", "\\|")
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> list[str]:
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return [f"{fence}text", text, fence]
