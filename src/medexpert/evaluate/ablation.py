"""What an ablation found: a line a variant and strategy, tested against the reference.

The reference is the first variant. Every variant is compared with it on the same questions, its
seeds averaged by item; Holm adjusts over all comparisons of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.evaluate import seeds
from medexpert.evaluate.compare import MUST_AGREE
from medexpert.evaluate.folders import folder_of
from medexpert.evaluate.grid import costs
from medexpert.evaluate.report.formats import p_value, signed, signed_span
from medexpert.evaluate.resume import read_predictions
from medexpert.evaluate.run import RESULT
from medexpert.evaluate.seeds import Seeded, SeededDifference
from medexpert.evaluate.statistics import holm
from medexpert.evaluate.tables import markdown_table, plain_table
from medexpert.records import UserError

COLUMNS = (
    "variant", "strategy", "point", ">n", ">seeds", ">accuracy %", ">95 %", ">Δ points", ">95 %",
    ">gained, lost", ">p", ">Holm p", ">detectable", ">calls", ">prompt tokens", ">prefilled",
    ">decoded", ">seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One variant with one seed: its run folder, the point that is measured, its strategies.

    `failed` says why it could not be run: what lies in its folder is then of earlier settings.
    """

    variant: str
    seed: int
    root: Path
    point: str
    strategies: tuple[str, ...]
    failed: str = ""

    def folder(self, strategy: str) -> Path:
        """Where its evaluation lies."""
        return self.root / "evaluate" / self.point / folder_of(strategy)


@dataclass(frozen=True)
class Line:
    """A variant under a strategy. `missing` says why there is no number, `untested` why there is no
    comparison ("" for the reference itself)."""

    variant: str
    strategy: str
    point: str
    seeds: tuple[int, ...]
    accuracy: Seeded | None = None
    difference: SeededDifference | None = None
    holm: float | None = None
    costs: tuple[str, ...] = ()
    missing: str = ""
    untested: str = ""


def lines(trials: Sequence[Trial]) -> list[Line]:
    """Every variant in order, each strategy, compared with the first variant.

    A strategy that the reference lacks is compared with the reference's first.
    """
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        for strategy in trial.strategies:
            groups.setdefault((trial.variant, strategy), []).append(trial)
    reference = trials[0]
    found: list[Line] = []
    for (variant, strategy), members in groups.items():
        line = _measured(variant, strategy, members)
        if line.accuracy is not None and members[0].variant != reference.variant:
            against = strategy if strategy in reference.strategies else reference.strategies[0]
            others = [t for t in trials if t.variant == reference.variant]
            line = _compared(line, others, against, members)
        elif line.accuracy is not None and strategy != reference.strategies[0]:
            line = _compared(line, members, reference.strategies[0], members)
        found.append(line)
    tested = [i for i, line in enumerate(found) if line.difference is not None]
    adjusted = holm([d.p for i in tested if (d := found[i].difference) is not None])
    for i, p in zip(tested, adjusted, strict=True):
        found[i] = replace(found[i], holm=p)
    return found


def _folders(trials: Sequence[Trial], strategy: str) -> list[Path]:
    """Where the evaluations lie. Raises UserError for a trial that failed."""
    for trial in trials:
        if trial.failed:
            raise UserError(f"{trial.variant} seed {trial.seed} failed: {trial.failed}")
    return [trial.folder(strategy) for trial in trials]


def _measured(variant: str, strategy: str, members: Sequence[Trial]) -> Line:
    point = members[0].point
    line = Line(variant, strategy, point, tuple(trial.seed for trial in members))
    try:
        folders = _folders(members, strategy)
        results = [_result(folder) for folder in folders]
        table = seeds.correctness([read_predictions(folder) for folder in folders])
    except UserError as error:
        return replace(line, missing=error.what)
    accuracy = seeds.seeded_accuracy(table, seed=0)
    return replace(line, accuracy=accuracy, costs=tuple(costs(results)))


def _compared(line: Line, others: Sequence[Trial], against: str, members: Sequence[Trial]) -> Line:
    try:
        before, after = _folders(others, against), _folders(members, line.strategy)
        results = [_result(folder) for folder in (*before, *after)]
        for name in (*MUST_AGREE, "split_digest"):
            values = {str(result.get(name)) for result in results}
            if len(values) > 1:
                return replace(line, untested=f"{name} differs: {', '.join(sorted(values))}")
        one = [read_predictions(folder) for folder in before]
        other = [read_predictions(folder) for folder in after]
        both = seeds.correctness([*one, *other])
    except UserError as error:
        return replace(line, untested=error.what)
    difference = seeds.seeded_difference(both[: len(one)], both[len(one) :], seed=0)
    return replace(line, difference=difference)


def _result(folder: Path) -> Mapping[str, Any]:
    manifest.verify(folder)
    found: Mapping[str, Any] = manifest.read_json(folder / RESULT)
    return found


def cells(line: Line) -> list[str]:
    """A line as the cells of COLUMNS."""
    head = [line.variant, line.strategy, line.point]
    if line.accuracy is None:
        return [*head, "–", str(len(line.seeds)), "missing", *["–"] * (len(COLUMNS) - 6)]
    a, d = line.accuracy, line.difference
    spread = "" if a.deviation is None else f" ± {100 * a.deviation:.1f}"
    tested = ["–"] * 6
    if d is not None:
        tested = [
            signed(d.difference), signed_span(d.interval.low, d.interval.high),
            f"+{d.gained} −{d.lost}", p_value(d.p),
            "–" if line.holm is None else p_value(line.holm),
            "none" if d.detectable is None else f"{100 * d.detectable:.1f}",
        ]  # fmt: skip
    return [
        *head, str(a.n), str(a.seeds), f"{100 * a.accuracy:.1f}{spread}",
        f"{100 * a.interval.low:.1f}–{100 * a.interval.high:.1f}", *tested, *line.costs,
    ]  # fmt: skip


def notes(found: Sequence[Line]) -> list[str]:
    """What the table cannot say: how it was tested, what is missing and why."""
    several = any(len(line.seeds) > 1 for line in found)
    test = "exact sign-flip test on seeds averaged by item" if several else "exact McNemar"
    tested = sum(line.difference is not None for line in found)
    told = [
        f"Δ against {found[0].variant}, {found[0].strategy}, on the same questions; p: {test}; "
        f"Holm over the {tested} comparisons of this table; detectable: the smallest difference, "
        "in points, that the test would call p < .05 with as many changed questions. Calls, tokens "
        "and seconds are a question."
    ]
    told += [f"missing: {x.variant} {x.strategy}: {x.missing}" for x in found if x.missing]
    told += [f"not compared: {x.variant} {x.strategy}: {x.untested}" for x in found if x.untested]
    return told


def as_text(found: Sequence[Line]) -> str:
    """Table and notes for the terminal."""
    return "\n".join([plain_table(COLUMNS, [cells(line) for line in found]), *notes(found)])


def write(found: Sequence[Line], out: Path, *, title: str) -> list[Path]:
    """OUT/ablation.md, ablation.json and, when anything was measured, the plots."""
    from medexpert.evaluate.ablation_plots import draw

    table = markdown_table(COLUMNS, [cells(line) for line in found])
    pages = [f"# {title}", table, *notes(found)]
    plots = draw(found, out) if any(line.accuracy for line in found) else []
    pages += [f"![{plot.stem}]({plot.name})" for plot in plots]
    manifest.write_text(out / "ablation.md", "\n\n".join(pages) + "\n")
    manifest.write_json(out / "ablation.json", {"lines": [asdict(line) for line in found]})
    return [out / "ablation.md", out / "ablation.json", *plots]
