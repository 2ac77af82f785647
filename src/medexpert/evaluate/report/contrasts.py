"""The declared comparisons of a run and their tests."""

from __future__ import annotations

from dataclasses import dataclass

from medexpert.evaluate.compare import Comparison, comparison
from medexpert.evaluate.report.blocks import Block, Note, Section, Table, Text
from medexpert.evaluate.report.facts import Result, RunFacts
from medexpert.evaluate.report.formats import p_value, percent, signed, signed_span
from medexpert.evaluate.statistics import holm
from medexpert.records import UserError


@dataclass(frozen=True)
class Contrast:
    """One declared comparison and what came of it: a Comparison, or the reason of the refusal."""

    name: str
    group: str
    outcome: Comparison | str


def contrasts(facts: RunFacts) -> list[Contrast]:
    """Declared comparisons: a stage with the one before and with base; a strategy with direct."""
    found = []
    for strategy in facts.strategies:
        points = [p for p in facts.points if facts.result(p, strategy)]
        pairs = dict.fromkeys(
            pair
            for i, point in enumerate(points[1:], 1)
            for pair in ((points[i - 1], point), (points[0], point))
        )
        for first, second in pairs:
            one, other = facts.result(first, strategy), facts.result(second, strategy)
            if one and other:
                name = f"{first} → {second}"
                found.append(Contrast(name, strategy, try_comparison(one, other)))
    for point in facts.points:
        direct = facts.result(point, "direct")
        for strategy in facts.strategies:
            other = facts.result(point, strategy)
            if direct and other and strategy != "direct":
                found.append(
                    Contrast(f"direct → {strategy}", f"at {point}", try_comparison(direct, other))
                )
    return found


def try_comparison(one: Result, other: Result) -> Comparison | str:
    try:
        return comparison(one.folder, other.folder)
    except UserError as error:
        return error.what


def significance(facts: RunFacts) -> Section | None:
    """Exact McNemar of every declared contrast, adjusted together; None when there is no pair."""
    declared = contrasts(facts)
    if not declared:
        return None
    tested = [(c, c.outcome) for c in declared if isinstance(c.outcome, Comparison)]
    adjusted = holm([outcome.mcnemar.p for _, outcome in tested])
    rows: list[list[str]] = []
    strong: set[int] = set()
    for (contrast, outcome), p in zip(tested, adjusted, strict=True):
        if p < 0.05:
            strong.add(len(rows))
        least = outcome.minimum_detectable_difference
        rows.append(
            [
                contrast.name,
                contrast.group,
                str(outcome.n),
                f"+{outcome.mcnemar.gained} −{outcome.mcnemar.lost}",
                signed(outcome.accuracy_difference),
                signed_span(outcome.accuracy_interval.low, outcome.accuracy_interval.high),
                signed(outcome.macro_f1_difference),
                signed_span(outcome.macro_f1_interval.low, outcome.macro_f1_interval.high),
                p_value(outcome.mcnemar.p),
                p_value(p),
                percent(least) if least is not None else "none",
            ]
        )
    blocks: list[Block] = [
        Text(
            "Each row compares answers to the same questions. Gained and lost count the questions "
            "whose correctness changed. The last column is the smallest difference that exact "
            "McNemar would call p < .05 at that many changed questions."
        )
    ]
    if rows:
        columns = ["Comparison", "Strategy or point", ">n", ">gained, lost", ">Δ accuracy, points"]
        columns += [">95 % (paired bootstrap)", ">Δ macro-F1", ">95 %", ">McNemar p", ">Holm p"]
        columns += [">detectable, points"]
        caption = (
            f"Holm adjusts over the {len(rows)} comparisons of this table. Bold: Holm p < .05."
        )
        blocks.append(Table(columns, rows, caption, strong=frozenset(strong)))
    for contrast in declared:
        if isinstance(contrast.outcome, str):
            blocks.append(
                Note("info", f"{contrast.name} ({contrast.group}) not tested: {contrast.outcome}.")
            )
    return Section("Is the change real?", "tests", blocks)
