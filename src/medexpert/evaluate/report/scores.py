"""Sections about the benchmark: headline, stage by stage, tests, confusion, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medexpert.evaluate.compare import Comparison
from medexpert.evaluate.report import charts
from medexpert.evaluate.report.blocks import (
    Block,
    Cards,
    Chart,
    Note,
    Section,
    Table,
    Text,
)
from medexpert.evaluate.report.contrasts import try_comparison
from medexpert.evaluate.report.facts import Result, RunFacts
from medexpert.evaluate.report.formats import p_value, percent, signed, span


def headline(facts: RunFacts) -> Section:
    """Warnings and the few numbers that a reader came for."""
    blocks: list[Block] = []
    if any(r.data["task"] == "trialgen" for r in facts.results):
        blocks.append(
            Note(
                "warning",
                "The benchmark of this run is trialgen: imaginary trials written by a program. The "
                "numbers show that the machinery works. They are not a medical result and say "
                "nothing about PubMedQA or any other benchmark.",
            )
        )
    blocks.append(
        Note(
            "warning",
            "Not for clinical use. This is a research model; its answers must not guide the "
            "care of anyone.",
        )
    )
    if facts.missing:
        blocks.append(
            Note("info", "This report is partial. Missing: " + "; ".join(facts.missing) + ".")
        )
    leaky = [result.point for result in facts.results if result.data.get("leaks")]
    if leaky:
        blocks.append(
            Note(
                "warning",
                "Leaks were allowed: the data of " + ", ".join(dict.fromkeys(leaky)) + " was not "
                "checked against this benchmark. Its scores are no evidence of what the model can "
                "do.",
            )
        )
    blocks += [Note("warning", line) for line in map(_constant, facts.results) if line]
    if facts.results:
        blocks.append(Cards(_cards(facts)))
    return Section("", "top", blocks)


def _constant(result: Result) -> str:
    """A warning when one answer was given to every question: its accuracy shows no knowledge."""
    given = [label for label, n in result.data["histogram"].items() if n]
    if len(given) != 1 or result.data["n"] < 2:
        return ""
    return (
        f"{result.point} with {result.strategy} answered “{given[0]}” to every question: its "
        "accuracy is that label's share of the questions, not knowledge, and any gain in accuracy "
        "over another point has to be read so."
    )


def _cards(facts: RunFacts) -> list[tuple[str, str, str]]:
    strategy, point = facts.strategies[0], facts.points[-1]
    chosen = facts.result(point, strategy) or facts.results[-1]
    data = chosen.data
    where = f"{chosen.point}, {chosen.strategy}, {data['protocol']}, n = {data['n']}"
    macro, macro_span = _macro_f1(data)
    cards = [
        (
            f"{data['task']} accuracy",
            f"{percent(data['accuracy'])} %",
            f"95 % interval {span(data['accuracy_interval'])} · {where}",
        ),
        *([("Macro-F1", f"{macro} %", f"95 % interval {macro_span}")] if macro != "–" else []),
        (
            f"Always “{data['majority_baseline']['label']}”",
            f"{percent(data['majority_baseline']['accuracy'])} %",
            "what the most frequent label alone scores",
        ),
    ]
    base = facts.result("base", chosen.strategy)
    if base is not None and base is not chosen:
        outcome = try_comparison(base, chosen)
        if isinstance(outcome, Comparison):
            cards.insert(
                1,
                (
                    "Change from base, points",
                    signed(outcome.accuracy_difference),
                    f"exact McNemar p {_equals(outcome.mcnemar.p)}, not adjusted · "
                    f"+{outcome.mcnemar.gained} −{outcome.mcnemar.lost} questions · "
                    f"{_detectable(outcome)}",
                ),
            )
    return cards


def _macro_f1(data: Mapping[str, Any]) -> tuple[str, str]:
    """Macro-F1 and its interval in percent; "–" where the classes are letters: it means nothing."""
    if data.get("labels") == "letters":
        return "–", "–"
    return percent(data["macro_f1"]), span(data["macro_f1_interval"])


def _classes(facts: RunFacts) -> list[str]:
    """The task's choices; where each question has its own, the letters that count them."""
    named = [r.data["choices"] or r.data["gold_histogram"] for r in facts.results]
    return list(dict.fromkeys(label for labels in named for label in labels))


def _detectable(outcome: Comparison) -> str:
    least = outcome.minimum_detectable_difference
    if least is None:
        return "no change detectable with so few changed"
    return f"detectable from {percent(least)}"


def _equals(p: float) -> str:
    return p_value(p) if p < 0.0001 else f"= {p_value(p)}"


def stage_by_stage(facts: RunFacts) -> Section:
    """The main table: every point and strategy with n, protocol and intervals."""
    choices = _classes(facts)
    columns = [
        "Point",
        "Strategy",
        "Protocol",
        ">n",
        ">Accuracy %",
        ">95 % (Wilson)",
        ">Macro-F1 %",
    ]
    columns += [
        ">95 % (bootstrap)",
        *(f">recall {c} %" for c in choices),
        ">answered " + "/".join(choices),
    ]
    columns += [">unparsed", ">refused"]
    rows: list[list[str]] = []
    faint: set[int] = set()
    for digest_, group in _by_items(facts.results).items():
        for result in group:
            rows.append(_score_row(result, choices))
        faint.add(len(rows))
        rows.append(_majority_row(group[0], choices, digest_))
    task = facts.results[0].data
    text = (
        f"Task {task['task']} version {task['task_version']}, split {task['split']}, seed "
        f"{task['seed']}. {task.get('task_note', '')}."
    )
    if rule := next((r.data["limit_rule"] for r in facts.results if r.data.get("limit_rule")), ""):
        text += f" Where n is below the split's size, a sample was asked: {rule}."
    blocks: list[Block] = [Text(text), _stage_figure(facts)]
    blocks.append(
        Table(
            columns,
            rows,
            "Accuracy: Wilson interval. Macro-F1: percentile bootstrap over questions, 10,000 "
            "resamples. Unparsed answers and refused questions count as wrong and, under the "
            "official rule, as a class of their own in macro-F1.",
            faint=frozenset(faint),
        )
    )
    loose = [r for r in facts.results if r.data["official"] and not r.data["official_complete"]]
    for result in loose:
        blocks.append(
            Note(
                "info",
                f"{result.point}, {result.strategy}: {result.data['official_missing']} questions "
                "have no answer, so predictions.json is not a complete official submission.",
            )
        )
    return Section("Stage by stage", "stages", blocks)


def headline_text(facts: RunFacts) -> str:
    """One aligned line a result: point, strategy, n, accuracy with interval, macro-F1, and how many
    answers were unparsed, questions refused."""
    data = facts.results[0].data
    rows = [("point", "strategy", "n", "accuracy %", "95 % Wilson", "macro-F1 %", "unparsed",
             "refused")]  # fmt: skip
    for result in facts.results:
        d = result.data
        rows.append(
            (
                result.point,
                result.strategy,
                str(d["n"]),
                percent(d["accuracy"]),
                span(d["accuracy_interval"]),
                _macro_f1(d)[0],
                str(d["unparsed"]),
                str(d.get("refused", 0)),
            )
        )
    base = data["majority_baseline"]
    always = ("majority", f"always {base['label']}", str(data["n"]))
    macro = _macro_f1({**data, "macro_f1": base["macro_f1"]})[0]
    rows.append((*always, percent(base["accuracy"]), "–", macro, "0", "0"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    title = (
        f"{data['task']} version {data['task_version']}, split {data['split']}, {data['protocol']}"
    )
    if data["task"] == "trialgen":
        title += " (imaginary trials: not a medical result)"
    body = (
        "  ".join(
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join([title, *body])


def _by_items(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results grouped by the questions they answered (a limit makes another group)."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.data["split_digest"], []).append(result)
    return groups


def _score_row(result: Result, choices: Sequence[str]) -> list[str]:
    data = result.data
    classes, answered = data["per_class"], data["histogram"]
    return [
        result.point,
        result.strategy,
        data["protocol"],
        str(data["n"]),
        percent(data["accuracy"]),
        span(data["accuracy_interval"]),
        *_macro_f1(data),
        *(
            percent(classes[c]["recall"]) if classes.get(c, {}).get("support") else "–"
            for c in choices
        ),
        " / ".join(str(answered.get(c, 0)) for c in choices),
        f"{data['unparsed']} ({percent(data['unparsed_rate'])} %)" if data["unparsed"] else "0",
        str(data.get("refused", 0)),
    ]


def _majority_row(result: Result, choices: Sequence[str], digest_: str) -> list[str]:
    data, base = result.data, result.data["majority_baseline"]
    gold = data["gold_histogram"]
    return [
        "majority",
        f"always {base['label']}",
        "–",
        str(data["n"]),
        percent(base["accuracy"]),
        "–",
        _macro_f1({**data, "macro_f1": base["macro_f1"]})[0],
        "–",
        *("100.0" if c == base["label"] else "0.0" if gold.get(c) else "–" for c in choices),
        " / ".join(str(data["n"] if c == base["label"] else 0) for c in choices),
        "0",
        "0",
    ]


def _stage_figure(facts: RunFacts) -> Chart:
    series: dict[str, list[charts.Dot | None]] = {}
    words = []
    for strategy in facts.strategies:
        dots: list[charts.Dot | None] = []
        for point in facts.points:
            result = facts.result(point, strategy)
            if result is None:
                dots.append(None)
                continue
            value, interval = result.data["accuracy"], result.data["accuracy_interval"]
            dots.append(charts.Dot(100 * value, 100 * interval["low"], 100 * interval["high"]))
            words.append(f"{strategy} at {point} {percent(value)} %")
        series[strategy] = dots
    shares = {round(r.data["majority_baseline"]["accuracy"], 9) for r in facts.results}
    majority = 100 * shares.pop() if len(shares) == 1 else None
    return Chart(
        charts.stage_chart(facts.points, series, majority),
        "Accuracy after each stage with its 95 % Wilson interval.",
        "; ".join(words) + ".",
    )


def confusion(facts: RunFacts) -> Section:
    """Where the answers went, for every point and strategy."""
    cells = {(r.strategy, r.point): r.data["confusion"] for r in facts.results}
    choices = _classes(facts)
    words = "; ".join(
        f"{r.strategy} at {r.point}: "
        + ", ".join(
            f"gold {g} answered {p} {n}"
            for g, row in r.data["confusion"].items()
            for p, n in row.items()
            if n
        )
        for r in facts.results
    )
    chart = charts.confusion_chart(cells, facts.strategies, facts.points, choices)
    return Section(
        "Which answers",
        "confusion",
        [
            Chart(
                chart,
                "Rows: gold label. Columns: given answer. Tint: share of the row.",
                words + ".",
            )
        ],
    )
