"""Golden numbers of paired tests, temperature and ranking, made with scipy and scikit-learn.

    python tests/reference/make_statistic_goldens.py

Writes statistic_goldens.json beside this file; run by hand, output committed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy
import sklearn
from scipy.optimize import minimize
from scipy.stats import permutation_test
from sklearn.metrics import log_loss, roc_auc_score


def flip_case(seed: int, n: int, largest: int) -> dict[str, object]:
    """All 2^n sign patterns, enumerated by scipy."""
    deltas = np.random.default_rng(seed).integers(-largest, largest + 1, size=n)
    done = permutation_test(
        (deltas, np.zeros(n, dtype=int)), lambda a, b, axis: np.sum(a - b, axis=axis),
        permutation_type="samples", vectorized=True, n_resamples=np.inf, alternative="two-sided",
    )  # fmt: skip
    return {"deltas": deltas.tolist(), "p": float(done.pvalue)}


def temperature_case(seed: int, n: int, sharpness: float) -> dict[str, object]:
    """T by a simplex search over scikit-learn's log loss."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(n, 3)), 4)
    shares = np.exp(logits)
    shares /= shares.sum(axis=1, keepdims=True)
    gold = np.array([rng.choice(3, p=row) for row in shares])
    given = logits * sharpness

    def loss(log_t: np.ndarray) -> float:
        scaled = given / np.exp(log_t[0])
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return float(log_loss(gold, powers / powers.sum(axis=1, keepdims=True), labels=[0, 1, 2]))

    found = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14})
    return {
        "logits": given.tolist(), "gold": gold.tolist(), "temperature": float(np.exp(found.x[0])),
        "nll_before": loss(np.zeros(1)), "nll_after": float(found.fun),
    }  # fmt: skip


def auroc_case(seed: int, n: int, digits: int) -> dict[str, object]:
    """Rounded scores, so that there are ties."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, size=n)
    score = np.round(rng.random(n) + 0.3 * kind, digits)
    value = float(roc_auc_score(kind, score))
    return {"score": score.tolist(), "positive": kind.tolist(), "auroc": value}


def main() -> None:
    """Write the file."""
    goldens = {
        "made_with": {"scipy": scipy.__version__, "scikit-learn": sklearn.__version__},
        "sign_flip": [flip_case(1, 10, 1), flip_case(2, 12, 3), flip_case(3, 11, 9)],
        "temperature": [temperature_case(4, 80, 3.0), temperature_case(5, 60, 0.4)],
        "auroc": [auroc_case(6, 90, 1), auroc_case(7, 50, 6)],
    }
    path = Path(__file__).with_name("statistic_goldens.json")
    path.write_text(json.dumps(goldens, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
