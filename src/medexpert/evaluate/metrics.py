"""Scores of a list of answers. Pure functions: no files, no clock, no randomness.

Legend: N questions, K choices, `truth` and `preds` are label strings of length N,
`probabilities` is [N, K] with rows that sum to 1, `gold` is [N] column indices.
Rates are shares between 0 and 1, never percent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medexpert.records import UserError

Floats = NDArray[np.float64]
SMALLEST = float(np.finfo(np.float64).eps)
"""Probabilities are raised to this (2.2e-16) before a logarithm: one zero must not be infinity."""


def accuracy(truth: Sequence[str], preds: Sequence[str]) -> float:
    """Share of equal labels: (1/N) sum_i [truth_i = preds_i]."""
    _check_lengths(truth, preds)
    return sum(t == p for t, p in zip(truth, preds, strict=True)) / len(truth)


def labels_of(truth: Sequence[str], preds: Sequence[str]) -> list[str]:
    """The label set of the averages: every label in truth or predictions, sorted."""
    return sorted(set(truth) | set(preds))


def confusion(truth: Sequence[str], preds: Sequence[str]) -> dict[str, dict[str, int]]:
    """{gold label: {predicted label: count}} over :func:`labels_of`, zeros kept."""
    _check_lengths(truth, preds)
    pairs = Counter(zip(truth, preds, strict=True))
    labels = labels_of(truth, preds)
    return {t: {p: pairs[t, p] for p in labels} for t in labels}


def per_class(truth: Sequence[str], preds: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision tp/(tp+fp), recall tp/(tp+fn), F1 = 2tp/(2tp+fp+fn) and support of each label.

    A share whose denominator is zero is 0, as in scikit-learn's `zero_division=0`.
    """
    _check_lengths(truth, preds)
    gold, given = Counter(truth), Counter(preds)
    hits = Counter(t for t, p in zip(truth, preds, strict=True) if t == p)
    return {
        label: {
            "precision": _share(hits[label], given[label]),
            "recall": _share(hits[label], gold[label]),
            "f1": _share(2 * hits[label], gold[label] + given[label]),
            "support": gold[label],
        }
        for label in labels_of(truth, preds)
    }


def macro_f1(truth: Sequence[str], preds: Sequence[str]) -> float:
    """Mean of the F1 of each label in truth or predictions.

    Equal to scikit-learn's `f1_score(truth, preds, average="macro")`, which the official PubMedQA
    scorer calls. An answer outside the gold labels (NO_ANSWER too) is a class of its own with F1 0.
    """
    scores = [entry["f1"] for entry in per_class(truth, preds).values()]
    return sum(scores) / len(scores)


def macro_f1_over(choices: Sequence[str], truth: Sequence[str], preds: Sequence[str]) -> float:
    """As :func:`macro_f1`, but only over `choices` that occur: NO_ANSWER is a miss, no class."""
    scores = [v["f1"] for label, v in per_class(truth, preds).items() if label in choices]
    return sum(scores) / len(scores) if scores else 0.0


def histogram(preds: Sequence[str], choices: Sequence[str]) -> dict[str, int]:
    """How often each choice was given, choices first in their order, then anything else."""
    counts = Counter(preds)
    return {label: counts[label] for label in (*choices, *sorted(set(counts) - set(choices)))}


def majority_baseline(truth: Sequence[str]) -> dict[str, Any]:
    """What always answering the most frequent gold label scores on these items."""
    label, count = min(Counter(truth).items(), key=lambda item: (-item[1], item[0]))
    return {
        "label": label,
        "correct": count,
        "accuracy": count / len(truth),
        "macro_f1": macro_f1(truth, [label] * len(truth)),
    }


def reliability_equal_mass(
    confidence: Floats, correct: Floats, bins: int = 10
) -> list[dict[str, Any]]:
    """Bins of (nearly) equal counts along rising confidence; equal values keep their item order.

    Each bin: {low, high, n, confidence, accuracy}, the last two being means; no empty bins.
    """
    order = np.argsort(confidence, kind="stable")
    return [
        _bin(confidence[part], correct[part]) for part in np.array_split(order, bins) if part.size
    ]


def reliability_equal_width(
    confidence: Floats, correct: Floats, bins: int = 15
) -> list[dict[str, Any]]:
    """Bins (i/bins, (i+1)/bins] of confidence; 0 falls into the first. Empty bins are left out."""
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        _bin(confidence[index == i], correct[index == i]) for i in range(bins) if (index == i).any()
    ]


def expected_calibration_error(bins: Sequence[Mapping[str, Any]]) -> float:
    """ECE = sum_b (n_b / N) |accuracy_b - confidence_b| (Naeini et al. 2015)."""
    total = sum(entry["n"] for entry in bins)
    gap = sum(entry["n"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins)
    return float(gap / total)


def classwise_ece(probabilities: Floats, gold: NDArray[np.int64], bins: int = 15) -> float:
    """Mean over the K classes of the equal-width ECE of p_k against [gold = k] (Kull 2019)."""
    errors = [
        expected_calibration_error(
            reliability_equal_width(probabilities[:, k], (gold == k).astype(np.float64), bins)
        )
        for k in range(probabilities.shape[1])
    ]
    return float(np.mean(errors))


def brier(probabilities: Floats, gold: NDArray[np.int64]) -> float:
    """(1/N) sum_i sum_k (p_ik - [gold_i = k])^2, between 0 and 2 (the form of Brier 1950)."""
    target = np.eye(probabilities.shape[1])[gold]
    return float(np.mean(np.sum((probabilities - target) ** 2, axis=1)))


def negative_log_likelihood(probabilities: Floats, gold: NDArray[np.int64]) -> float:
    """-(1/N) sum_i ln p_i,gold in nats; p is raised to 2.2e-16 first, so one zero costs 36 nats."""
    chosen = probabilities[np.arange(len(gold)), gold]
    return float(-np.mean(np.log(np.maximum(chosen, SMALLEST))))


def calibration(
    probabilities: Floats, gold: NDArray[np.int64], given: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """All calibration numbers of one run; confidence is the probability of the answer.

    `given` [N] is the column answered, None = that of the largest probability: a vote that ends in
    a tie is settled otherwise. `bins` are the ten equal-mass bins, for the reliability diagram.
    """
    given = probabilities.argmax(axis=1) if given is None else given
    confidence = probabilities[np.arange(len(gold)), given]
    correct = (given == gold).astype(np.float64)
    bins = reliability_equal_mass(confidence, correct, 10)
    return {
        "n": len(gold),
        "ece_10_equal_mass": expected_calibration_error(bins),
        "ece_15_equal_width": expected_calibration_error(
            reliability_equal_width(confidence, correct, 15)
        ),
        "classwise_ece_15": classwise_ece(probabilities, gold, 15),
        "brier": brier(probabilities, gold),
        "nll": negative_log_likelihood(probabilities, gold),
        "bins": bins,
    }


def official_score(predictions: Mapping[str, str], truth: Mapping[str, str]) -> dict[str, float]:
    """Accuracy and macro-F1 under the rule of PubMedQA's own scorer: all and only the test ids.

    Both arguments map PMID to label. Raises UserError naming the counts and the first id at fault.
    """
    missing = [pmid for pmid in truth if pmid not in predictions]
    extra = [pmid for pmid in predictions if pmid not in truth]
    if missing or extra:
        faults = []
        if missing:
            faults.append(f"{len(missing)} missing (first: {missing[0]})")
        if extra:
            faults.append(f"{len(extra)} not in the test set (first: {extra[0]})")
        raise UserError(
            f"{len(predictions)} predictions for {len(truth)} test items: {', '.join(faults)}",
            allowed="all and only the ids of the test set",
        )
    gold = list(truth.values())
    given = [predictions[pmid] for pmid in truth]
    return {"accuracy": accuracy(gold, given), "macro_f1": macro_f1(gold, given)}


def _bin(confidence: Floats, correct: Floats) -> dict[str, Any]:
    return {
        "low": float(confidence.min()),
        "high": float(confidence.max()),
        "n": int(confidence.size),
        "confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _check_lengths(truth: Sequence[str], preds: Sequence[str]) -> None:
    if len(truth) != len(preds) or not truth:
        raise ValueError(f"{len(truth)} gold labels and {len(preds)} predictions")
