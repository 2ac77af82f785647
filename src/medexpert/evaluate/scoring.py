"""Answers -> every number of result.json that follows from them alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medexpert.evaluate import metrics, refusals, statistics
from medexpert.evaluate.coverage import risk_coverage
from medexpert.prompt.options import LETTERS
from medexpert.records import NO_ANSWER, Prediction, Question


def by_letters(
    predictions: Sequence[Prediction], questions: Sequence[Question]
) -> tuple[list[Prediction], tuple[str, ...]]:
    """The same answers named A, B, ... by the place of the choices, and the letters in use.

    For tasks without common choices: choice, answer and the keys of `probabilities` become letters.
    """
    asked = {question.id: question.choices for question in questions}
    found = []
    for row in predictions:
        name = dict(zip(asked[row.id], LETTERS, strict=False)) | {NO_ANSWER: NO_ANSWER}
        shares = {name[c]: row.probabilities[c] for c in asked[row.id]} if row.probabilities else {}
        found.append(
            replace(row, choice=name[row.choice], answer=name[row.answer], probabilities=shares)
        )
    return found, tuple(LETTERS[: max(len(choices) for choices in asked.values())])


def score(
    predictions: Sequence[Prediction],
    choices: Sequence[str],
    *,
    seed: int,
    questions: Sequence[Question] = (),
) -> dict[str, Any]:
    """Every number of result.json that follows from the answers alone.

    NO_ANSWER counts as wrong: `unparsed` where the model said something else, `refused` where the
    engine gave no answer (`refusals.py`). `macro_f1` follows the official rule, under which it is a
    class of its own with F1 0; `macro_f1_choices` averages over the choices only. Without common
    `choices` the classes are letters (`labels` says so): the histogram and the confusion then show
    a liking for a place, and macro-F1 says nothing about medicine.
    """
    labels = "choices" if choices else "letters"
    if not choices:
        predictions, choices = by_letters(predictions, questions)
    truth = [p.answer for p in predictions]
    given = [p.choice for p in predictions]
    correct = sum(p.correct for p in predictions)
    unparsed = sum(p.unparsed for p in predictions)
    return {
        "n": len(predictions),
        "labels": labels,
        "correct": correct,
        "accuracy": metrics.accuracy(truth, given),
        "accuracy_interval": asdict(statistics.wilson(correct, len(predictions))),
        "accuracy_interval_bootstrap": asdict(
            statistics.bootstrap_accuracy(truth, given, seed=seed)
        ),
        "macro_f1": metrics.macro_f1(truth, given),
        "macro_f1_interval": asdict(statistics.bootstrap_macro_f1(truth, given, seed=seed)),
        "macro_f1_choices": metrics.macro_f1_over(choices, truth, given),
        "per_class": metrics.per_class(truth, given),
        "histogram": metrics.histogram(given, choices),
        "gold_histogram": metrics.histogram(truth, choices),
        "confusion": metrics.confusion(truth, given),
        "unparsed": unparsed,
        "unparsed_rate": unparsed / len(predictions),
        "refused": sum(bool(p.refused) for p in predictions),
        **refusals.passed_over(predictions),
        **_read(predictions),
        "calibration": _calibration(predictions),
        "majority_baseline": metrics.majority_baseline(truth),
        "tokens": _tokens(predictions),
    }


def probability_rows(
    predictions: Sequence[Prediction],
) -> tuple[metrics.Floats, NDArray[np.int64], NDArray[np.int64]]:
    """([N, K] probabilities, [N] column of the gold answer, [N] of the one given) of the
    predictions that carry them; the likeliest counts as given where none was.

    Where all have the same choices a column is a choice; else columns are positions, and NaN marks
    those that a question with fewer choices does not have.
    """
    rows = [p for p in predictions if p.probabilities and p.answer in p.probabilities]
    if not rows:
        return np.zeros((0, 0)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    named = list(rows[0].probabilities)
    if any(set(p.probabilities) != set(named) for p in rows):
        named = []
    width = max(len(p.probabilities) for p in rows)
    matrix = np.full((len(rows), width), np.nan)
    gold, given = (np.zeros(len(rows), dtype=np.int64) for _ in range(2))
    for i, row in enumerate(rows):
        own = named or list(row.probabilities)
        matrix[i, : len(own)] = [row.probabilities[choice] for choice in own]
        gold[i] = own.index(row.answer)
        given[i] = own.index(row.choice) if row.choice in own else np.nanargmax(matrix[i])
    return matrix, gold, given


def calibration(
    matrix: metrics.Floats, gold: NDArray[np.int64], given: NDArray[np.int64]
) -> dict[str, Any]:
    """Calibration and risk-coverage of rows as :func:`probability_rows` makes them.

    The class-wise error is left out where questions have unlike numbers of choices: a position is
    no class.
    """
    whole = np.nan_to_num(matrix)
    found = metrics.calibration(whole, gold, given)
    if np.isnan(matrix).any():
        del found["classwise_ece_15"]
    correct = (given == gold).astype(np.float64)
    confidence = whole[np.arange(len(gold)), given]
    return {**found, "risk_coverage": risk_coverage(confidence, correct)}


def _read(predictions: Sequence[Prediction]) -> dict[str, dict[str, int]]:
    """`texts`: those that were read for an answer, by parse status; `decided_by`: what decided in
    the end where a strategy has another way for texts that name no choice. Empty for neither."""
    texts = Counter(str(s) for p in predictions for s in p.trace.get("parse", ()))
    verdicts = [p.trace["verdict"] for p in predictions if "verdict" in p.trace]
    decided = Counter(str(verdict["decided_by"]) for verdict in verdicts)
    found = {"texts": dict(sorted(texts.items())), "decided_by": dict(sorted(decided.items()))}
    return {name: counts for name, counts in found.items() if counts}


def _calibration(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """Calibration over the predictions that carry probabilities; None when none does."""
    matrix, gold, given = probability_rows(predictions)
    return calibration(matrix, gold, given) if len(gold) else None


def _tokens(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Sums of the token counts in the traces, by the names strategies give them."""
    total: Counter[str] = Counter()
    for prediction in predictions:
        counts = prediction.trace.get("tokens", {})
        if isinstance(counts, Mapping):
            total.update({str(k): int(v) for k, v in counts.items() if isinstance(v, int | float)})
        elif isinstance(counts, int | float):
            total["total"] += int(counts)
    return dict(sorted(total.items()))
