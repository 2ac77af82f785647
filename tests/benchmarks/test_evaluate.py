"""The evaluation benchmark's harness: what is asked, what is kept, what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evaluate_report
import measure
import pytest
from evaluate_systems import ASKED_FOR, PARTS, SYSTEMS
from evaluate_work import prompt, questions, read_questions, with_choices
from measure import Measured
from train_systems import HERE

import evaluate

ABOUT = {
    "machine": {"processor": "p", "cores": 2, "memory_gb": 1, "system": "s", "python": "3"},
    "command": "c",
}


def row(name: str, repeat: int, seconds: float, **more: Any) -> dict[str, Any]:
    found = {"system": name, "repeat": repeat, "seconds": seconds, "peak_mb": 500.0,
             "versions": {"torch": "2.0"}}  # fmt: skip
    return {**found, **more}


def test_every_system_has_its_files() -> None:
    assert {system.part for system in SYSTEMS.values()} == set(PARTS)
    for system in SYSTEMS.values():
        assert (HERE / system.script).is_file()
        for environment in filter(None, (system.environment, system.server)):
            lines = (HERE / f"requirements-{environment}.txt").read_text().splitlines()
            assert all("==" in line for line in lines)
            assert sum(line.startswith("torch==") for line in lines) == 1
    assert set(ASKED_FOR) < set(SYSTEMS)


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--systems", "direct-theirs"), ("--parts", "indirect")):
        with pytest.raises(SystemExit):
            evaluate.main([option, value])
        assert f"{value!r} is not one of" in capsys.readouterr().err


def test_generated_questions_stand_in_for_data_that_is_absent(tmp_path: Path) -> None:
    found = questions(None, 3)
    assert len(found) == 3
    text = prompt(found[0])
    assert text.startswith(f"Abstract: {found[0].contexts[0]}")
    assert text.endswith("Answer:")
    args = evaluate._arguments(["--limit", "3", "--cache", str(tmp_path)])
    folder = tmp_path / "model"
    (folder / "x").mkdir(parents=True)
    args.model = str(folder)
    import evaluate_work

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_work, "model_folder", lambda name, cache: folder)
        work = json.loads(evaluate.make_work(args, "direct").read_text())
    assert read_questions(work) == found
    assert work["prompts"][0] == text


def test_more_choices_are_all_different() -> None:
    (question,) = questions(None, 1)
    assert with_choices(question, 8).choices[:3] == ("yes", "no", "maybe")
    assert len(set(with_choices(question, 8).choices)) == 8


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work.json"
    about = {"part": "direct", "source": "s", "max_tokens": 1}
    work.write_text(json.dumps(about))
    asked: list[str] = []
    monkeypatch.setattr(evaluate, "make_work", lambda args, part: work)
    monkeypatch.setattr(evaluate, "python_of", lambda system, cache: "python")
    fails = [True]

    def run(command: list[str], env: dict[str, str], log: Path) -> Measured:
        asked.append(log.stem)
        if fails and "lm-eval" in log.stem:
            fails.pop()
            raise measure.CommandFailed("gone")
        Path(command[3]).write_text(json.dumps({"seconds": 1.0, "scores": []}))
        return Measured(3.0, 10.0, 11.0)

    monkeypatch.setattr(evaluate, "run", run)
    monkeypatch.setattr(evaluate, "write_report", lambda folder: None)
    command = ["--systems", "direct-ours,direct-lm-eval", "--repeats", "2", "--cache",
               str(tmp_path), "--results", str(tmp_path / "results")]  # fmt: skip
    assert evaluate.main(command) == 1
    ours, theirs = "evaluate-direct-ours", "evaluate-direct-lm-eval"
    assert asked == [ours, theirs, theirs, ours]
    assert evaluate.main(command) == 0
    assert asked[4:] == [theirs]
    (file,) = (tmp_path / "results").glob("*.jsonl")
    held = [json.loads(line) for line in file.read_text().splitlines()]
    assert held[0]["work"]["part"] == "direct"
    assert len(held) == 5


def test_the_report_holds_scores_against_ours_in_the_same_precision() -> None:
    scores = [[-1.0, -2.0], [-3.0, -1.0]]
    other = [[-1.5, -1.0], [-3.0, -1.0]]
    runs = []
    for repeat in (1, 2, 3):
        runs += [
            row("direct-ours", repeat, 10.0 * repeat, scores=scores),
            row("direct-lm-eval", repeat, 25.0 * repeat, scores=scores),
            row("direct-ours-bf16", repeat, 5.0 * repeat, scores=other),
            row("direct-lm-eval-bf16", repeat, 10.0 * repeat, scores=scores),
        ]
    work = {"part": "direct", "model": "m", "questions": 2, "source": "s"}
    text = evaluate_report.section({**ABOUT, "work": work}, runs)
    assert "| 2 times lm-eval, fp32, batch 1 (its default) | 2.50 | yes |" in text
    assert "| 3 times lm-eval, bf16, batch 1 (its default) | 2.00 | **no** |" in text
    assert "20.0 (10.0-30.0) | 0.10 | 1.00 (1.00-1.00)" in text
    assert "| 2 of 2 | 0.0e+00 |" in text
    assert "| 1 of 2 | 1.0e+00 |" in text


def test_the_report_counts_what_was_encoded_and_written() -> None:
    usage = {"prompt_tokens": 4000, "prefilled_tokens": 1600, "generated_tokens": 600}
    more = {"usage": usage, "predictions": ["yes", "no"]}
    runs = [row("voc-ours", 1, 4.0, **more), row("voc-naive", 1, 20.0, **more)]
    work = {"part": "voc", "model": "m", "questions": 2, "source": "s"}
    text = evaluate_report.section({**ABOUT, "work": work}, runs)
    assert "| 4 times the questions/s of the same prompts one by one | 5.00 | yes |" in text
    assert "| at most 1,300 tokens a question | 1,100 | yes |" in text
    assert "| 2 of 2 |" in text


def test_the_report_shows_growth() -> None:
    usage = {"prefilled_tokens": 900, "generated_tokens": 300}
    cells = [{"choices": n, "max_tokens": 128, "seconds": 2.0 * n, "usage": usage, "questions": 3}
             for n in (2, 4)]  # fmt: skip
    work = {"part": "growth", "model": "m", "questions": 3, "source": "s"}
    text = evaluate_report.section(
        {**ABOUT, "work": work}, [row("growth-ours", 1, 9.0, cells=cells)]
    )
    assert "| 4 | 128 | 2.67 | 300 | 100 |" in text
    assert "Peak memory 500 MB" in text


def test_short_runs_are_not_reported(tmp_path: Path) -> None:
    line = json.dumps({**ABOUT, "work": {"part": "growth"}})
    (tmp_path / "short-growth-1.jsonl").write_text(line + "\n")
    evaluate_report.write_report(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_one_by_one_answers_as_the_local_engine(tmp_path: Path) -> None:
    """The rival of the VoC part: the same texts and scores, nothing shared."""
    from evaluate_naive import OneByOne

    from medexpert.engines.local import LocalEngine
    from tiny import base

    folder = base(tmp_path / "model")
    mine, naive = LocalEngine.open(folder), OneByOne(str(folder), "float32")
    prompts = ["Abstract: forty were asked. Question: is it so? " + end for end in ("Why", "How")]
    ask: dict[str, Any] = {"max_tokens": 10, "stop": ["\n\n"]}
    assert naive.complete(prompts, **ask) == mine.complete(prompts, **ask)
    for choices in ((" a", " b"), (" yes indeed", " no")):
        for one, other in zip(
            naive.choice_logprobs(prompts, choices), mine.choice_logprobs(prompts, choices),
            strict=True,
        ):  # fmt: skip
            assert one == pytest.approx(other, abs=1e-4)
    assert naive.calls == 6
    assert naive.count_tokens(prompts[0]) == mine.count_tokens(prompts[0])
