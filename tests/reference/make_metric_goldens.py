"""Golden numbers of the metrics, made with scikit-learn and scipy; run by hand, output committed.

    python tests/reference/make_metric_goldens.py

Writes metric_goldens.json beside this file. scikit-learn is a development dependency only.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy
import sklearn
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

LABELS = ["yes", "no", "maybe"]
# Name -> (items, answers that may occur, share copied from the gold label).
CASES = {
    "three_labels": (500, LABELS, 0.6),
    "no_answer": (200, [*LABELS, "NO_ANSWER"], 0.5),
    "always_yes": (120, ["yes"], 0.0),
    "never_maybe": (90, ["yes", "no"], 0.3),
    "all_right": (30, LABELS, 1.0),
    "one_item": (1, LABELS, 0.0),
}


def labels_case(seed: int, n: int, answers: list[str], copied: float) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(LABELS, size=n, p=[0.552, 0.338, 0.11])
    preds = np.where(rng.random(n) < copied, truth, rng.choice(answers, size=n))
    names = sorted(set(truth) | set(preds))
    p, r, f, s = precision_recall_fscore_support(truth, preds, labels=names, zero_division=0)
    return {
        "truth": truth.tolist(),
        "preds": preds.tolist(),
        "labels": [str(name) for name in names],
        "accuracy": float(accuracy_score(truth, preds)),
        "macro_f1": float(f1_score(truth, preds, average="macro", zero_division=0)),
        "precision": p.tolist(),
        "recall": r.tolist(),
        "f1": f.tolist(),
        "support": s.tolist(),
        "confusion": confusion_matrix(truth, preds, labels=names).tolist(),
    }


def probability_case(seed: int, n: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.dirichlet([2.0, 1.0, 0.5], size=n), 6)
    probabilities[:, 2] = 1 - probabilities[:, 0] - probabilities[:, 1]
    gold = rng.integers(0, 3, size=n)
    return {
        "probabilities": probabilities.tolist(),
        "gold": gold.tolist(),
        "brier": float(brier_score_loss(gold, probabilities, labels=[0, 1, 2])),
        "nll": float(log_loss(gold, probabilities, labels=[0, 1, 2])),
    }


def wilson_cases() -> list[list[float]]:
    rows = []
    for k, n in [(0, 1), (1, 1), (0, 500), (500, 500), (276, 500), (306, 500), (403, 500), (7, 20)]:
        interval = binomtest(k, n).proportion_ci(0.95, method="wilson")
        rows.append([k, n, float(interval.low), float(interval.high)])
    return rows


def mcnemar_cases() -> list[list[float]]:
    pairs = [
        (15, 5),
        (14, 6),
        (27, 13),
        (26, 14),
        (39, 21),
        (50, 30),
        (61, 39),
        (6, 0),
        (5, 0),
        (4, 4),
    ]
    return [[b, c, float(binomtest(b, b + c, 0.5).pvalue)] for b, c in pairs]


def main() -> None:
    goldens = {
        "made_with": {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__},
        "labels": {
            name: labels_case(seed, *arguments)
            for seed, (name, arguments) in enumerate(CASES.items(), 1)
        },
        "probabilities": probability_case(7, 60),
        "wilson": wilson_cases(),
        "mcnemar": mcnemar_cases(),
    }
    path = Path(__file__).with_name("metric_goldens.json")
    path.write_text(json.dumps(goldens, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
