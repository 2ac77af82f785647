"""Hits counted by file and benchmark, with examples: identifiers, no sentence of a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from medexpert.data.quarantine.match import KINDS, Hit

EXAMPLES = 5
WIDESPREAD = 8
"""An item that this many records of a file hold, each but a small part of it, is likely quoted
boilerplate of that file ("these resources address the diagnosis or management of ..."): reported by
name, and still a hit."""
SMALL = 0.1
"""Score below which a 13-gram hit is a phrase of a long text, not the text."""


@dataclass(frozen=True)
class Found:
    """A hit and where: file, line (or row number), the record's own id."""

    file: str
    line: int
    record: str
    hit: Hit

    def row(self) -> dict[str, Any]:
        """As an object of the JSON report."""
        at = {"file": self.file, "line": self.line, "record": self.record}
        return at | asdict(self.hit)


@dataclass
class _Cell:
    kinds: Counter[str] = field(default_factory=Counter)
    records: set[tuple[int, str]] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    phrases: Counter[str] = field(default_factory=Counter)
    examples: list[Found] = field(default_factory=list)
    small: int = 0


class Tally:
    """Counts by (file, benchmark)."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], _Cell] = {}
        self.guarded: dict[str, Counter[str]] = {}

    def add(self, found: Iterable[Found]) -> None:
        """Count hits."""
        for one in found:
            hit = one.hit
            cell = self.cells.setdefault((one.file, hit.benchmark), _Cell())
            cell.kinds[hit.kind] += 1
            cell.records.add((one.line, one.record))
            cell.items.add(hit.item)
            if hit.kind == "13gram" and hit.score < SMALL:
                cell.small += 1
                cell.phrases[hit.item] += 1
            cell.examples.append(one)
            if len(cell.examples) > 4 * EXAMPLES:
                cell.examples = _strongest(cell.examples)

    def guard(self, file: str, counts: Mapping[str, int]) -> None:
        """Count records of a file that share boilerplate only."""
        self.guarded.setdefault(file, Counter()).update(counts)

    def rows(self) -> list[dict[str, Any]]:
        """One object a file and benchmark, JSON-ready, in order of file and benchmark."""
        keys = set(self.cells)
        keys |= {(file, name) for file, counts in self.guarded.items() for name in counts}
        rows = []
        for file, benchmark in sorted(keys):
            cell = self.cells.get((file, benchmark), _Cell())
            wide = [item for item, n in cell.phrases.most_common() if n >= WIDESPREAD]
            rows.append(
                {
                    "file": file,
                    "benchmark": benchmark,
                    "records": len(cell.records),
                    "items": len(cell.items),
                    "kinds": {kind: cell.kinds[kind] for kind in KINDS if cell.kinds[kind]},
                    "phrases": cell.small,
                    "widespread": wide,
                    "guarded": self.guarded.get(file, Counter())[benchmark],
                    "examples": [one.row() for one in _strongest(cell.examples)],
                }
            )
        return rows

    def lines(self) -> list[str]:
        """The report as text, a block a file and benchmark."""
        lines = []
        for row in self.rows():
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in row["kinds"].items())
            lines.append(
                f"{row['file']} | {row['benchmark']}: {row['records']:,} records hold "
                f"{row['items']:,} items" + (f" ({kinds})" if kinds else "")
            )
            if row["phrases"]:
                lines.append(
                    f"  {row['phrases']:,} of the 13-gram hits share less than {SMALL:.0%} of the "
                    "benchmark's text"
                )
            if row["widespread"]:
                lines.append(
                    f"  probably phrases of this file's own (an item in {WIDESPREAD} or more "
                    "records): " + ", ".join(row["widespread"][:EXAMPLES])
                )
            if row["guarded"]:
                lines.append(
                    f"  not counted: {row['guarded']:,} records share a run of 13 words that is "
                    "boilerplate of the benchmark"
                )
            lines += [
                f"  line {one['line']} (record {one['record']}): item {one['item']}, "
                f"{one['kind']}{' of the ' + one['role'] if one['role'] else ''}, "
                f"score {one['score']:.2f}"
                for one in row["examples"]
            ]
        return lines


def _strongest(found: list[Found]) -> list[Found]:
    order = sorted(found, key=lambda one: (KINDS.index(one.hit.kind), -one.hit.score, one.line))
    return order[:EXAMPLES]
