"""The declared comparisons of a run and their tests."""

from __future__ import annotations

from dataclasses import dataclass

from medexpert.evaluate.compare import Comparison, comparison
from medexpert.evaluate.report.blocks import Block, Note, Section, Table, Text
from medexpert.evaluate.report.facts import Result, RunFacts
from medexpert.evaluate.report.formats import p_value, percent, signed, signed_span
from medexpert.evaluate.statistics import holm
from medexpert.records import UserError

COLUMNS = (
    "Comparison",
    ">n",
    ">gained, lost",
    ">Δ accuracy, points",
    ">95 % (paired bootstrap)",
    ">Δ macro-F1",
    ">95 %",
    ">McNemar p",
    ">Holm p",
    ">detectable, points",
)


@dataclass(frozen=True)
class Contrast:
    """One declared comparison and what came of it: a Comparison, or the reason of the refusal."""

    name: str
    outcome: Comparison | str


@dataclass(frozen=True)
class Family:
    """Comparisons fixed by `rule` before any result is known, adjusted together by Holm."""

    rule: str
    contrasts: tuple[Contrast, ...]


def families(facts: RunFacts) -> list[Family]:
    """Of each strategy the stages (at most 5 comparisons over four points), then every other
    strategy against `direct` at each point (at most 4). Families without a pair are left out."""
    found = [_stages(facts, strategy) for strategy in facts.strategies]
    found += [_against_direct(facts, s) for s in facts.strategies if s != "direct"]
    return [family for family in found if family.contrasts]


def _stages(facts: RunFacts, strategy: str) -> Family:
    results = [r for point in facts.points if (r := facts.result(point, strategy))]
    pairs = [
        (one, other)
        for number, other in enumerate(results[1:], 1)
        for one in dict.fromkeys((number - 1, 0))
    ]
    rule = f"{strategy}: each stage with the point before it and with {results[0].point}"
    return Family(
        rule,
        tuple(
            Contrast(f"{results[one].point} → {other.point}", try_comparison(results[one], other))
            for one, other in pairs
        ),
    )


def _against_direct(facts: RunFacts, strategy: str) -> Family:
    made = []
    for point in facts.points:
        direct, other = facts.result(point, "direct"), facts.result(point, strategy)
        if direct and other:
            name = f"at {point}: direct → {strategy}"
            made.append(Contrast(name, try_comparison(direct, other)))
    return Family(f"{strategy} against direct, at each point", tuple(made))


def try_comparison(one: Result, other: Result) -> Comparison | str:
    """The second result against the first, or why they cannot be compared."""
    try:
        return comparison(one.folder, other.folder)
    except UserError as error:
        return error.what


def significance(facts: RunFacts) -> Section | None:
    """Exact McNemar of every declared contrast, a table a family; None when there is no pair."""
    declared = families(facts)
    if not declared:
        return None
    blocks: list[Block] = [
        Text(
            "Each row compares answers to the same questions. Gained and lost count the questions "
            "whose correctness changed. The last column is the smallest difference that exact "
            "McNemar would call p < .05 at that many changed questions. Holm adjusts within a "
            "table, not across tables."
        )
    ]
    for family in declared:
        blocks += _family_blocks(family)
    return Section("Is the change real?", "tests", blocks)


def _family_blocks(family: Family) -> list[Block]:
    """The family's table, and a note for each comparison that was refused."""
    tested = [(c.name, c.outcome) for c in family.contrasts if isinstance(c.outcome, Comparison)]
    adjusted = holm([outcome.mcnemar.p for _, outcome in tested])
    rows = [_row(name, outcome, p) for (name, outcome), p in zip(tested, adjusted, strict=True)]
    blocks: list[Block] = []
    if rows:
        caption = (
            f"Family: {family.rule}; declared before the results. Holm adjusts over its "
            f"{len(rows)} tested comparisons. Bold: Holm p < .05."
        )
        strong = frozenset(i for i, p in enumerate(adjusted) if p < 0.05)
        blocks.append(Table(COLUMNS, rows, caption, strong=strong))
    for contrast in family.contrasts:
        if isinstance(contrast.outcome, str):
            reason = f"{contrast.name} not tested ({family.rule}): {contrast.outcome}."
            blocks.append(Note("info", reason))
    return blocks


def _row(name: str, outcome: Comparison, adjusted: float) -> list[str]:
    least = outcome.minimum_detectable_difference
    change, span = outcome.macro_f1_difference, outcome.macro_f1_interval
    return [
        name,
        str(outcome.n),
        f"+{outcome.mcnemar.gained} −{outcome.mcnemar.lost}",
        signed(outcome.accuracy_difference),
        signed_span(outcome.accuracy_interval.low, outcome.accuracy_interval.high),
        signed(change) if change is not None else "–",
        signed_span(span.low, span.high) if span is not None else "–",
        p_value(outcome.mcnemar.p),
        p_value(adjusted),
        percent(least) if least is not None else "none",
    ]
