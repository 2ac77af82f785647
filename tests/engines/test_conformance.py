"""What every engine keeps: order, lengths, finite numbers, plain counts."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from endpoint import EVERYTHING, Endpoint, TinyModel, running
from medexpert.engines.base import Engine, NoLogprobs, PromptError
from medexpert.engines.http import HttpEngine, HttpSettings
from medexpert.engines.scripted import ScriptedEngine
from medexpert.engines.tokenizer import Tokenizer

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture(params=["local", "scripted", "paired", "http", "http-chat"])
def any_engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "local":
        yield request.getfixturevalue("engine")
    elif request.param == "scripted":
        yield ScriptedEngine(lambda prompt: f"said of {prompt}", lambda p, cs: [-1.0 for _ in cs])
    elif request.param == "paired":  # OpenVINO writes, the local engine scores
        from medexpert.engines.local import LocalEngine
        from medexpert.engines.paired import PairedEngine

        folder = request.getfixturevalue("model_folder")
        writer = request.getfixturevalue("open_openvino")()
        yield PairedEngine(writer, LocalEngine.open(folder))
    elif request.param == "http-chat":
        with running(Endpoint(offers=EVERYTHING - {"completions"})) as state:
            made = HttpEngine(HttpSettings(state.address, "tiny"))
            yield made
            made.close()
    else:
        local = request.getfixturevalue("engine")
        folder = request.getfixturevalue("tmp_path") / "tiny"
        local.tokenizer.save_pretrained(folder)
        with running(Endpoint(TinyModel(local))) as state:
            made = HttpEngine(HttpSettings(state.address, "tiny"), Tokenizer(folder))
            yield made
            made.close()


def test_shapes_and_order(any_engine: Engine) -> None:
    prompts = ["Q: one\nA:", "Q: two, and longer\nA:", "x"]
    rows = any_engine.choice_logprobs(prompts, [" yes", " no", " maybe"])
    assert [len(row) for row in rows] == [3, 3, 3]
    assert all(math.isfinite(value) and value < 0 for row in rows for value in row)
    made = any_engine.complete(prompts, max_tokens=5)
    assert len(made) == 3
    assert all(c.finish in ("stop", "length") and 0 <= c.tokens <= 5 for c in made)
    try:
        scores = any_engine.text_logprobs(["some text", "是"])
    except NoLogprobs:
        assert any_engine.facts()["api"] == "chat"
        return
    assert [s.bytes for s in scores] == [9, 3]
    assert all(s.logprob < 0 < s.tokens for s in scores)


def test_nothing_asked_nothing_answered(any_engine: Engine) -> None:
    assert any_engine.complete([], max_tokens=3) == []
    assert any_engine.choice_logprobs([], [" yes"]) == []
    with contextlib.suppress(NoLogprobs):
        assert any_engine.text_logprobs([]) == []


def test_work_is_counted(any_engine: Engine) -> None:
    before = any_engine.usage()
    made = any_engine.complete(["Q: one\nA:", "Q: two\nA:"], max_tokens=5)
    used = any_engine.usage().since(before)
    assert used.calls == 2
    assert used.prompt_tokens >= 4
    assert used.generated_tokens == sum(completion.tokens for completion in made)


def test_stream_is_complete_in_pieces(any_engine: Any) -> None:
    if not hasattr(any_engine, "stream"):
        pytest.skip(f"{any_engine.facts()['engine']} does not stream")
    (made,) = any_engine.complete(["Q: one\nA:"], max_tokens=6)
    assert "".join(any_engine.stream("Q: one\nA:", max_tokens=6)) == made.text


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
