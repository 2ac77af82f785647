"""The data card as one HTML file: drawings inline, no script, nothing fetched, dark and light."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from medexpert.data.card.bars import histogram, shares
from medexpert.data.card.facts import CardFacts, Sample
from medexpert.data.card.flow import flows, summed
from medexpert.data.card.sankey import sankey
from medexpert.data.card.tables import Section, Table, sections, warning

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1d2430; --quiet: #5a6474;
  --line: #d9dee6; --shade: #f4f6f9; --kept: #2f6fb0; --target: #a9b4c2; --heldout: #2a9d8f;
  --refused: #8e5bb5; --duplicates: #c98a1b; --quarantined: #c2383a; --dropped: #8a8f98;
  --faults: #4c5058; --source: #5a6474; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181f; --ink: #e6e9ee; --quiet: #9aa5b4;
  --line: #2c3440; --shade: #1b212a; --kept: #6aa9e6; --target: #566170; --heldout: #4cc3b3;
  --refused: #b78be0; --duplicates: #e0ad4e; --quarantined: #ef6d6f; --dropped: #8f97a3;
  --faults: #c4c9d1; --source: #9aa5b4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0 .75rem; color: var(--quiet); max-width: 46rem; }
.warning { border-left: 4px solid var(--quarantined); padding: .5rem .75rem; color: var(--ink);
  background: var(--shade); font-weight: 600; }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; margin: 1rem 0; padding: 0;
  list-style: none; }
.figures b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.figures span { color: var(--quiet); font-size: .85rem; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .85rem; min-width: 50%; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; min-width: 5rem; }
td:not(.n) { min-width: 8rem; }
th { color: var(--quiet); font-weight: 600; overflow-wrap: normal; }
th:first-child, td:first-child { white-space: nowrap; }
th:only-child, td:only-child { white-space: normal; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
details summary { cursor: pointer; color: var(--quiet); }
svg { display: block; width: 100%; height: auto; margin: .5rem 0 1rem; }
svg.bars { max-width: 45rem; }
svg.sankey { min-width: 40rem; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .number { fill: var(--quiet); }
.band { fill: none; stroke-opacity: .35; } .band:hover { stroke-opacity: .7; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--shade); padding: .75rem;
  font-size: .85rem; }
"""
_KINDS = (
    "source",
    "kept",
    "target",
    "heldout",
    "refused",
    "duplicates",
    "quarantined",
    "dropped",
    "faults",
)
_FOLDED = ("Inputs", "Settings", "Versions")


def render_html(facts: CardFacts, samples: Sequence[Sample] = ()) -> str:
    """The card of one build as a page; `samples` are shown as given: a published card gets none.

    Raises UserError when the numbers of the facts do not add up.
    """
    colours = "".join(
        f".bar.{kind} {{ fill: var(--{kind}); }} .band.{kind} {{ stroke: var(--{kind}); }}\n"
        for kind in _KINDS
    )
    title = f"Data card: {escape(facts['recipe'])}"
    parts = [f"<h1>{title}</h1>", _figures(facts)]
    if warning(facts):
        parts.insert(1, f'<p class="warning">{escape(warning(facts))}</p>')
    parts += [_section(section, facts) for section in sections(facts)]
    if samples:
        parts.append("<h2>Samples</h2>")
    parts += [_sample(sample) for sample in samples]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}{colours}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _figures(facts: CardFacts) -> str:
    """The four numbers that a reader wants first."""
    rows = flows(facts)
    shown = (
        (sum(row.read for row in rows), "documents read"),
        (sum(row.out["quarantined"] for row in rows), "quarantined"),
        (sum(row.records for row in rows), "records written"),
        (sum(row.characters for row in rows), "characters written"),
    )
    items = "".join(f"<li><b>{number:,}</b><span>{name}</span></li>" for number, name in shown)
    return f'<ul class="figures">{items}</ul>'


def _section(section: Section, facts: CardFacts) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.lead:
        parts.append(f"<p>{escape(section.lead)}</p>")
    if section.figure:
        parts.append(_figure(section, facts))
    tables = "".join(map(_table, section.tables))
    if section.title in _FOLDED:
        tables = f"<details><summary>Show</summary>{tables}</details>"
    return "\n".join([*parts, tables])


def _figure(section: Section, facts: CardFacts) -> str:
    kind, _, stage = section.figure.partition(":")
    if kind == "flow":
        return f'<div class="wide">{sankey(flows(facts))}</div>'
    if kind == "mix":
        sources = facts["stages"][stage]["sources"]
        rows = [(name, one["target"], one["realised"]) for name, one in sources.items()]
        return shares(rows, section.title)
    counts = summed(facts["stages"][stage], kind)
    if kind == "languages":
        return histogram(
            [(key or "not stated", n) for key, n in counts.most_common()], section.title
        )
    bins = [1 << i for i in range(int(min(counts, key=int)).bit_length() - 1, 40)]
    last = max(map(int, counts))
    return histogram([(f"{b:,}", counts[str(b)]) for b in bins if b <= last], section.title)


def _table(table: Table) -> str:
    if table.columns == ("",):
        items = "".join(f"<li>{escape(row[0])}</li>" for row in table.rows)
        return f"<ul>{items}</ul>"
    head = _row("th", table.columns, table.numbers)
    body = "".join(_row("td", row, table.numbers) for row in table.rows)
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _row(tag: str, cells: Sequence[str], numbers: int) -> str:
    marks = [' class="n"' if place >= numbers else "" for place in range(len(cells))]
    inside = "".join(f"<{tag}{m}>{escape(c)}</{tag}>" for m, c in zip(marks, cells, strict=True))
    return f"<tr>{inside}</tr>"


def _sample(sample: Sample) -> str:
    name = f"{sample['stage']}/{sample['source']} {sample['id']}"
    return f"<h3>{escape(name)}</h3><pre>{escape(sample['text'])}</pre>"
