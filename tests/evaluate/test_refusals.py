"""Questions that the engine refuses: recorded, counted, not asked again; many stop a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import voc_prompts
from medexpert import manifest
from medexpert.engines.base import PromptError
from medexpert.engines.scripted import ScriptedEngine
from medexpert.evaluate import fitting, grid
from medexpert.evaluate.refusals import IN_A_ROW, answers
from medexpert.evaluate.resume import read_predictions
from medexpert.evaluate.while_training import dev_meter
from medexpert.prompt.asking import QuestionRefused
from medexpert.prompt.direct import Direct
from medexpert.prompt.voc import Voc
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

Evaluate = Callable[..., dict[str, Any]]
WHY = "the endpoint refuses the request (400): content_filter"


class Refusing(ScriptedEngine):
    """Refuses the questions of these numbers, for good."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(logprobs=lambda prompt, choices: [-1.0, -2.0, -3.0])
        self.marks = [f"number {number}:" for number in numbers]

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        for index, prompt in enumerate(prompts):
            if any(mark in prompt for mark in self.marks):
                raise PromptError(WHY, index=index, where=f"prompt {index + 1}")
        return super().choice_logprobs(prompts, choices)

    @property
    def asked(self) -> int:
        return sum(len(call.prompts) for call in self.calls)


@pytest.fixture
def direct(evaluate: Evaluate, strategies: dict[str, Any]) -> Evaluate:
    """`evaluate` with the real `direct` in place of the invented strategy."""
    strategies["direct"] = Direct(batch=6)
    return evaluate


def test_a_refused_question_is_an_outcome_and_the_run_goes_on(
    direct: Evaluate, tmp_path: Path
) -> None:
    direct(tmp_path / "whole", engine=Refusing())
    lines: list[str] = []
    result = direct(tmp_path / "e", engine=Refusing(0, 7, 8, 39), progress=lines.append)
    rows = read_predictions(tmp_path / "e")
    assert [row.id for row in rows] == [f"q{i:03d}" for i in range(40)]
    lost = [row for row in rows if row.refused]
    assert [row.id for row in lost] == ["q000", "q007", "q008", "q039"]
    assert {(row.choice, row.correct, row.refused) for row in lost} == {(NO_ANSWER, False, WHY)}
    assert [r for r in rows if not r.refused] == [
        row for row in read_predictions(tmp_path / "whole") if row.id not in {r.id for r in lost}
    ]
    assert (result["n"], result["refused"], result["unparsed"]) == (40, 4, 0)
    assert result["accuracy"] == sum(row.correct for row in rows) / 40
    assert result["official_missing"] == 4
    assert any(f"question q007 is refused: {WHY}" in line for line in lines)


def test_a_broken_answer_is_no_refusal(direct: Evaluate, tmp_path: Path) -> None:
    class Slips(Refusing):
        def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> Any:
            try:
                return super().choice_logprobs(prompts, choices)
            except PromptError:
                self.marks.pop(0)
                raise

    result = direct(tmp_path / "e", engine=Slips(3, 4))
    assert (result["n"], result["refused"]) == (40, 0)
    direct(tmp_path / "whole", engine=Refusing())
    written = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("e", "whole")]
    assert written[0] == written[1]


def test_a_resume_does_not_ask_the_refused_again(direct: Evaluate, tmp_path: Path) -> None:
    direct(tmp_path / "e", engine=Refusing(3))
    (tmp_path / "e" / "manifest.json").unlink()
    path = tmp_path / "e" / "predictions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:10]))
    engine, lines = Refusing(3), list[str]()
    result = direct(tmp_path / "e", engine=engine, progress=lines.append)
    assert path.read_bytes() == whole
    assert (engine.asked, result["refused"]) == (30, 1)
    told = "10 of 40 questions answered already (1 refused: another --out asks again), going on"
    assert any(told in line for line in lines)
    direct(tmp_path / "e", engine=engine, progress=lines.append)
    assert lines[-1].endswith("complete, nothing to do (1 refused: another --out asks again)")


def test_many_refused_in_a_row_stop_the_run_and_are_asked_again(
    direct: Evaluate, tmp_path: Path
) -> None:
    last = range(20, 20 + IN_A_ROW)
    with pytest.raises(UserError, match=r"8 questions in a row are refused, so the model or its s"):
        direct(tmp_path / "e", engine=Refusing(2, *last))
    kept = [row.id for row in read_predictions(tmp_path / "e")]
    assert kept == [f"q{i:03d}" for i in range(len(kept))]
    assert 12 <= len(kept) <= 20  # none of the eight, and what was answered before them
    assert direct(tmp_path / "e", engine=Refusing())["refused"] == 1
    # One fewer is not too many.
    assert direct(tmp_path / "other", engine=Refusing(*last[1:]))["refused"] == IN_A_ROW - 1


def test_a_run_of_nothing_but_refusals_is_an_error(
    direct: Evaluate, fakes: SimpleNamespace, tmp_path: Path
) -> None:
    few = fakes.task(2)
    with pytest.raises(UserError, match=r"2 questions in a row .*\(question q000: the endpoint"):
        direct(tmp_path / "e", engine=Refusing(0, 1), task=few)
    with pytest.raises(UserError, match="the only question is refused"):
        direct(tmp_path / "one", engine=Refusing(0), task=fakes.task(1))
    assert not (tmp_path / "e" / "manifest.json").exists()
    assert direct(tmp_path / "e", engine=Refusing(1), task=few)["refused"] == 1


def test_the_tables_show_them(direct: Evaluate, fakes: SimpleNamespace, tmp_path: Path) -> None:
    task = fakes.task(12)
    result = direct(tmp_path / "e", engine=Refusing(5, 6), task=task)
    cell = grid.Cell(task, "reasoning-required", "direct", 1, tmp_path / "e", ())
    (row,) = grid.rows_of([grid.Outcome(cell, result)])
    told = dict(zip(grid.COLUMNS, row, strict=True))
    assert (told[">unparsed"], told[">refused"]) == ("0", "2")
    grid.write_summary([grid.Outcome(cell, result)], tmp_path, model="m")
    summary = manifest.read_json(tmp_path / "summary.json")
    assert summary["cells"][0]["result"]["refused"] == 2


def test_a_refusal_that_names_no_question_stops_the_run() -> None:
    def ask(questions: Sequence[Question]) -> Iterator[Prediction]:
        yield Prediction(questions[0].id, "yes", "yes")
        raise QuestionRefused(UserError(WHY), "an example")

    asked = [Question(name, "?", ("yes", "no"), "yes") for name in ("1", "2")]
    with pytest.raises(UserError, match="question an example: the endpoint refuses"):
        list(answers(ask, asked))


def test_a_refused_solved_example_is_counted_and_told_once(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    strategies["voc"] = Voc(shots=1, batch=2)
    solved = [replace(q, id=f"e{k}") for k, q in enumerate(fakes.questions(5, " too"))]
    task = replace(fakes.task(6), examples=lambda root: solved)
    first = evaluate(tmp_path / "whole", task=task, strategy="voc", engine=voc_prompts.Refusing(
        lambda prompt: False
    ))  # fmt: skip
    assert "refused_examples" not in first
    (shown,) = read_predictions(tmp_path / "whole")[0].trace["shots"]
    asked = f"Question: {next(q.question for q in solved if q.id == shown)}"
    engine = voc_prompts.Refusing(lambda prompt: asked in prompt)
    lines: list[str] = []
    result = evaluate(
        tmp_path / "e", task=task, strategy="voc", engine=engine, progress=lines.append
    )
    assert (result["n"], result["refused"], result["refused_examples"]) == (6, 0, 1)
    told = [line for line in lines if f"solved example {shown} is refused and passed over" in line]
    assert len(told) == 1
    assert voc_prompts.FILTERED in told[0]


def test_weights_are_fitted_on_what_was_answered() -> None:
    shares = {"yes": -0.1, "no": -2.4}
    features = dict.fromkeys(fitting.FEATURES, shares)
    rows = [Prediction(f"q{k}", "yes", "yes", {}, {"features": features}) for k in range(20)]
    rows.append(Prediction("q20", NO_ANSWER, "yes", {}, {"refused": WHY}))
    assert fitting.fit(rows, split="dev").startswith("w_ptrue=")


def test_while_training_they_are_told(fakes: SimpleNamespace) -> None:
    """A dev question that is too long is wrong, and not silently so."""
    engine = Refusing(5, 6)
    meter = dev_meter(
        lambda model, tokenizer: engine, fakes.task(12), Path(), 0,
        protocol="reasoning-required", seed=0,
    )  # fmt: skip
    found = meter(None, None)
    assert (found["n"], found["refused"]) == (12, 2)
