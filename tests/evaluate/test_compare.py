from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medexpert.__main__ import main
from medexpert.evaluate.compare import compare, comparison
from medexpert.evaluate.resume import read_predictions
from medexpert.records import UserError

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def pair(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> tuple[Path, Path]:
    strategies["direct"] = fakes.strategy(0.2)
    evaluate(tmp_path / "a", engine=fakes.engine("a"))
    strategies["direct"] = fakes.strategy(0.9)
    evaluate(tmp_path / "b", engine=fakes.engine("b"))
    return tmp_path / "a", tmp_path / "b"


def test_a_comparison_counts_what_changed(pair: tuple[Path, Path]) -> None:
    made = comparison(*pair)
    old, new = (read_predictions(folder) for folder in pair)
    gained = sum(b.correct and not a.correct for a, b in zip(old, new, strict=True))
    lost = sum(a.correct and not b.correct for a, b in zip(old, new, strict=True))
    assert (made.mcnemar.gained, made.mcnemar.lost) == (gained, lost)
    assert made.accuracy_difference == pytest.approx((gained - lost) / 40)
    assert made.accuracy_interval.low < made.accuracy_difference < made.accuracy_interval.high
    assert made.accuracy_difference == pytest.approx(made.accuracy_second - made.accuracy_first)
    back = comparison(pair[1], pair[0])
    assert back.accuracy_difference == -made.accuracy_difference
    assert back.mcnemar.p == made.mcnemar.p
    printed = json.loads(json.dumps(compare(*pair)))
    assert printed["discordant"] == gained + lost
    assert printed["p"] == made.mcnemar.p
    assert printed["minimum_detectable_difference"] == made.minimum_net_gain / 40  # type: ignore[operator]


def test_a_folder_that_is_no_finished_evaluation_tells_where_to_look(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    for seed in (0, 1):
        evaluate(tmp_path / "grid" / "toy" / "direct" / f"seed-{seed}", seed=seed)
    cell = tmp_path / "grid" / "toy" / "direct" / "seed-0"
    for parent in (cell.parent, tmp_path / "grid"):
        with pytest.raises(UserError, match="holds the folders of 2 evaluations") as caught:
            compare(cell, parent)
        assert str(caught.value).endswith(f"did you mean {str(cell)!r}?")
    strategies["direct"] = fakes.strategy(stop_after=15)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "half")
    told = (
        "half: not a finished folder: 15 of 40 questions are answered: run the same command again"
    )
    with pytest.raises(UserError, match=told):
        compare(cell, tmp_path / "half")


def test_a_result_against_itself(pair: tuple[Path, Path]) -> None:
    made = comparison(pair[0], pair[0])
    assert (made.accuracy_difference, made.macro_f1_difference, made.mcnemar.p) == (0, 0, 1)
    assert made.minimum_detectable_difference is None


def test_the_command_speaks_and_has_json(pair: tuple[Path, Path], capsys: Any) -> None:
    made, names = comparison(*pair), [str(folder) for folder in pair]
    assert main(["compare", *names]) == 0
    told = capsys.readouterr().out
    for part in (
        "second minus first, on the same 40 questions",
        f"difference: {100 * made.accuracy_difference:+.1f} points (",
        f"exact McNemar: {made.mcnemar.gained} gained, {made.mcnemar.lost} lost, p = ",
        "macro-F1 difference: ",
        f"({made.minimum_net_gain} questions net, for p < .05 at {made.mcnemar.discordant} that",
    ):
        assert part in told
    rows = [line.split()[:3] for line in told.splitlines() if line.endswith(" %")]
    shares = (made.accuracy_first, made.accuracy_second)
    assert rows == [
        [word, name, f"{100 * share:.1f}"]
        for word, name, share in zip(("first", "second"), names, shares, strict=True)
    ]
    assert main(["compare", names[0], names[0]]) == 0
    assert "smallest detectable difference: none; 0 questions are" in capsys.readouterr().out
    assert main(["compare", *names, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(made.to_dict()))


def test_unlike_results_are_refused(
    pair: tuple[Path, Path], evaluate: Evaluate, fakes: SimpleNamespace, tmp_path: Path
) -> None:
    def refused(name: str, message: str, **changes: Any) -> None:
        evaluate(tmp_path / name, **changes)
        with pytest.raises(UserError, match=message):
            compare(pair[0], tmp_path / name)

    refused("c", "task is 'toy' in .* and 'other'", task=fakes.task(name="other"))
    refused("d", "task_version is '1' .* and '2'", task=fakes.task(version="2"))
    refused("e", "protocol is 'reasoning-required'", protocol="question-only")
    other_text = replace(fakes.task(), load=lambda root, split: fakes.questions(40, " now"))
    refused("g", "split_digest is", task=other_text)
    refused("f", r"40 questions in .*, 30 in .*, 10 of them only in one \(first: q002\)", limit=30)


def test_unfinished_or_altered_results_are_refused(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "predictions.jsonl"
    path.write_text(path.read_text().replace('"yes"', '"no"', 1))
    with pytest.raises(UserError, match=r"predictions\.jsonl"):
        compare(*pair)
    (pair[1] / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a finished folder"):
        compare(*pair)
