"""Fitted weights: recovered from data made by them, the optimum, and never from a test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medexpert import manifest
from medexpert.evaluate.fitting import FEATURES, fit, fit_folders, fit_weights
from medexpert.prompt import strategies
from medexpert.prompt.voc import Voc
from medexpert.records import Prediction, UserError, to_json

CHOICES = ("yes", "no", "maybe")


def made(n: int, weights: tuple[float, ...], seed: int = 0) -> list[Prediction]:
    """Answers drawn from the very model that is fitted."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        raw = rng.normal(scale=1.5, size=(3, 3))
        table = raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))
        scores = np.array(weights) @ table
        shares = np.exp(scores - scores.max())
        gold = CHOICES[rng.choice(3, p=shares / shares.sum())]
        features = {
            name: dict(zip(CHOICES, map(float, row), strict=True))
            for name, row in zip(FEATURES, table, strict=True)
        }
        rows.append(Prediction(str(i), "yes", gold, {}, {"features": features}))
    return rows


def test_the_weights_that_made_the_answers_are_found() -> None:
    options = fit(made(4000, (1.5, 0.2, 0.8)), split="dev-3")
    found = strategies.get(f"voc-likelihood:{options}")
    assert isinstance(found, Voc)
    assert [found.w_ptrue, found.w_verify, found.w_direct] == pytest.approx(
        [1.5, 0.2, 0.8], abs=0.1
    )


def test_two_choices_are_plain_logistic_regression() -> None:
    rng = np.random.default_rng(1)
    differences = rng.normal(size=(200, 3))
    gold = (differences @ [1.0, -0.5, 0.3] + rng.logistic(size=200) > 0).astype(int)
    tables = [np.stack([np.zeros(3), row], axis=1) for row in differences]
    ours = fit_weights(tables, gold.tolist(), l2=1.0)
    theirs = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10).fit(differences, gold)
    assert ours == pytest.approx(theirs.coef_[0], abs=1e-5)


def test_questions_may_differ_in_their_choices() -> None:
    tables = [
        np.array([[0.0, -1.0], [-0.5, -0.9]]),
        np.array([[0.0, -3.0, -1.0], [-2.0, -1.0, 0.0]]),
    ]
    assert np.isfinite(fit_weights(tables, [0, 2])).all()


def test_a_label_without_probability_does_not_break_the_fit() -> None:
    rows = made(40, (1.0, 1.0, 1.0))
    features: Any = rows[0].trace["features"]
    features["direct"]["maybe"] = float("-inf")
    assert "nan" not in fit(rows, split="dev-0")


def test_refused() -> None:
    with pytest.raises(UserError, match="weights are never fitted on split 'test'; allowed: dev-0"):
        fit(made(50, (1, 1, 1)), split="test")
    with pytest.raises(UserError, match="5 questions to fit weights on; allowed: 20 or more"):
        fit(made(5, (1, 1, 1)), split="dev-0")
    with pytest.raises(UserError, match="prediction 7: no features to weigh; allowed: predictions"):
        fit([Prediction("7", "yes", "no")], split="dev-0")


def folder(path: Path, split: str, **header: str) -> Path:
    path.mkdir()
    manifest.write_json(path / "run.json", {"split": split, "model": "one", **header})
    lines = [to_json(row) + "\n" for row in made(30, (1, 1, 1))]
    (path / "predictions.jsonl").write_text("".join(lines))
    manifest.write_manifest(path, key="k", files=[path / "predictions.jsonl"], facts={})
    return path


def test_folders_tell_their_split(tmp_path: Path) -> None:
    dev = folder(tmp_path / "a", "dev-0")
    assert fit_folders([dev]) == fit(made(30, (1, 1, 1)), split="dev-0")
    with pytest.raises(UserError, match=r"b: weights are never fitted on split 'test'"):
        fit_folders([dev, folder(tmp_path / "b", "test")])
    with pytest.raises(UserError, match="no finished evaluation here"):
        fit_folders([tmp_path])


def test_folders_are_finished_and_of_one_model(tmp_path: Path) -> None:
    dev = folder(tmp_path / "a", "dev-0")
    with pytest.raises(UserError, match=r"b: model other; allowed: one"):
        fit_folders([dev, folder(tmp_path / "b", "dev-1", model="other")])
    with pytest.raises(UserError, match=r"c: strategy voc-likelihood:k=3; allowed: None"):
        fit_folders([dev, folder(tmp_path / "c", "dev-1", strategy="voc-likelihood:k=3")])
    with pytest.raises(UserError, match="a: the same evaluation twice"):
        fit_folders([dev, dev])
    (dev / "manifest.json").unlink()
    with pytest.raises(UserError, match="a: no finished evaluation here"):
        fit_folders([dev])
