"""OpenVINO on a tiny random Llama against the local engine in float32."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medexpert.engines.base import Forgetful, NoLogprobs, PromptError
from medexpert.engines.generation import end_tokens
from medexpert.engines.local import LocalEngine
from medexpert.engines.openvino import OpenVINOEngine
from medexpert.engines.paired import PairedEngine
from medexpert.model.exported import gguf_of
from medexpert.records import UserError

PROMPTS = ["Question: a?\nAnswer:", "Q:", "Is it so, or is it otherwise, and for whom?\nAnswer:"]
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def written(open_openvino: Open) -> Any:
    """One engine for all tests that only ask."""
    return open_openvino()


@pytest.fixture(scope="module")
def local(model_folder: Path) -> LocalEngine:
    return LocalEngine.open(model_folder)


def test_greedy_text_is_the_local_engines(written: Any, local: LocalEngine) -> None:
    for stop in ((), (" t",)):
        wanted = local.complete(PROMPTS, max_tokens=16, stop=stop)
        assert written.complete(PROMPTS, max_tokens=16, stop=stop) == wanted
    assert all(c.text for c in local.complete(PROMPTS, max_tokens=16))
    assert written.name == local.name
    assert written.chat == local.chat
    assert written.count_tokens(PROMPTS[2]) == local.count_tokens(PROMPTS[2])


def test_a_stop_string_ends_one_row_and_not_the_others(written: Any) -> None:
    free = written.complete(PROMPTS, max_tokens=16)
    mark = free[2].text[3:6]
    cut = written.complete(PROMPTS, max_tokens=16, stop=[mark])
    for before, after in zip(free, cut, strict=True):
        at = before.text.find(mark)
        assert after.text == (before.text if at < 0 else before.text[:at])
        assert after.finish == ("stop" if at >= 0 else before.finish)
        assert after.tokens <= before.tokens
    assert cut[2].tokens < free[2].tokens
    # The row that was let go leaves nothing behind.
    assert written.complete(PROMPTS, max_tokens=16) == free


def test_an_end_token_ends_and_is_counted(open_openvino: Open) -> None:
    engine = open_openvino()
    (free,) = engine.complete([PROMPTS[0]], max_tokens=8)
    ids = engine.tokenizer(free.text, add_special_tokens=False)["input_ids"]
    engine.exported = replace(engine.exported, ends=(ids[2],))
    (ended,) = engine.complete([PROMPTS[0]], max_tokens=8)
    at = ids.index(ids[2])
    assert (ended.tokens, ended.finish) == (at + 1, "stop")
    assert free.text.startswith(ended.text)


def test_end_tokens_are_those_the_local_engine_stops_at(
    model_folder: Path, tmp_path: Path, open_openvino: Open
) -> None:
    """Without generation_config.json they stand in config.json."""
    import json
    import shutil

    folder = tmp_path / "older"
    shutil.copytree(model_folder, folder)
    (folder / "generation_config.json").unlink()
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": [2, 40]}))
    exported = gguf_of(folder, cache=tmp_path / "cache")
    local = LocalEngine.open(folder)
    assert list(exported.ends) == end_tokens(local.model, local.tokenizer) == [2, 40]


def test_samples_are_seeded_row_by_row(written: Any) -> None:
    ask: dict[str, Any] = {"max_tokens": 10, "temperature": 1.0, "top_p": 0.95}
    first = written.complete(PROMPTS, seed=1, **ask)
    assert written.complete(PROMPTS, seed=1, **ask) == first
    assert [written.complete([p], seed=1, **ask)[0] for p in PROMPTS] == first
    assert written.complete(PROMPTS[::-1], seed=1, **ask) == first[::-1]
    assert written.complete(PROMPTS, seed=2, **ask) != first
    twins = written.complete([PROMPTS[0]] * 3, seed=1, **ask)
    assert len({c.text for c in twins}) > 1


def test_samples_follow_the_models_distribution(written: Any, local: LocalEngine) -> None:
    import torch

    draws = written.complete(["Q:"] * 400, max_tokens=1, temperature=0.5, seed=3)
    with torch.no_grad():
        last = local.model(torch.tensor([local.encode("Q:")])).logits[0, -1]
    share = (last / 0.5).softmax(-1)
    token = int(share.argmax())
    text = local.tokenizer.decode([token], skip_special_tokens=True)
    drawn = sum(c.text == text for c in draws) / len(draws)
    assert drawn == pytest.approx(float(share[token]), abs=0.08)


def test_shared_beginnings_are_encoded_once_and_change_nothing(open_openvino: Open) -> None:
    head = "A passage that three branches share. " * 8
    prompts = [head + tail for tail in ("Yes?", "No, then?", "Maybe?")]
    plain, primed = open_openvino(prime=False), open_openvino()
    wanted = plain.complete(prompts, max_tokens=6)
    assert primed.complete(prompts, max_tokens=6) == wanted
    before, after = plain.usage(), primed.usage()
    assert before.prefilled_tokens == before.prompt_tokens == after.prompt_tokens
    shared = len(primed.tokenizer(head)["input_ids"]) // 32 * 32
    assert shared >= 64
    assert after.prefilled_tokens == after.prompt_tokens - 2 * shared
    assert after.calls == before.calls == 3
    assert after.generated_tokens == sum(c.tokens for c in wanted)
    assert after.seconds > 0


def test_more_prompts_than_the_cache_holds_go_in_batches(open_openvino: Open) -> None:
    prompts = [f"Number {k}: " + "so many words " * 12 for k in range(12)]
    whole = open_openvino().complete(prompts, max_tokens=5)
    small = open_openvino(rows=3)
    small.capacity = 200
    assert len(list(small._batches([[1] * 60] * 5, 5))) == 3
    assert small.complete(prompts, max_tokens=5) == whole


def test_streamed_pieces_are_the_text(written: Any) -> None:
    for ask in ({}, {"stop": [" t", "zz"]}, {"temperature": 1.0, "seed": 4}):
        (whole,) = written.complete([PROMPTS[2]], max_tokens=14, **ask)
        pieces = list(written.stream(PROMPTS[2], max_tokens=14, **ask))
        assert "".join(pieces) == whole.text
    assert len(list(written.stream(PROMPTS[2], max_tokens=14))) > 3


def test_a_stream_that_is_left_ends_its_request(written: Any) -> None:
    before = written.usage()
    pieces = written.stream(PROMPTS[2], max_tokens=30)
    next(pieces)
    pieces.close()
    assert not written._pipeline.has_non_finished_requests()
    used = written.usage().since(before)
    assert used.calls == 1
    assert 0 < used.generated_tokens < 30


def test_it_does_not_score(written: Any) -> None:
    with pytest.raises(NoLogprobs, match=r"gives no log-probabilities; allowed: the paired"):
        written.choice_logprobs(["a"], [" yes"])
    with pytest.raises(NoLogprobs):
        written.text_logprobs(["a"])


@pytest.mark.parametrize(
    ("prompts", "room", "message"),
    [
        (["a", ""], 5, "prompt 2: the prompt is empty"),
        (["a", "b " * 3000], 5, r"prompt 2: 6000 tokens and 5 to follow do not fit the context"),
        (["a"], 0, "max_tokens = 0"),
    ],
)
def test_faults_of_prompts_are_named(
    written: Any, prompts: list[str], room: int, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        written.complete(prompts, max_tokens=room)
    if isinstance(caught.value, PromptError):
        assert caught.value.index == 1


def test_what_does_not_fit_the_cache_is_told(open_openvino: Open) -> None:
    engine = open_openvino(cache_gb=0.0001)
    with pytest.raises(PromptError, match=r"do not fit the key-value cache \(cache_gb\)"):
        engine.complete(["so many words " * 60], max_tokens=100)


def test_the_export_is_made_once(open_openvino: Open, tmp_path: Path) -> None:
    lines: list[str] = []
    cache = tmp_path / "own"
    first = open_openvino(cache=cache, progress=lines.append)
    assert any("making the GGUF" in line for line in lines)
    lines.clear()
    again = open_openvino(cache=cache, progress=lines.append)
    assert lines == []
    assert again.exported.path == first.exported.path
    assert again.facts() == first.facts()


def test_faults_of_opening(open_openvino: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"unknown dtype 'float33'.*did you mean 'float32'"):
        open_openvino(dtype="float33")
    with pytest.raises(UserError, match="rows = 0"):
        open_openvino(rows=0)
    with pytest.raises(UserError, match="unknown type 'f61'"):
        open_openvino(kind="f61")
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    with pytest.raises(UserError, match=r"needs the package .*pip install 'medexpert\[cpu-gen\]'"):
        open_openvino()


def test_a_pair_writes_with_one_and_scores_with_the_other(written: Any, local: LocalEngine) -> None:
    pair = PairedEngine(written, local)
    before = pair.usage()
    assert pair.complete(PROMPTS, max_tokens=4) == written.complete(PROMPTS, max_tokens=4)
    scores = pair.choice_logprobs(PROMPTS, [" yes", " no"])
    assert scores == local.choice_logprobs(PROMPTS, [" yes", " no"])
    assert (
        "".join(pair.stream(PROMPTS[0], max_tokens=4))
        == pair.complete([PROMPTS[0]], max_tokens=4)[0].text
    )
    facts = pair.facts()
    assert facts["generator"]["engine"] == "openvino"
    assert facts["scorer"]["engine"] == "local"
    assert pair.usage().since(before).generated_tokens > 0
    assert isinstance(pair, Forgetful)
    shared = [PROMPTS[2] + " Yes", PROMPTS[2] + " No"]
    costs = []
    for _ in range(2):
        pair.forget()
        before = pair.usage()
        pair.choice_logprobs(shared, [" yes", " no"])
        costs.append(pair.usage().since(before).prefilled_tokens)
    assert costs[0] == costs[1]
    other = SimpleNamespace(name="another", chat=local.chat)
    with pytest.raises(UserError, match="a pair needs one model in both engines"):
        PairedEngine(written, other)  # type: ignore[arg-type]


def test_a_pair_is_opened_from_one_folder(
    model_folder: Path, tmp_path: Path, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDEXPERT_CACHE", str(tmp_path / "pair"))
    pair = PairedEngine.open(str(model_folder), threads=1)
    assert pair.name == written.name == "small" == pair.facts()["model"]
    assert pair.facts()["scorer"]["dtype"] == "float32"
    (made,) = pair.complete(["Q:"], max_tokens=3)
    assert made.tokens <= 3


def test_a_model_that_openvino_misreads_is_refused(
    open_openvino: Open, tiny_model: Callable[..., Any], tmp_path: Path, model_folder: Path
) -> None:
    import shutil

    shutil.copytree(model_folder, tmp_path / "biased")
    tiny_model(vocab_size=265, attention_bias=True).save_pretrained(tmp_path / "biased")
    with pytest.raises(UserError, match=r"leaves out the biases .*k_proj\.bias.*the local engine"):
        OpenVINOEngine.open(tmp_path / "biased")
