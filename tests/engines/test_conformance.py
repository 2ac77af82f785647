"""What every engine keeps: order, lengths, finite numbers, plain counts."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from medexpert.engines.base import Engine, PromptError
from medexpert.engines.scripted import ScriptedEngine


@pytest.fixture(params=["local", "scripted", "paired"])
def any_engine(request: pytest.FixtureRequest) -> Any:
    if request.param == "local":
        return request.getfixturevalue("engine")
    if request.param == "paired":  # OpenVINO writes, the local engine scores
        from medexpert.engines.local import LocalEngine
        from medexpert.engines.paired import PairedEngine

        folder = request.getfixturevalue("model_folder")
        writer = request.getfixturevalue("open_openvino")()
        return PairedEngine(writer, LocalEngine.open(folder))
    return ScriptedEngine(lambda prompt: f"said of {prompt}", lambda p, cs: [-1.0 for _ in cs])


def test_shapes_and_order(any_engine: Engine) -> None:
    prompts = ["Q: one\nA:", "Q: two, and longer\nA:", "x"]
    rows = any_engine.choice_logprobs(prompts, [" yes", " no", " maybe"])
    assert [len(row) for row in rows] == [3, 3, 3]
    assert all(math.isfinite(value) and value < 0 for row in rows for value in row)
    made = any_engine.complete(prompts, max_tokens=5)
    assert len(made) == 3
    assert all(c.finish in ("stop", "length") and 0 <= c.tokens <= 5 for c in made)
    scores = any_engine.text_logprobs(["some text", "是"])
    assert [s.bytes for s in scores] == [9, 3]
    assert all(s.logprob < 0 < s.tokens for s in scores)


def test_nothing_asked_nothing_answered(any_engine: Engine) -> None:
    assert any_engine.complete([], max_tokens=3) == []
    assert any_engine.choice_logprobs([], [" yes"]) == []
    assert any_engine.text_logprobs([]) == []


def test_facts_are_plain_json(any_engine: Engine) -> None:
    assert json.loads(json.dumps(any_engine.facts()))["model"] == any_engine.name
    assert any_engine.count_tokens("a b") >= 2


def test_scripted_engine_records_and_never_invents() -> None:
    engine = ScriptedEngine({"p": "one two\n\nthree"}, {"p": [-1, -2]})
    assert engine.complete(["p"], max_tokens=9, stop=["\n\n"])[0].text == "one two"
    assert engine.complete(["p"], max_tokens=1)[0].finish == "length"
    assert engine.choice_logprobs(["p"], [" a", " b"]) == [[-1.0, -2.0]]
    assert [call.kind for call in engine.calls] == ["complete", "complete", "choice_logprobs"]
    with pytest.raises(PromptError, match="no completion is scripted for 'q'") as caught:
        engine.complete(["p", "q"], max_tokens=1)
    assert caught.value.index == 1
    with pytest.raises(PromptError, match="no log-probabilities are scripted for 'q'"):
        engine.choice_logprobs(["q"], [" a"])
    with pytest.raises(PromptError, match="2 log-probabilities scripted for 1 choices"):
        engine.choice_logprobs(["p"], [" a"])
