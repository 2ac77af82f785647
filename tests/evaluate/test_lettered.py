"""Whole runs of tasks whose questions have choices of their own, and of the diagnostic task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.evaluate.compare import compare
from medexpert.evaluate.tasks import Task, task_named
from medexpert.manifest import read_json
from medexpert.prompt.options import distinct
from medexpert.records import Prediction, Question, UserError

Evaluate = Callable[..., dict[str, Any]]


def questions(n: int) -> list[Question]:
    asked = []
    for i in range(n):
        size = 3 + i % 3
        choices = distinct([f"about {(i + k) % 3} mg" for k in range(size)])
        asked.append(
            Question(id=f"q{i}", question="How much?", choices=choices, answer=choices[i % size])
        )
    return asked


TASK = Task(
    name="doses", version="1", protocols=("question-only",), choices=(), official=True,
    load=lambda root, split: questions(30), examples=lambda root: questions(40),
    left_out=lambda root, split: {"several_right_answers": 2},
)  # fmt: skip


class Nth:
    """Takes the choice `at` places behind the right one for every third question."""

    version = 1

    def __init__(self, at: int) -> None:
        self.at = at
        self.shown: list[str] = []

    def predict(self, asked: Any, engine: Any, *, protocol: str, seed: int, examples: Any) -> Any:
        self.shown = [question.id for question in examples]
        for i, question in enumerate(asked):
            names = list(question.choices)
            place = names.index(question.answer) + (self.at if i % 3 == 0 else 0)
            choice = names[place % len(names)]
            shares = {name: 0.5 / (len(names) - 1) for name in names} | {choice: 0.5}
            yield Prediction(question.id, choice, question.answer, shares)


def test_letters_are_counted_and_left_out_items_told(
    tmp_path: Path, evaluate: Evaluate, strategies: dict[str, Any]
) -> None:
    strategies["direct"] = Nth(1)
    found = evaluate(tmp_path / "a", task=TASK, protocol="question-only")
    assert found["labels"] == "letters"
    assert set(found["histogram"]) == set("ABCDE")
    assert found["accuracy"] == pytest.approx(20 / 30)
    assert found["calibration"]["n"] == 30
    assert found["left_out"] == {"several_right_answers": 2}
    assert found["official_complete"]
    assert "official_score" not in found  # its rule is for labels all questions share
    assert strategies["direct"].shown == [f"q{i}" for i in range(30, 40)]  # nothing that is asked
    assert read_json(tmp_path / "a" / "predictions.json")["q0"] == "about 1 mg"


def test_two_runs_are_compared_by_right_and_wrong(
    tmp_path: Path, evaluate: Evaluate, strategies: dict[str, Any]
) -> None:
    for name, at in (("a", 1), ("b", 0)):
        strategies["direct"] = Nth(at)
        evaluate(tmp_path / name, task=TASK, protocol="question-only")
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found["accuracy_difference"] == pytest.approx(1 / 3)
    assert found["mcnemar"]["gained"] == 10
    assert found["macro_f1_difference"] is None
    assert found["accuracy_interval"]["low"] > 0


def test_a_file_of_ones_own_is_evaluated_and_its_versions_never_compared(
    tmp_path: Path, evaluate: Evaluate, strategies: dict[str, Any]
) -> None:
    strategies["direct"] = Nth(1)
    path = tmp_path / "own.jsonl"
    for name, right in (("a", 0), ("b", 1)):
        rows = [
            {"id": k, "question": "?", "choices": ["x", "y", "z"], "answer": right}
            for k in range(6)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = task_named(f"file:{path}")
        found = evaluate(tmp_path / name, task=task, protocol="question-only")
        assert (found["task"], found["official"]) == ("file:own.jsonl", False)
    with pytest.raises(UserError, match="cannot compare: task_version is"):
        compare(tmp_path / "a", tmp_path / "b")


def test_reasoning_free_never_becomes_pubmedqa(
    tmp_path: Path, evaluate: Evaluate, strategies: dict[str, Any]
) -> None:
    pqal = {
        str(k): {"QUESTION": "q", "CONTEXTS": ["c"], "LABELS": ["A"], "LONG_ANSWER": "It does.",
                 "final_decision": "yes"}
        for k in range(3)
    }  # fmt: skip
    free = task_named("pubmedqa-reasoning-free")
    task = Task(
        name=free.name, version="1", protocols=free.protocols, choices=free.choices,
        official=free.official, benchmark=free.benchmark,
        load=lambda root, split: [
            Question(id=k, question="q", choices=free.choices, answer="yes",
                     long_answer=str(row["LONG_ANSWER"]))
            for k, row in pqal.items()
        ],
    )  # fmt: skip
    found = evaluate(tmp_path / "free", task=task, protocol="reasoning-free")
    assert (found["task"], found["official"]) == ("pubmedqa-reasoning-free", False)
    assert "official_score" not in found
    evaluate(tmp_path / "toy")
    with pytest.raises(UserError, match="cannot compare: task is"):
        compare(tmp_path / "free", tmp_path / "toy")
