"""Risk-coverage: how many errors are left when the least sure answers are withheld. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from medexpert.evaluate.metrics import Floats

SHOWN = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Coverages whose risk result.json keeps."""


def selective_risks(confidence: Floats, correct: Floats) -> Floats:
    """[N] risk among the k most confident answers, k = 1..N.

    Answers of equal confidence cannot be told apart: inside a tie the errors are spread evenly, so
    that the curve does not depend on the order of the questions.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = 1.0 - correct[order]
    _, groups = np.unique(-confidence[order], return_inverse=True)
    means = np.bincount(groups, weights=wrong) / np.bincount(groups)
    return np.asarray(np.cumsum(means[groups]) / np.arange(1, len(wrong) + 1), dtype=np.float64)


def risk_coverage(confidence: Floats, correct: Floats) -> dict[str, Any]:
    """{n, aurc, excess_aurc, auroc, curve}: what withholding by confidence is worth.

    `aurc` is the mean of the selective risks over k = 1..N (Geifman, El-Yaniv 2017); `excess_aurc`
    what it lies above the best order of the same answers, whose k-th risk is
    max(0, k - right) / k (Geifman, Uziel, El-Yaniv 2019). `auroc` = P(a right answer is surer than
    a wrong one), ties half; None when all or none are right. `curve` holds {coverage, n, risk} at
    SHOWN. Lower is better but for auroc.
    """
    n = len(correct)
    risks = selective_risks(confidence, correct)
    right = int(correct.sum())
    taken = np.arange(1, n + 1)
    best = np.maximum(0, taken - right) / taken
    cuts = [max(1, round(share * n)) for share in SHOWN]
    return {
        "n": n,
        "aurc": float(risks.mean()),
        "excess_aurc": float(risks.mean() - best.mean()),
        "auroc": auroc(confidence, correct),
        "curve": [{"coverage": k / n, "n": k, "risk": float(risks[k - 1])} for k in cuts],
    }


def auroc(score: Floats, positive: Floats) -> float | None:
    """Area under the ROC curve by ranks (Mann-Whitney); None without both kinds."""
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return None
    _, groups, sizes = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    ranks = (ends - (sizes - 1) / 2)[groups]  # mean rank of a tie, from 1
    total = float(ranks[positive.astype(bool)].sum())
    return (total - ones * (ones + 1) / 2) / (ones * zeros)
