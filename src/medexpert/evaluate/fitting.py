"""The weights of `voc-likelihood`, fitted on dev folds by multinomial logistic regression.

A question i with choices c has features x_f(i, c), the log-softmaxes in the traces of
`voc-likelihood`; p(c | i) is proportional to exp(sum_f w_f x_f(i, c)). The weights, shared by all
choices, minimise the mean of -ln p(gold | i) plus (l2 / 2) |w|^2 / N: a convex problem with one
answer. They scale the mixture too, so that they also set how sure it is. Test splits are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from medexpert import manifest
from medexpert.evaluate.resume import HEADER, read_predictions, require_alike, require_finished
from medexpert.prompt.asking import LOWEST
from medexpert.records import Prediction, UserError

Floats = NDArray[np.float64]
FEATURES = ("ptrue", "verify", "direct")
MUST_AGREE = ("task", "task_version", "protocol", "strategy", "model")
FEWEST = 20
"""Fewer questions cannot tell three weights."""


def fit_weights(features: Sequence[Floats], gold: Sequence[int], *, l2: float = 1.0) -> Floats:
    """[F] weights. `features`: per question an array [F, C], C may differ; `gold`: its column."""

    groups = []  # questions with as many choices, as arrays [N, F, C] and [N]
    for size in sorted({values.shape[1] for values in features}):
        members = [k for k, values in enumerate(features) if values.shape[1] == size]
        answers = np.array([gold[k] for k in members])
        groups.append((np.stack([features[k] for k in members]), answers))

    def loss(weights: Floats) -> tuple[float, Floats]:
        total, gradient = l2 / 2 * float(weights @ weights), l2 * weights
        for values, answers in groups:
            rows = np.arange(len(answers))
            scores = np.einsum("f,nfc->nc", weights, values)
            scores = scores - scores.max(axis=1, keepdims=True)
            sums = np.exp(scores).sum(axis=1, keepdims=True)
            total += float((np.log(sums[:, 0]) - scores[rows, answers]).sum())
            expected = np.einsum("nfc,nc->f", values, np.exp(scores) / sums)
            gradient = gradient + expected - values[rows, :, answers].sum(axis=0)
        return total / len(gold), gradient / len(gold)

    start = np.full(features[0].shape[0], 1 / features[0].shape[0])
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-14}
    )
    weights: Floats = np.asarray(found.x, dtype=np.float64)
    return weights


def fit(predictions: Sequence[Prediction], *, split: str) -> str:
    """The options of a strategy, `w_ptrue=...:w_verify=...:w_direct=...`, to be put behind
    `voc-likelihood:`.

    `predictions` are those of `voc-likelihood` on dev folds; `split` names where they come from.
    Raises UserError for a split that is no dev fold, for predictions without features, and for too
    few.
    """
    _check_split(split)
    features, gold = [], []
    for row in predictions:
        if row.refused:
            continue
        found = row.trace.get("features")
        if not isinstance(found, dict) or set(found) != set(FEATURES):
            raise UserError(
                "no features to weigh", where=f"prediction {row.id}",
                allowed="predictions of voc-likelihood",
            )  # fmt: skip
        choices = list(found[FEATURES[0]])
        if row.answer not in choices:  # top2 may have put the gold answer out of the contest
            continue
        table = [[found[name][choice] for choice in choices] for name in FEATURES]
        features.append(np.maximum(np.array(table, dtype=np.float64), LOWEST))
        gold.append(choices.index(row.answer))
    if len(gold) < FEWEST:
        raise UserError(f"{len(gold)} questions to fit weights on", allowed=f"{FEWEST} or more")
    weights = fit_weights(features, gold)
    return ":".join(f"w_{f}={w:.4f}" for f, w in zip(FEATURES, weights, strict=True))


def fit_folders(folders: Sequence[Path]) -> str:
    """:func:`fit` on finished evaluations, whose split their own header tells.

    Raises UserError as `fit`, and for folders that are not finished, were not answered alike, or
    share a question.
    """
    found: dict[str, Prediction] = {}
    headers: list[dict[str, Any]] = []
    for folder in folders:
        if not (folder / HEADER).is_file():
            raise UserError("no evaluation here", where=str(folder))
        headers.append(manifest.read_json(folder / HEADER))
        _check_split(str(headers[-1].get("split", "")), where=str(folder))
        require_finished(folder)
        require_alike(MUST_AGREE, headers[-1], folder, headers[0], folders[0])
        for row in read_predictions(folder):
            if row.id in found:
                raise UserError(f"question {row.id} is in two folders", where=str(folder))
            found[row.id] = row
    return fit(list(found.values()), split="dev")


def _check_split(split: str, where: str = "") -> None:
    if split.partition("-")[0] != "dev":
        raise UserError(
            f"weights are never fitted on split {split!r}", where=where, allowed="dev-0, dev-1 ..."
        )
