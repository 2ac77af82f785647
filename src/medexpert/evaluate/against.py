"""Every strategy of a grid against the grid's first one: paired tests, task by task and in all.

All p values of one grid are one family (Holm), so that the more is tried, the more it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medexpert.evaluate import seeds
from medexpert.evaluate.resume import read_predictions
from medexpert.evaluate.statistics import holm
from medexpert.evaluate.tables import markdown_table, plain_table

if TYPE_CHECKING:
    from medexpert.evaluate.grid import Outcome

ALL = "all tasks"
COLUMNS = (
    "task", "strategy", ">n", ">difference", ">95 %", ">gained", ">lost", ">p", ">Holm's p",
    ">detectable",
)  # fmt: skip


@dataclass(frozen=True)
class Against:
    """One strategy minus the first, on the questions of a task or of all tasks together."""

    task: str
    strategy: str
    found: seeds.SeededDifference
    holm: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def against_first(outcomes: Sequence[Outcome]) -> list[Against]:
    """Rows of each task, then of all tasks in which the strategy and the first have every seed.

    Differences are shares; p is the exact sign-flip test, which for one seed is exact McNemar.
    Empty where there is one strategy only.
    """
    names = list(dict.fromkeys(outcome.cell.strategy for outcome in outcomes))
    tasks = list(dict.fromkeys(outcome.cell.task.name for outcome in outcomes))
    tables = {(t, s): _table(outcomes, t, s) for t in tasks for s in names}
    pairs: list[tuple[str, str, NDArray[np.int64], NDArray[np.int64]]] = []
    for name in names[1:]:
        shared = []
        for task in tasks:
            one, other = tables[task, names[0]], tables[task, name]
            if one is not None and other is not None:
                pairs.append((task, name, one, other))
                shared.append((one, other))
        if len(shared) > 1:
            first, second = (np.concatenate(side, axis=1) for side in zip(*shared, strict=True))
            pairs.append((ALL, name, first, second))
    found = [seeds.seeded_difference(one, other, seed=0) for _, _, one, other in pairs]
    adjusted = holm([difference.p for difference in found])
    rows = [
        Against(task, name, difference, p)
        for (task, name, _, _), difference, p in zip(pairs, found, adjusted, strict=True)
    ]
    return sorted(rows, key=lambda row: row.task == ALL)


def _table(outcomes: Sequence[Outcome], task: str, strategy: str) -> NDArray[np.int64] | None:
    """[seeds, questions] right or wrong; None when a seed has no result."""
    cells = [o for o in outcomes if (o.cell.task.name, o.cell.strategy) == (task, strategy)]
    if not all(outcome.result for outcome in cells):
        return None
    return seeds.correctness([read_predictions(outcome.cell.folder) for outcome in cells])


def _rows(found: Sequence[Against]) -> list[list[str]]:
    return [
        [
            row.task, row.strategy, str(row.found.n), f"{100 * row.found.difference:+.1f}",
            f"{100 * row.found.interval.low:+.1f} to {100 * row.found.interval.high:+.1f}",
            str(row.found.gained), str(row.found.lost), f"{row.found.p:.2g}", f"{row.holm:.2g}",
            "–" if row.found.detectable is None else f"{100 * row.found.detectable:.1f}",
        ]
        for row in found
    ]  # fmt: skip


def _under(found: Sequence[Against], first: str) -> str:
    return (
        f"Points of accuracy against {first} on the same questions; exact sign-flip test (one "
        f"seed: exact McNemar), Holm over the {len(found)} rows; detectable: the smallest "
        "difference with p < .05 at as many changed questions."
    )


def plain(found: Sequence[Against], first: str) -> str:
    """What the terminal shows; "" when nothing can be compared."""
    return f"{plain_table(COLUMNS, _rows(found))}\n{_under(found, first)}" if found else ""


def markdown(found: Sequence[Against], first: str) -> str:
    """The same as Markdown."""
    return f"{markdown_table(COLUMNS, _rows(found))}\n\n{_under(found, first)}\n" if found else ""
