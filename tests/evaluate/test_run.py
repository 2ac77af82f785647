from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import pytest

from medexpert import manifest
from medexpert.engines.scripted import ScriptedEngine
from medexpert.evaluate import run
from medexpert.evaluate.resume import read_predictions
from medexpert.evaluate.sampling import sample
from medexpert.evaluate.tasks import task_named
from medexpert.records import NO_ANSWER, Prediction, UserError, read_jsonl

Evaluate = Callable[..., dict[str, Any]]


def test_a_run_writes_everything(evaluate: Evaluate, tmp_path: Path) -> None:
    lines: list[str] = []
    result = evaluate(tmp_path / "e", progress=lines.append)
    assert result == manifest.read_json(tmp_path / "e" / "result.json")
    assert manifest.is_complete(tmp_path / "e", "k1")
    rows = list(read_jsonl(tmp_path / "e" / "predictions.jsonl", Prediction))
    assert [row.id for row in rows] == [f"q{i:03d}" for i in range(40)]
    assert (result["n"], result["limit"], result["split"]) == (40, 0, "test")
    assert result["accuracy"] == sum(row.correct for row in rows) / 40
    assert result["accuracy_interval"]["method"] == "wilson"
    assert result["majority_baseline"]["label"] == "yes"
    assert result["tokens"] == {"new": 80, "prompt": 400}
    assert result["calibration"]["n"] == 40
    assert result["engine"]["engine"] == "fake"
    assert result["versions"]["python"]
    assert sum(result["histogram"].values()) == 40
    assert result["official_complete"] is True
    assert result["official_score"]["accuracy"] == result["accuracy"]
    official = manifest.read_json(tmp_path / "e" / "predictions.json")
    assert official == {row.id: row.choice for row in rows}
    assert any("40/40" in line and "questions/s" in line and "left" in line for line in lines)


def test_unparsed_answers_are_counted_wrong_and_left_out_of_the_official_file(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    result = evaluate(tmp_path / "e", strategy="voc")
    rows = read_predictions(tmp_path / "e")
    lost = [row for row in rows if row.choice == NO_ANSWER]
    assert lost
    assert (result["unparsed"], result["official_missing"]) == (len(lost), len(lost))
    assert result["official_complete"] is False
    assert "official_score" not in result
    assert result["correct"] == sum(row.correct for row in rows)
    assert result["macro_f1"] < result["macro_f1_choices"]
    official = manifest.read_json(tmp_path / "e" / "predictions.json")
    assert set(official) == {row.id for row in rows} - {row.id for row in lost}


def test_an_interrupted_run_goes_on_and_ends_the_same(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    whole = evaluate(tmp_path / "whole")
    strategies["direct"] = fakes.strategy(stop_after=15)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "e")
    path = tmp_path / "e" / "predictions.jsonl"
    assert len(path.read_text().splitlines()) == 15
    assert not (tmp_path / "e" / "manifest.json").exists()
    with path.open("a") as handle:
        handle.write('{"id": "q015", "cho')
    strategies["direct"] = second = fakes.strategy()
    lines: list[str] = []
    result = evaluate(tmp_path / "e", progress=lines.append)
    assert second.asked == [f"q{i:03d}" for i in range(15, 40)]
    assert path.read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    changing = {"seconds", "resumed_at"}
    assert {k: v for k, v in result.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }
    assert result["resumed_at"] == 15
    assert any("16: a torn last line; asked again from here" in line for line in lines)
    assert any("15 of 40 questions answered already" in line for line in lines)


def test_a_bad_line_in_the_middle_ends_what_is_kept(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    evaluate(tmp_path / "e")
    (tmp_path / "e" / "manifest.json").unlink()
    path = tmp_path / "e" / "predictions.jsonl"
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*kept[:3], "not json\n", *kept[4:]]))
    strategies["direct"] = second = fakes.strategy()
    lines: list[str] = []
    evaluate(tmp_path / "e", progress=lines.append)
    assert len(second.asked) == 37
    assert "".join(kept) == path.read_text()
    assert any(":4: not a prediction" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"key": "k2"}, "key"),
        ({"seed": 9}, "seed"),
        ({"limit": 20}, "n"),
        ({"protocol": "question-only"}, "protocol"),
    ],
)
def test_predictions_of_other_work_are_discarded_with_a_message(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path,
    changes: dict[str, Any], name: str,
) -> None:  # fmt: skip
    evaluate(tmp_path / "e")
    (tmp_path / "e" / "manifest.json").unlink()
    strategies["direct"] = second = fakes.strategy()
    lines: list[str] = []
    result = evaluate(tmp_path / "e", progress=lines.append, **changes)
    assert any(f"made for another {name}; discarded" in line for line in lines)
    assert len(second.asked) == result["n"]


def test_a_kill_while_discarding_does_not_keep_stale_predictions(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    evaluate(tmp_path / "e")
    real = manifest.write_text

    def killed(path: Path, text: str) -> None:
        real(path, text)
        raise KeyboardInterrupt  # after the first file that is written, whichever it is

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(tmp_path / "e", key="k2")
    strategies["direct"] = second = fakes.strategy()
    evaluate(tmp_path / "e", key="k2")
    assert len(second.asked) == 40


def test_the_rate_counts_whole_batches(
    evaluate: Evaluate, strategies: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)

    class Batched:
        def predict(self, asked: Any, engine: Any, *, protocol: str, seed: int, **_: Any) -> Any:
            for at in range(0, len(asked), 4):
                clock.now += 10
                yield from (Prediction(q.id, "yes", q.answer) for q in asked[at : at + 4])

    strategies["direct"] = Batched()
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: clock.now))
    lines: list[str] = []
    evaluate(tmp_path / "e", limit=12, progress=lines.append)
    assert [line.split(": ")[1] for line in lines] == [
        "12 questions, the first answers come after a whole batch",
        "4/12, 0.40 questions/s, 20 s left",
        "8/12, 0.40 questions/s, 10 s left",
        "12/12, 0.40 questions/s, 0 s left",
    ]


def test_ctrl_c_is_answered_before_the_computation_ends(
    evaluate: Evaluate, strategies: dict[str, Any], tmp_path: Path
) -> None:
    said = threading.Event()
    told: list[str] = []

    class Busy:
        def predict(self, asked: Any, engine: Any, *, protocol: str, seed: int, **_: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            assert said.wait(60)  # the computation goes on: only another thread can have said it
            raise KeyboardInterrupt
            yield

    def progress(line: str) -> None:
        told.append(line)
        if "stopping" in line:
            said.set()

    strategies["direct"] = Busy()  # type: ignore[assignment]
    before = signal.signal(signal.SIGINT, lambda number, frame: None)  # comes when Busy is done
    try:
        with pytest.raises(KeyboardInterrupt):
            evaluate(tmp_path / "e", progress=progress)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sum("stopping" in line for line in told) == 1


def test_only_the_first_protocol_is_the_published_benchmark(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    result = evaluate(tmp_path / "e", protocol="question-only")
    assert (result["official"], result["official_complete"]) == (False, False)


def test_changed_questions_discard_predictions(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    evaluate(tmp_path / "e")
    (tmp_path / "e" / "manifest.json").unlink()
    changed = replace(fakes.task(), load=lambda root, split: fakes.questions(40, " now"))
    lines: list[str] = []
    evaluate(tmp_path / "e", task=changed, progress=lines.append)
    assert any("made for another split_digest" in line for line in lines)


def test_a_finished_run_is_not_repeated(
    evaluate: Evaluate, strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    first = evaluate(tmp_path / "e")
    strategies["direct"] = second = fakes.strategy()
    assert evaluate(tmp_path / "e") == first
    assert second.asked == []


def test_limit_takes_a_fixed_sample_and_says_so(
    evaluate: Evaluate, fakes: SimpleNamespace, tmp_path: Path
) -> None:
    result = evaluate(tmp_path / "e", limit=7)
    asked = [row.id for row in read_predictions(tmp_path / "e")]
    assert asked == [question.id for question in sample(fakes.questions(40), 7)]
    assert result["limit_rule"] == "smallest SHA-256 of the id"
    assert evaluate(tmp_path / "all")["limit_rule"] == ""
    assert (result["n"], result["official"], result["official_complete"]) == (7, False, False)


def test_a_limit_beyond_the_split_is_said(evaluate: Evaluate, tmp_path: Path) -> None:
    lines: list[str] = []
    evaluate(tmp_path / "e", limit=99, progress=lines.append)
    assert "toy: limit 99 is more than the 40 questions; all taken" in lines


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "dierct"}, r"unknown strategy 'dierct'; .*did you mean 'direct'\?"),
        ({"protocol": "question_only"}, r"unknown protocol .*did you mean 'question-only'\?"),
        ({"limit": -1}, "limit -1 is negative"),
    ],
)
def test_bad_settings(
    evaluate: Evaluate, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path / "e", **changes)
    assert not (tmp_path / "e").exists()


def test_empty_and_doubled_question_lists(
    evaluate: Evaluate, fakes: SimpleNamespace, tmp_path: Path
) -> None:
    empty = replace(fakes.task(), load=lambda root, split: [])
    with pytest.raises(UserError, match="toy has no questions in split 'test'"):
        evaluate(tmp_path / "e", task=empty)
    doubled = replace(fakes.task(), load=lambda root, split: fakes.questions(2) * 2)
    with pytest.raises(UserError, match="toy has question q000 more than once"):
        evaluate(tmp_path / "e", task=doubled)


class Wrong:
    """A strategy that breaks its promise in one way."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def predict(self, asked: Any, engine: Any, *, protocol: str, seed: int, **_: Any) -> Any:
        for question in asked[: self.changes.get("only", len(asked))]:
            row = Prediction(question.id, "yes", question.answer)
            yield replace(row, **{k: v for k, v in self.changes.items() if k != "only"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "q001"}, "answered q001 where q000 was asked"),
        ({"answer": "other"}, "answered q000 where q000 was asked"),
        ({"choice": "perhaps"}, "'perhaps' is no choice of q000"),
        ({"probabilities": {"yes": 0.9, "no": 0.3, "maybe": 0.1}}, "probabilities of q000"),
        ({"only": 3}, "answered 3 of 40"),
    ],
)
def test_a_strategy_is_held_to_its_promise(
    evaluate: Evaluate, strategies: dict[str, Any], tmp_path: Path,
    changes: dict[str, Any], message: str,
) -> None:  # fmt: skip
    strategies["direct"] = Wrong(**changes)
    with pytest.raises(RuntimeError, match=message):
        evaluate(tmp_path / "e")


def test_no_probabilities_no_calibration(
    evaluate: Evaluate, strategies: dict[str, Any], tmp_path: Path
) -> None:
    strategies["direct"] = Wrong()
    result = evaluate(tmp_path / "e")
    assert result["calibration"] is None
    assert result["accuracy"] == result["majority_baseline"]["accuracy"]


def test_predictions_missing_or_bad(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no predictions here"):
        read_predictions(tmp_path)
    (tmp_path / "predictions.jsonl").write_text(json.dumps({"id": 1}) + "\n")
    with pytest.raises(UserError, match=r"predictions.jsonl:1: not a prediction"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (600, "10 min"), (12000, "3 h 20 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert run._duration(seconds) == text


def test_texts_that_name_no_choice_are_counted_where_something_else_decides(tmp_path: Path) -> None:
    def says(prompt: str) -> str:
        return "Final answer: no" if crc32(prompt.encode()) % 2 else "It is hard to say."

    result = run.evaluate(
        ScriptedEngine(says, lambda prompt, choices: [-1.0, -2.0, -3.0]), task_named("trialgen"),
        data=tmp_path, strategy="voc:verdict=generated", protocol="reasoning-required", limit=20,
        out=tmp_path / "e", key="k", progress=lambda line: None,
    )  # fmt: skip
    assert result["unparsed"] == 0
    assert set(result["texts"]) == {"ok", "unparsed"}
    assert sum(result["texts"].values()) == 20
    assert result["decided_by"] == {
        "generated": result["texts"]["ok"], "scored": result["texts"]["unparsed"],
    }  # fmt: skip
    assert result["histogram"]["no"] == result["texts"]["ok"]


@pytest.mark.parametrize("strategy", ["direct", "voc", "voc-likelihood"])
def test_real_strategies_on_trialgen(strategy: str, tmp_path: Path) -> None:
    """The declared pieces fit: the shipped strategies, a scripted engine, a shipped task."""
    engine = ScriptedEngine(
        lambda prompt: "The trial found that it helped more than the placebo did.",
        lambda prompt, choices: [-1.0 - index for index in range(len(choices))],
    )
    lines: list[str] = []
    result = run.evaluate(
        engine, task_named("trialgen"), data=tmp_path, strategy=strategy,
        protocol="reasoning-required", limit=12, out=tmp_path / "e", key="k", progress=lines.append,
    )  # fmt: skip
    assert result["n"] == 12
    assert result["histogram"]["yes"] == 12
    assert result["official"] is False
    assert result["tokens"]["prompt"] > 0
    assert result["unparsed"] == 0


class Stopped(BaseException):
    """A kill."""


@pytest.mark.parametrize(
    "strategy",
    ["voc-foreign", "voc-shuffled", "voc:k=2:batch=3", "voc:verdict=generated", "self_consistency"],
)
def test_resumed_answers_are_those_of_an_unbroken_run(strategy: str, tmp_path: Path) -> None:
    def says(prompt: str) -> str:
        number = crc32(prompt.encode())
        verdict = ("yes", "no", "maybe")[number % 3]
        return f"Reason {number} has more than eight words in all.\nFinal answer: {verdict}"

    def scores(prompt: str, choices: Sequence[str]) -> list[float]:
        return [-float(crc32(f"{prompt}{choice}".encode()) % 97) for choice in choices]

    def do(out: Path, stop_at: int = 0) -> list[Prediction]:
        told: list[str] = []

        def says_until(prompt: str) -> str:
            told.append(prompt)
            if len(told) == stop_at:
                raise Stopped
            return says(prompt)

        run.evaluate(
            ScriptedEngine(says_until, scores), task_named("trialgen"), data=tmp_path, seed=5,
            strategy=strategy, protocol="reasoning-required", limit=20, out=out, key="k",
            progress=lambda line: None,
        )  # fmt: skip
        return read_predictions(out)

    whole = do(tmp_path / "whole")
    with pytest.raises(Stopped):
        do(tmp_path / "stopped", stop_at=50)
    assert 0 < len(read_predictions(tmp_path / "stopped")) < 20
    assert do(tmp_path / "stopped") == whole
