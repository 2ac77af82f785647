"""The solver inside a real inspect_ai evaluation, with inspect's own mock model.

Needs inspect_ai, which lives in an environment of its own: tests/reference/inspect_env.sh.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed in this environment")

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, GenerateConfig, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import choice

from medexpert.inspect_voc import voc
from medexpert.records import UserError


def asked(answer: str, sample: Sample, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    """(the log's only sample, the prompts in the order they came)."""
    seen: list[str] = []

    def said(
        messages: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        prompt = messages[-1].text
        seen.append(prompt)
        reason = "A reason of more than eight words, it is."
        text = answer if "End with one line" in prompt else reason
        output = ModelOutput.from_content("mockllm/model", text)
        # Given here, or inspect downloads a tokenizer to count them.
        read, made = len(prompt.split()), len(text.split())
        output.usage = ModelUsage(input_tokens=read, output_tokens=made, total_tokens=read + made)
        return output

    model = get_model("mockllm/model", custom_outputs=said)
    task = Task(dataset=[sample], solver=voc(**options), scorer=choice())
    (log,) = evaluate(task, model=model, log_dir=str(folder), display="none")
    assert log.status == "success", log.error
    assert log.samples
    return log.samples[0], seen


WALKING = Sample(
    input="Does walking help?", choices=["yes", "no", "maybe"], target="B",
    metadata={"context": "Walkers improved."},
)  # fmt: skip


def test_verdict_words(tmp_path: Path) -> None:
    found, seen = asked("yes: over-claims.\nFinal answer: no", WALKING, tmp_path)
    assert len(seen) == 4  # three explanations, a check
    assert all(p.startswith("Abstract: Walkers improved.\nQuestion: Does walking") for p in seen)
    assert found.scores["choice"].value == "C"  # correct
    assert found.output.completion == "ANSWER: B"
    assert found.metadata["voc"]["trace"]["parse"] == ["ok"]


def test_letters(tmp_path: Path) -> None:
    sample = Sample(input="Which drug?", choices=["aspirin", "heparin"], target="A")
    found, seen = asked("Final answer: B", sample, tmp_path)
    assert len(seen) == 3
    assert "A. aspirin\nB. heparin\n" in seen[0]
    assert found.scores["choice"].value == "I"  # incorrect
    assert found.metadata["voc"]["choice"] == "heparin"


def test_unparsed_is_no_answer(tmp_path: Path) -> None:
    found, _ = asked("It is hard to say.", WALKING, tmp_path)
    assert found.scores["choice"].value == "I"
    assert found.metadata["voc"]["choice"] == "NO_ANSWER"
    assert found.metadata["voc"]["trace"]["verdict"]["decided_by"] == "nothing"


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown option of verify 'kk'"):
        voc(kk=3)
