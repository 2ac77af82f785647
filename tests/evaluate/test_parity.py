"""lm-evaluation-harness and the strategy `lm-eval` give the same answer to every item."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import lm_eval_rows
from medexpert.evaluate.tasks import task_named
from medexpert.prompt import strategies
from medexpert.prompt.lm_eval import lm_eval_prompt
from medexpert.prompt.template import PLAIN_CHAT
from medexpert.records import Prediction, Question, UserError, digest

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
GOLDENS: dict[str, Any] = json.loads((REFERENCE / "lm_eval_goldens.json").read_text("utf-8"))
ITEMS = int(os.environ.get("MEDEXPERT_PARITY_ITEMS", "25"))
"""Items a task in the slow test; 0 = all (hours on a CPU)."""


def answers(model: Path, asked: Sequence[Question], protocol: str) -> list[Prediction]:
    from medexpert.engines.local import LocalEngine

    engine = LocalEngine.open(model, dtype="float32", batch_tokens=4096)
    strategy = strategies.get("lm-eval")
    return list(strategy.predict(asked, engine, protocol=protocol, seed=0))


def protocol_of(task: str) -> str:
    return "reasoning-required" if task == "pubmedqa" else "question-only"


def same(task: str, asked: Sequence[Question], model: Path, theirs: Any, tolerance: float) -> None:
    """Every item's choice equal, its log-probabilities within `tolerance` nats, and the score."""
    ours = answers(model, asked, protocol_of(task))
    assert len(ours) == len(theirs["items"])
    for question, own, other in zip(asked, ours, theirs["items"], strict=True):
        assert lm_eval_rows.place(own.choice, question) == other["predicted"], (task, question.id)
        assert own.correct == bool(other["acc"]), (task, question.id)
        found = [own.trace["logprobs"][choice] for choice in question.choices]
        assert found == pytest.approx(other["logprobs"], abs=tolerance), (task, question.id)
    accuracy = sum(own.correct for own in ours) / len(ours)
    assert accuracy == pytest.approx(theirs["accuracy"], abs=1e-12)


@pytest.mark.parametrize("task", sorted(GOLDENS))
def test_every_prompt_is_lm_evals(task: str) -> None:
    asked, _ = lm_eval_rows.invented()[task]
    prompts = [lm_eval_prompt(q, protocol_of(task), PLAIN_CHAT).prompt for q in asked]
    assert [digest(p) for p in prompts] == [item["prompt"] for item in GOLDENS[task]["items"]]


@pytest.mark.parametrize("task", sorted(GOLDENS))
def test_every_answer_is_lm_evals(task: str, base_model: Path) -> None:
    same(task, lm_eval_rows.invented()[task][0], base_model, GOLDENS[task], 2e-4)


def test_the_goldens_hold_right_and_wrong_answers() -> None:
    for task, golden in GOLDENS.items():
        assert {item["acc"] for item in golden["items"]} == {0.0, 1.0}, task


def test_a_benchmark_without_a_format_is_refused() -> None:
    asked = Question(id="a", question="q", choices=("x", "y"), answer="x",
                     ids={"benchmark": "medmcq"})  # fmt: skip
    with pytest.raises(UserError, match=r"question a: unknown lm-eval format 'medmcq'.*'medmcqa'"):
        lm_eval_prompt(asked, "question-only", PLAIN_CHAT)
    assert "Choices:" in lm_eval_prompt(asked, "question-only", PLAIN_CHAT, "medmcqa").prompt


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.enable_socket
@pytest.mark.timeout(7200)
def test_the_real_files_with_a_real_model(real_data: Path, tmp_path: Path) -> None:
    """SmolLM2-135M on PubMedQA, MedQA, MedMCQA and four MMLU subjects, against lm-eval itself.

    lm-eval gets the files' own rows, we our readers' questions. MEDEXPERT_LM_EVAL names a folder
    for its environment, so that it is made once.
    """
    from medexpert.model.base import fetch

    model = fetch("smollm2-135m-instruct")
    folder = Path(os.environ.get("MEDEXPERT_LM_EVAL", tmp_path / "lm-eval"))
    made = subprocess.run(
        [sys.executable, REFERENCE / "lm_eval_env.py", folder],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    asked = lm_eval_rows.published(real_data, ITEMS)
    rows, out = tmp_path / "rows.json", tmp_path / "out.json"
    rows.write_text(json.dumps({name: items for name, (_, items) in asked.items()}), "utf-8")
    script = REFERENCE / "lm_eval_predictions.py"
    python = made.stdout.strip().splitlines()[-1]
    subprocess.run([python, script, model, rows, out], check=True)
    theirs = json.loads(out.read_text("utf-8"))
    for name, (questions, _) in asked.items():
        same(name, questions, model, theirs[name], 5e-3)
    assert task_named("pubmedqa").is_official("test", "reasoning-required")
