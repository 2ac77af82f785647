"""Sections about how sure the answers were, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medexpert.evaluate.report import charts
from medexpert.evaluate.report.blocks import Block, Chart, Section, Table, Text
from medexpert.evaluate.report.facts import Result, RunFacts
from medexpert.evaluate.report.formats import duration, number, percent

NUMBERS = ("ece_10_equal_mass", "ece_15_equal_width", "classwise_ece_15", "brier", "nll")
COVERAGES = (0.5, 0.8, 1.0)
"""Shares of the questions answered whose error rate stands in the table."""
COST = (
    ("calls", ">calls"),
    ("prompt_tokens", ">prompt tokens"),
    ("prefilled_tokens", ">prefilled"),
    ("generated_tokens", ">decoded"),
)


def calibration(facts: RunFacts) -> Section | None:
    """Calibration and risk-coverage; None when no strategy gave probabilities."""
    known = [r for r in facts.results if r.data.get("calibration")]
    if not known:
        return None
    rows = [_calibration_row(result, result.data["calibration"]) for result in known]
    columns = ["Point", "Strategy", ">n", ">ECE, 10 equal mass", ">ECE, 15 equal width"]
    columns += [">class-wise ECE", ">Brier (0–2)", ">NLL, nats"]
    bins = {(r.strategy, r.point): r.data["calibration"]["bins"] for r in known}
    shown = [s for s in facts.strategies if any(key[0] == s for key in bins)]
    svg = charts.reliability_chart(bins, shown, facts.points)
    caption = "Reliability, ten bins of equal count; on the dashed line confidence equals accuracy."
    blocks: list[Block] = [
        Table(columns, rows, "Lower is better in every column."),
        Chart(svg, caption, "The table above holds the summary numbers."),
        *_coverage(facts, [r for r in known if r.data["calibration"].get("risk_coverage")]),
    ]
    return Section("Calibration", "calibration", blocks)


def _calibration_row(result: Result, found: Mapping[str, Any]) -> list[str]:
    numbers = [f"{found[name]:.3f}" if name in found else "–" for name in NUMBERS]
    return [result.point, result.strategy, str(found.get("n", result.data["n"])), *numbers]


def _coverage(facts: RunFacts, known: list[Result]) -> list[Block]:
    """What withholding the least sure answers would do; older results do not tell."""
    if not known:
        return []
    rows = []
    curves: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in known:
        found = result.data["calibration"]["risk_coverage"]
        curves[result.strategy, result.point] = found["curve"]
        surer = "–" if found["auroc"] is None else f"{found['auroc']:.3f}"
        risks = [_risk_at(found["curve"], share) for share in COVERAGES]
        head = [result.point, result.strategy, str(found["n"])]
        areas = [f"{found['aurc']:.3f}", f"{found['excess_aurc']:.3f}", surer]
        rows.append([*head, *areas, *map(percent, risks)])
    columns = ["Point", "Strategy", ">n", ">AURC", ">above the best order", ">AUROC of confidence"]
    columns += [f">errors %, {share:.0%} answered" for share in COVERAGES]
    shown = [s for s in facts.strategies if any(key[0] == s for key in curves)]
    caption = (
        "Risk-coverage: errors among the surest answers. Lower is better, but for AUROC: the "
        "chance that a right answer is surer than a wrong one."
    )
    return [
        Table(columns, rows, caption),
        Chart(
            charts.coverage_chart(curves, shown, facts.points),
            "Errors among the answers given when the least sure are withheld.",
            "The table above holds three points of each curve.",
        ),
    ]


def _risk_at(curve: list[Mapping[str, Any]], share: float) -> float:
    """The error rate where the share answered is nearest to this one."""
    gaps = [abs(spot["coverage"] - share) for spot in curve]
    return float(curve[gaps.index(min(gaps))]["risk"])


def costs(facts: RunFacts) -> Section | None:
    """Calls, tokens and seconds a question beside the accuracy; None when no result tells."""
    known = [r for r in facts.results if r.data.get("per_question")]
    if not known:
        return None
    rows = []
    for result in known:
        data = result.data
        asked = data["per_question"]
        seconds = float(data["seconds"]) / data["usage"]["questions"]
        money = f"{asked['cost']:.4g}" if asked.get("cost") else "–"
        head = [result.point, result.strategy, str(data["n"]), percent(data["accuracy"])]
        counts = [number(float(asked[name])) for name, _ in COST]
        rows.append([*head, *counts, f"{seconds:.3g}", money, duration(data["seconds"])])
    columns = ["Point", "Strategy", ">n", ">accuracy %", *(name for _, name in COST)]
    columns += [">seconds", ">money", ">all questions"]
    text = (
        "A question costs, on the machine of this run: prompt tokens are what the prompts hold, "
        "prefilled what the engine really encoded of them, decoded what it generated."
    )
    return Section("What an answer costs", "costs", [Text(text), Table(columns, rows)])
