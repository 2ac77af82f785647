from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.__main__ import main
from medexpert.evaluate.temperature import calibrate, fit_temperature, logs, tempered
from medexpert.records import UserError

GOLDENS = json.loads(
    (Path(__file__).parents[1] / "reference" / "statistic_goldens.json").read_text()
)


@pytest.mark.parametrize("case", GOLDENS["temperature"])
def test_the_fit_equals_a_search_over_scikit_learns_log_loss(case: dict[str, Any]) -> None:
    fit = fit_temperature(np.array(case["logits"]), np.array(case["gold"]))
    assert fit.temperature == pytest.approx(case["temperature"], rel=1e-4)
    assert fit.nll_before == pytest.approx(case["nll_before"], rel=1e-12)
    assert fit.nll_after == pytest.approx(case["nll_after"], rel=1e-9)
    assert not fit.at_bound


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 5), st.floats(0.01, 30))
def test_dev_nll_is_never_worse_and_answers_never_change(
    seed: int, n: int, k: int, sharpness: float
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k)) * sharpness
    gold = generator.integers(0, k, size=n)
    fit = fit_temperature(logits, gold)
    assert fit.nll_after <= fit.nll_before
    warm = tempered(logits, fit.temperature)
    assert np.allclose(warm.sum(axis=1), 1)
    assert (warm[np.arange(n), logits.argmax(axis=1)] == warm.max(axis=1)).all()


def test_a_fit_at_the_end_of_its_range_says_so() -> None:
    sure = fit_temperature(np.array([[1.0, 0.0], [0.5, 0.0]]), np.array([0, 0]))
    assert sure.at_bound
    assert sure.temperature == pytest.approx(0.05)


def test_choices_that_a_question_lacks_stay_without_probability() -> None:
    rows = np.array([[0.5, 0.3, 0.2], [0.6, 0.4, np.nan]])
    warm = tempered(logs(rows), 2.0)
    assert warm[1, 2] == 0
    assert warm[1].sum() == pytest.approx(1)


def split_task(fakes: SimpleNamespace, shared: int = 0) -> Any:
    """40 questions in test, 30 in dev-0, `shared` of them in both."""
    base = fakes.task()

    def load(root: Path, split: str) -> list[Any]:
        if split == "test":
            return list(fakes.questions(40))
        return list(fakes.questions(70)[40 - shared : 70 - shared])

    return replace(base, load=load)


def test_fitted_on_dev_and_applied_to_test(
    evaluate: Callable[..., Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    task = split_task(fakes)
    evaluate(tmp_path / "test", task=task)
    evaluate(tmp_path / "dev", task=task, split="dev-0")
    found = calibrate(tmp_path / "test", [tmp_path / "dev"])
    assert (found["n"], found["test_n"]) == (30, 40)
    assert found["nll_after"] <= found["nll_before"]
    assert found["before"]["nll"] != found["after"]["nll"]
    assert found["before"]["risk_coverage"]["n"] == 40


def test_the_command_says_what_it_was_fitted_on(
    evaluate: Callable[..., Any], fakes: SimpleNamespace, tmp_path: Path, capsys: Any
) -> None:
    task, folders = split_task(fakes), [str(tmp_path / name) for name in ("test", "tuned")]
    evaluate(tmp_path / "test", task=task)
    evaluate(tmp_path / "tuned", task=task, split="val")
    command = ["probe", "temperature", folders[0], "--dev", folders[1]]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["fitted_splits"], found["test_split"]) == (["val"], "test")
    assert found["dev"]["before"]["nll"] == pytest.approx(found["nll_before"])
    assert found["dev"]["after"]["nll"] == pytest.approx(found["nll_after"])
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"temperature {found['temperature']:.4g}")
    assert lines[1] == (f"fitted on the 30 questions of split val ({folders[1]}), "
                        f"applied to split test ({folders[0]})")  # fmt: skip
    for line, name, part in zip(
        lines[3:], ("dev: val 30", "test: test 40"), (found["dev"], found), strict=True
    ):
        told = [part[when][number] for number in ("nll", "ece_10_equal_mass")
                for when in ("before", "after")]  # fmt: skip
        assert line.split() == [*name.split(), *(f"{value:.4f}" for value in told)]


def test_never_fitted_on_test(
    evaluate: Callable[..., Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    task = split_task(fakes)
    evaluate(tmp_path / "test", task=task)
    with pytest.raises(UserError, match=r"never fitted on the test split; allowed: .*dev"):
        calibrate(tmp_path / "test", [tmp_path / "test"])
    evaluate(tmp_path / "dev", task=split_task(fakes, shared=3), split="dev-0")
    with pytest.raises(UserError, match=r"3 questions are in .*test too \(first: q037\)"):
        calibrate(tmp_path / "test", [tmp_path / "dev"])


def test_a_dev_folder_given_twice_is_not_twice_the_questions(
    evaluate: Callable[..., Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    task = split_task(fakes)
    evaluate(tmp_path / "test", task=task)
    evaluate(tmp_path / "dev", task=task, split="dev-0")
    with pytest.raises(UserError, match="is in two folders"):
        calibrate(tmp_path / "test", [tmp_path / "dev", tmp_path / "dev"])


def test_other_models_are_refused(
    evaluate: Callable[..., Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    task = split_task(fakes)
    evaluate(tmp_path / "test", task=task)
    evaluate(tmp_path / "dev", task=task, split="dev-0", engine=fakes.engine("other"))
    with pytest.raises(UserError, match="model is 'other', and 'fake' in"):
        calibrate(tmp_path / "test", [tmp_path / "dev"])
