"""How much an accuracy owes to the order of the choices and to what they are called.

A strategy is asked the same questions with their choices in other orders and under other names
(their own words, letters, numbers). What is content stays the same, so every change of an answer is
the format's doing. Each variant is an evaluation of its own, resumable, whose task version names
the variant: it can never be compared with the benchmark by mistake.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np

from medexpert.evaluate.statistics import RESAMPLES, Interval, wilson
from medexpert.evaluate.tasks import Task
from medexpert.prompt.choices import naming
from medexpert.records import NO_ANSWER, Prediction, Question, unknown_name

LABELS: dict[str, Callable[[int], str] | None] = {
    "words": None,
    "letters": lambda index: chr(ord("A") + index),
    "numbers": lambda index: str(index + 1),
}
"""Names of the choices: their own text, or what the index gives beside a list of the texts."""
VERSION = 2
"""Raised when variants are asked otherwise; 1 asked numbers as the texts of A, B, C."""


@dataclass(frozen=True)
class Variant:
    """Choices called by `labels`, in the order number `order` of :func:`orders_of`."""

    labels: str
    order: int

    @property
    def name(self) -> str:
        return f"{self.labels}-{self.order}"


def orders_of(choices: int, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """`count` different orders of so many choices (fewer when there are no more), always the same.

    First the cyclic ones, which put every choice in every place once, the given order leading; then
    others drawn by `seed`.
    """
    base = tuple(range(choices))
    found = [base[k:] + base[:k] for k in range(choices)][:count]
    generator = random.Random(f"orders {seed} {choices}")
    while len(found) < min(count, factorial(choices)):
        drawn = tuple(generator.sample(base, choices))
        if drawn not in found:
            found.append(drawn)
    return found


def varied(question: Question, variant: Variant, order: Sequence[int]) -> Question:
    """The question with its choices in `order` (indices into its own) under the variant's names.

    Under letters and numbers the texts are listed behind the question. Raises UserError for unknown
    names.
    """
    if variant.labels not in LABELS:
        raise unknown_name("names of the choices", variant.labels, LABELS)
    texts = tuple(question.choices[i] for i in order)
    label = LABELS[variant.labels]
    if label is None:
        return replace(question, choices=texts)
    names = tuple(label(i) for i in range(len(texts)))
    listed = "\n".join(f"{name}. {text}" for name, text in zip(names, texts, strict=True))
    return replace(
        question,
        question=f"{question.question}\n{listed}",
        choices=names,
        answer=names[texts.index(question.answer)],
    )


def unlike(
    labels: Sequence[str], questions: Sequence[Question], say: Callable[[str], None]
) -> list[str]:
    """The names, each once, without letters where prompts name the choices by letter anyway.

    The same prompt asked twice would tell that no answer depends on the names.
    """
    found = list(dict.fromkeys(labels))
    lettered = all(naming(question).lettered for question in questions)
    if lettered and {"words", "letters"} <= set(found):
        say("prompts name these choices by letter: letters are not asked beside words")
        found.remove("letters")
    return found


def varied_task(task: Task, variant: Variant, count: int, seed: int = 0) -> Task:
    """The task that asks the variant's questions; never official, of a version of its own."""

    def load(root: Path, split: str) -> list[Question]:
        return [
            varied(question, variant, _order(question, variant, count, seed))
            for question in task.load(root, split)
        ]

    label = LABELS.get(variant.labels)
    names = tuple(label(i) for i in range(len(task.choices))) if label else task.choices
    version = f"{task.version}+{variant.name} of {count} seed {seed} v{VERSION}"
    # Solved examples show the choices' own names: under other names they would contradict.
    examples = task.examples if label is None else None
    return replace(
        task, version=version, choices=names, load=load, official=False, examples=examples
    )


def positions(
    questions: Sequence[Question],
    rows: Sequence[Prediction],
    variant: Variant,
    count: int,
    seed: int = 0,
) -> list[tuple[int | None, int | None]]:
    """(place shown, index among the question's own choices) of each answer; None where none was
    read."""
    found: list[tuple[int | None, int | None]] = []
    for question, row in zip(questions, rows, strict=True):
        order = _order(question, variant, count, seed)
        shown = varied(question, variant, order).choices
        if row.choice == NO_ANSWER:
            found.append((None, None))
        else:
            place = shown.index(row.choice)
            found.append((place, order[place]))
    return found


def summary(
    questions: Sequence[Question],
    rows: Mapping[Variant, Sequence[Prediction]],
    count: int,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """{n, variants, orders by names, names}: accuracies, flips and the pull of each place.

    `variants`: accuracy with Wilson interval of each. `orders`: for each kind of names, over its
    orders, the spread of accuracy, `flip_rate` (mean share of a question's other orders in which it
    is answered otherwise than in the given one), `consistent` (share of questions answered alike in
    all), and `places`. `names`: how often two kinds of names disagree in the given order.
    """
    answers = {v: positions(questions, r, v, count, seed) for v, r in rows.items()}
    told: dict[str, dict[str, Any]] = {
        v.name: {
            "labels": v.labels, "order": v.order, "n": len(r),
            "accuracy": sum(p.correct for p in r) / len(r),
            "interval": asdict(wilson(sum(p.correct for p in r), len(r))),
            "unparsed": sum(p.unparsed for p in r),
            "refused": sum(bool(p.refused) for p in r),
        }
        for v, r in rows.items()
    }  # fmt: skip
    kinds = list(dict.fromkeys(v.labels for v in rows))
    by_kind = {
        kind: _orders(
            questions,
            [answers[v] for v in sorted(rows, key=lambda v: v.order) if v.labels == kind],
            [told[v.name]["accuracy"] for v in rows if v.labels == kind],
            seed,
        )
        for kind in kinds
    }
    return {
        "n": len(questions),
        "variants": told,
        "orders": by_kind,
        "names": [
            {"first": one, "second": other, **_disagreement(answers, one, other)}
            for k, one in enumerate(kinds)
            for other in kinds[k + 1 :]
        ],
    }


def _order(question: Question, variant: Variant, count: int, seed: int) -> tuple[int, ...]:
    found = orders_of(len(question.choices), count, seed)
    return found[variant.order % len(found)]


def _orders(
    questions: Sequence[Question],
    answers: Sequence[Sequence[tuple[int | None, int | None]]],
    accuracies: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """What changing the order alone does; `answers` are [order][question]."""
    spread = {"lowest": min(accuracies), "highest": max(accuracies)}
    if len(answers) < 2:
        return {**spread, "flip_rate": None, "consistent": None, "places": None}
    own = [[content for _, content in row] for row in answers]
    rates = []
    for i, question in enumerate(questions):
        # Two choices have two orders: a third would be the given one again, and never a flip.
        others = own[1 : factorial(len(question.choices))]
        rates.append(sum(row[i] != own[0][i] for row in others) / len(others))
    same = rates.count(0)
    return {
        **spread,
        "flip_rate": sum(rates) / len(rates),
        "flip_interval": asdict(_mean_interval(rates, seed)),
        "consistent": same / len(rates),
        "consistent_interval": asdict(wilson(same, len(rates))),
        "places": _places(questions, answers, seed),
    }


def _places(
    questions: Sequence[Question],
    answers: Sequence[Sequence[tuple[int | None, int | None]]],
    seed: int,
) -> list[dict[str, Any]] | None:
    """Of each place the share of answers it got, less 1/K, with an interval over questions.

    Only the K cyclic orders count, in which every choice stands in every place once, so that
    without a pull of the places each gets 1/K whatever the answers are; only questions with the
    most frequent number of choices, all of whose answers parsed. None when fewer orders were asked.
    """
    width = Counter(len(q.choices) for q in questions).most_common(1)[0][0]
    if len(answers) < width:
        return None
    rows = []
    for i, question in enumerate(questions):
        places = [answers[k][i][0] for k in range(width)]
        if len(question.choices) == width and None not in places:
            rows.append([places.count(j) - 1 for j in range(width)])
    if not rows:
        return None
    return [
        {
            "place": j + 1,
            "n": len(rows),
            "pull": sum(row[j] for row in rows) / (len(rows) * width),
            "interval": asdict(_mean_interval([row[j] / width for row in rows], seed)),
        }
        for j in range(width)
    ]


def _disagreement(
    answers: Mapping[Variant, Sequence[tuple[int | None, int | None]]], one: str, other: str
) -> dict[str, Any]:
    pairs = list(zip(answers[Variant(one, 0)], answers[Variant(other, 0)], strict=True))
    unlike = sum(a[1] != b[1] for a, b in pairs)
    interval = asdict(wilson(unlike, len(pairs)))
    return {"disagree": unlike / len(pairs), "interval": interval}


def _mean_interval(values: Sequence[float], seed: int) -> Interval:
    """Percentile interval of a mean over resampled questions; equal values are drawn together."""
    kinds, sizes = np.unique(np.asarray(values), return_counts=True)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(values), sizes / len(values), size=RESAMPLES)
    low, high = np.quantile(counts @ kinds / len(values), [0.025, 0.975])
    return Interval(float(low), float(high), f"bootstrap percentile, {RESAMPLES} resamples")
