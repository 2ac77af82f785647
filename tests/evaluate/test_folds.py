from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medexpert.evaluate.folds import average, fold_models, markdown
from medexpert.manifest import read_json, verify
from medexpert.records import Prediction, UserError


def made(tmp_path: Path, evaluate: Callable[..., Any], fakes: Any, count: int) -> list[Path]:
    folders = [tmp_path / f"fold-{k}" for k in range(count)]
    for folder in folders:
        evaluate(folder, engine=fakes.engine(folder.name))
    return folders


def test_mean_and_sd_of_the_models_and_the_ensemble_apart(
    tmp_path: Path, evaluate: Callable[..., Any], fakes: Any
) -> None:
    folders = made(tmp_path, evaluate, fakes, 3)
    found = fold_models(folders, tmp_path / "out")
    single = [read_json(folder / "result.json")["accuracy"] for folder in folders]
    assert found["accuracy"]["mean"] == pytest.approx(statistics.fmean(single))
    assert found["accuracy"]["sd"] == pytest.approx(statistics.stdev(single))
    assert found["ensemble"]["accuracy"] != found["accuracy"]["mean"]
    verify(tmp_path / "out")
    labels = read_json(tmp_path / "out" / "predictions-ensemble.json")
    assert len(labels) == found["n"] == 40
    assert found["official"]["ensemble"]["accuracy"] == found["ensemble"]["accuracy"]
    assert set(found["official"]) == {"fold-0", "fold-1", "fold-2", "ensemble"}
    page = markdown(found)
    assert "one fold model, mean ± sd" in page
    assert "ensemble of them (not in the mean)" in page


def test_probabilities_are_averaged_not_votes() -> None:
    def one(yes: float) -> dict[str, Prediction]:
        return {"a": Prediction("a", "yes", "no", {"yes": yes, "no": 1 - yes})}

    found = average([one(0.55), one(0.55), one(0.0)])
    assert found is not None
    assert found["a"].choice == "no"
    assert found["a"].probabilities["yes"] == pytest.approx(1.1 / 3)
    assert average([one(0.5), {"a": Prediction("a", "yes", "no")}]) is None


def test_without_probabilities_there_is_no_ensemble(
    tmp_path: Path, evaluate: Callable[..., Any], fakes: Any, strategies: dict[str, Any]
) -> None:
    class Silent(fakes.strategy):  # type: ignore[misc]
        def predict(self, *asked: Any, **settings: Any) -> Any:
            for row in super().predict(*asked, **settings):
                yield Prediction(row.id, row.choice, row.answer)

    strategies["direct"] = Silent(0.7, lost=0.2)
    found = fold_models(made(tmp_path, evaluate, fakes, 2), tmp_path / "out")
    assert found["ensemble"] is None
    assert found["official"]["fold-0"] is None  # unparsed answers: the official scorer refuses
    assert sum(fold["unparsed"] for fold in found["folds"]) > 0
    assert "No ensemble" in markdown(found)


def test_choices_of_their_own_have_no_macro_f1(
    tmp_path: Path, evaluate: Callable[..., Any], fakes: Any
) -> None:
    folders = [tmp_path / f"fold-{k}" for k in range(2)]
    for folder in folders:
        evaluate(folder, engine=fakes.engine(folder.name), task=replace(fakes.task(), choices=()))
    found = fold_models(folders, tmp_path / "out")
    assert (found["macro_f1"], found["official"]["ensemble"]) == (None, None)
    assert found["accuracy"]["mean"] > 0
    assert markdown(found).count("| – |") == 2


def test_what_is_not_alike_is_refused(
    tmp_path: Path, evaluate: Callable[..., Any], fakes: Any
) -> None:
    first, second = made(tmp_path, evaluate, fakes, 2)
    with pytest.raises(UserError, match="1 fold models; allowed: two or more"):
        fold_models([first], tmp_path / "out")
    with pytest.raises(UserError, match="given twice"):
        fold_models([first, first], tmp_path / "out")
    copy = shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(UserError, match="copy: given twice"):
        fold_models([first, second, copy], tmp_path / "out")
    evaluate(tmp_path / "other", strategy="voc")
    with pytest.raises(UserError, match="strategy is 'voc', and 'direct' in"):
        fold_models([first, second, tmp_path / "other"], tmp_path / "out")
    with pytest.raises(UserError):
        fold_models([first, tmp_path / "gone"], tmp_path / "out")
