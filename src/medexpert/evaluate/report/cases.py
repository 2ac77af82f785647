"""Example answers, right and wrong, chosen by a fixed rule and shown with their trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medexpert.evaluate.report.blocks import Block, Case, Code, Folded, Section, Text
from medexpert.evaluate.report.facts import Result, RunFacts, examples
from medexpert.evaluate.report.formats import percent
from medexpert.records import NO_ANSWER, Prediction

LONGEST = 4_000
"""Characters of a trace shown in the report; predictions.jsonl holds all of it."""


def example_answers(facts: RunFacts) -> Section | None:
    """Up to two right, two wrong and one without a choice of the last point, by a fixed rule."""
    cases: list[Block] = []
    for strategy in facts.strategies:
        last = [r for r in facts.results if r.strategy == strategy][-1]
        pool = examples(last)
        right = [pair for pair in pool if pair[1].correct][:2]
        wrong = [p for p in pool if not p[1].correct and p[1].choice != NO_ANSWER][:2]
        unparsed = [pair for pair in pool if pair[1].choice == NO_ANSWER][:1]
        for item, answer in (*right, *wrong, *unparsed):
            cases.append(_case(facts, last, item, answer))
    if not cases:
        return None
    rule = (
        "Not chosen by hand: the questions are taken in the order of the SHA-256 of their id, and "
        "the first two right, two wrong and one without a choice (unparsed or refused) among the "
        "first 40 are shown for the last point of each strategy."
    )
    return Section("Example answers", "examples", [Text(rule), *cases])


def left_out() -> Section:
    """What stands in place of the examples in a report that may be published."""
    note = "Left out of this report, which holds no text of the benchmark."
    return Section("Example answers", "examples", [Text(note)])


def _case(facts: RunFacts, last: Result, item: Mapping[str, Any], answer: Prediction) -> Case:
    path = []
    for point in facts.points:
        result = facts.result(point, last.strategy)
        if result is not None:
            given = {row.id: row.choice for _, row in examples(result)}.get(answer.id)
            if given:
                path.append(f"{point}: {given}")
    shown = [("Gold", answer.answer), ("Answered", answer.choice), ("By stage", " → ".join(path))]
    if answer.probabilities:
        shares = (f"{name} {percent(p)} %" for name, p in answer.probabilities.items())
        shown.append(("Probabilities", ", ".join(shares)))
    shown.append(("Item", f"{answer.id} · {last.strategy} at {last.point}"))
    blocks: list[Block] = []
    rationales = answer.trace.get("rationales")
    if isinstance(rationales, Mapping):
        blocks += [Text(f"[{name}] {_as_text(text)}") for name, text in rationales.items()]
    if item.get("contexts"):
        blocks.append(Folded("Abstract", [Text(part) for part in item["contexts"]]))
    trace = json.dumps(answer.trace, ensure_ascii=False, indent=1)
    if len(trace) > LONGEST:
        trace = f"{trace[:LONGEST]}\n… cut here; predictions.jsonl has {len(trace)} characters"
    if answer.trace:
        blocks.append(Folded("Trace", [Code(trace)]))
    return Case(str(item["question"]), answer.correct, shown, blocks)


def _as_text(value: object) -> str:
    """A rationale as prose: strategies keep it as text or as {text, ...}."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        return str(value["text"])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
