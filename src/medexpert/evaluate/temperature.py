"""Temperature scaling: one number fitted on dev predictions, applied to test predictions.

p_T(c) = softmax(ln p(c) / T); T is the one that minimises the negative log-likelihood on dev (Guo
et al. 2017). It changes no answer, only how sure the answers are. It is never fitted on a test
split: that would measure calibration on the data it was made with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medexpert import manifest
from medexpert.evaluate.metrics import SMALLEST, Floats
from medexpert.evaluate.resume import read_predictions, require_alike, require_finished
from medexpert.evaluate.run import RESULT
from medexpert.evaluate.scoring import calibration, probability_rows
from medexpert.evaluate.tables import plain_table
from medexpert.records import Prediction, UserError

LOWEST, HIGHEST = 0.05, 20.0
"""Where T is looked for. A fit at an end is told as such: the likelihood rises beyond it."""
TEST_SPLIT = "test"
MUST_AGREE = ("task", "task_version", "protocol", "strategy", "strategy_version", "model")


@dataclass(frozen=True)
class Fit:
    """A temperature and what it did to the dev questions (nats a question)."""

    temperature: float
    n: int
    nll_before: float
    nll_after: float
    at_bound: bool


def logs(probabilities: Floats) -> Floats:
    """[N, K] natural logarithms; zeros are raised to 2.2e-16 first, -inf marks no such choice."""
    with np.errstate(divide="ignore"):
        found: Floats = np.where(
            np.isnan(probabilities), -np.inf, np.log(np.maximum(probabilities, SMALLEST))
        )
    return found


def tempered(logits: Floats, temperature: float) -> Floats:
    """[N, K] softmax(logits / T)."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found


def fit_temperature(logits: Floats, gold: NDArray[np.int64]) -> Fit:
    """The T in [LOWEST, HIGHEST] with the smallest NLL of `gold` [N] under `logits` [N, K].

    The NLL is convex in 1 / T, so the search over it finds the minimum; the dev NLL is never worse
    than at T = 1. Raises ValueError without rows.
    """
    from scipy.optimize import minimize_scalar

    if not len(gold):
        raise ValueError("no questions to fit a temperature on")

    def loss(sharpness: float) -> float:
        scaled = logits * sharpness
        top = scaled.max(axis=1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(scaled - top).sum(axis=1))
        return float(np.mean(total - scaled[np.arange(len(gold)), gold]))

    ends = (1 / HIGHEST, 1 / LOWEST)
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-9})
    # The bounded search never evaluates the ends themselves.
    sharpness = min((*ends, 1.0, float(found.x)), key=loss)
    temperature = 1 / sharpness
    return Fit(
        temperature,
        len(gold),
        loss(1.0),
        loss(sharpness),
        not LOWEST * 1.01 < temperature < HIGHEST * 0.99,
    )


def calibrate(test: Path, dev: Sequence[Path]) -> dict[str, Any]:
    """Fit on the dev folders, apply to the test folder: {temperature, fitted_on, before, after}.

    `before` and `after` are the calibration numbers of the test questions, those in `dev` of the
    questions it was fitted on, whose splits are in `fitted_splits`. Raises UserError when a dev
    folder measured the test split or shares a question with it or another, when model, strategy,
    task, version or protocol differ, or when predictions carry no probabilities.
    """
    target = _result(test)
    asked = read_predictions(test)
    pooled: list[Prediction] = []
    splits: list[str] = []
    for folder in dev:
        result = _result(folder)
        if result.get("split") == TEST_SPLIT:
            raise UserError(
                "a temperature is never fitted on the test split",
                where=str(folder),
                allowed="evaluations of a dev split (medexpert evaluate --split dev-0)",
            )
        alike = "one model, strategy, task, version and protocol"
        require_alike(MUST_AGREE, result, folder, target, test, allowed=alike)
        rows_here = read_predictions(folder)
        if twice := {row.id for row in pooled} & {row.id for row in rows_here}:
            raise UserError(f"question {min(twice)} is in two folders", where=str(folder))
        pooled += rows_here
        splits.append(str(result.get("split")))
    shared = {row.id for row in pooled} & {row.id for row in asked}
    if shared:
        raise UserError(
            f"{len(shared)} questions are in {test} too (first: {min(shared)})",
            where=", ".join(map(str, dev)),
            allowed="dev questions that are not tested",
        )
    dev_rows, dev_gold, dev_given = _rows(pooled, dev[0] if dev else test)
    fit = fit_temperature(logs(dev_rows), dev_gold)
    rows, gold, given = _rows(asked, test)
    before, after = _around(rows, gold, given, fit.temperature)
    dev_before, dev_after = _around(dev_rows, dev_gold, dev_given, fit.temperature)
    return {
        **asdict(fit),
        "fitted_on": [str(folder) for folder in dev],
        "fitted_splits": splits,
        "test": str(test),
        "test_split": target.get("split"),
        "test_n": len(gold),
        "before": before,
        "after": after,
        "dev": {"before": dev_before, "after": dev_after},
    }


def told(found: Mapping[str, Any]) -> str:
    """What :func:`calibrate` found, in five lines for the terminal."""
    fitted, asked = ", ".join(dict.fromkeys(found["fitted_splits"])), found["test_split"]
    end = ", an end of its range: the likelihood rises beyond it" if found["at_bound"] else ""
    numbers = ("nll", "ece_10_equal_mass")
    rows = [
        [f"{name}: {split}", str(part["before"]["n"])]
        + [f"{part[when][number]:.4f}" for number in numbers for when in ("before", "after")]
        for name, split, part in (("dev", fitted, found["dev"]), ("test", asked, found))
    ]
    columns = ("questions", ">n", ">NLL before", ">after", ">ECE before", ">after")
    return (
        f"temperature {found['temperature']:.4g}{end}\n"
        f"fitted on the {found['n']} questions of split {fitted} "
        f"({', '.join(found['fitted_on'])}), applied to split {asked} ({found['test']})\n"
        f"{plain_table(columns, rows)}"
    )


def _around(
    rows: Floats, gold: NDArray[np.int64], given: NDArray[np.int64], temperature: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Calibration before and after."""
    after = tempered(logs(rows), temperature)
    after[np.isnan(rows)] = np.nan
    return calibration(rows, gold, given), calibration(after, gold, given)


def _rows(
    predictions: Sequence[Prediction], where: Path
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    rows, gold, given = probability_rows(predictions)
    if not len(gold):
        raise UserError("no prediction carries probabilities", where=str(where))
    return rows, gold, given


def _result(folder: Path) -> Mapping[str, Any]:
    require_finished(folder)
    result: Mapping[str, Any] = manifest.read_json(folder / RESULT)
    return result
