"""Prompts read both ways: scores and tokens against one whole pass with the mask, no cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medexpert.engines.local import LocalEngine
from medexpert.engines.prefix import Reading, generate_prefix, reading_of
from medexpert.model import checkpoint
from medexpert.model.attention import prefix_mask
from medexpert.model.special_tokens import add_infill_tokens
from medexpert.records import UserError

PROMPTS = ["Question: a?\nAnswer:", "Q:", "Is it so, or is it otherwise, and for whom?\nAnswer:"]
READINGS = ("prefix", "blank")
Engines = Callable[..., LocalEngine]


@pytest.fixture
def engines(parts: Callable[..., SimpleNamespace]) -> Engines:
    def make(reading: str = "prefix", *, batch_tokens: int = 64, **changes: Any) -> LocalEngine:
        made = parts(**changes)
        if reading == "blank":
            add_infill_tokens(made.model, made.tokenizer)
            with torch.no_grad():  # the rows must differ for their place to matter
                torch.manual_seed(3)
                made.model.get_input_embeddings().weight[-60:].normal_(0, 0.3)
        return LocalEngine(
            made.model,
            made.tokenizer,
            batch_tokens=batch_tokens,
            lineage={} if reading == "causal" else {"attention": reading},
        )

    return make


def logits(engine: LocalEngine, given: list[int], more: Sequence[int]) -> torch.Tensor:
    """(T, V) of one row in one pass: what is given is read both ways, `more` causally."""
    ids = torch.tensor([[*given, *more]])
    prefix = torch.arange(ids.shape[1])[None] < len(given) - len(engine.reading.start)
    mask = prefix_mask(torch.zeros_like(ids), prefix, engine.model.config, "sdpa")
    with torch.no_grad():
        found: torch.Tensor = (
            engine.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0].float()
        )
    return found


def naive_score(engine: LocalEngine, prompt: str, choice: str) -> float:
    head = engine.encode(prompt)
    tail = engine.encode(prompt + choice)[len(head) :]
    given = engine.reading.given(head)
    found = logits(engine, given, tail).log_softmax(-1)
    return sum(float(found[len(given) - 1 + k, token]) for k, token in enumerate(tail))


def naive_greedy(engine: LocalEngine, prompt: str, count: int) -> list[int]:
    given, made = engine.reading.given(engine.encode(prompt)), []
    while len(made) < count:
        made.append(int(logits(engine, given, made)[-1].argmax()))
        if made[-1] in (engine.tokenizer.eos_token_id, *engine.reading.ends):
            break
    return made


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("choices", [(" yes", " no"), (" yes", " no", " maybe"), (" a b", " c")])
def test_choices_equal_one_whole_pass(
    engines: Engines, reading: str, choices: tuple[str, ...]
) -> None:
    engine = engines(reading)
    for prompt, row in zip(PROMPTS, engine.choice_logprobs(PROMPTS, choices), strict=True):
        assert row == pytest.approx([naive_score(engine, prompt, c) for c in choices], abs=1e-4)


@pytest.mark.parametrize("reading", READINGS)
def test_choices_do_not_depend_on_the_batch(engines: Engines, reading: str) -> None:
    rows = [
        engines(reading, batch_tokens=size).choice_logprobs(PROMPTS, [" yes", " no"])
        for size in (1, 4096)
    ]
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_the_reading_changes_the_scores(engines: Engines) -> None:
    """Otherwise the tests above would hold for a model that is asked causally."""
    scores = {name: engines(name).choice_logprobs(PROMPTS, [" yes"]) for name in
              ("causal", *READINGS)}  # fmt: skip
    assert abs(scores["causal"][2][0] - scores["prefix"][2][0]) > 1e-2
    assert abs(scores["blank"][2][0] - scores["prefix"][2][0]) > 1e-2


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_greedy_text_equals_whole_passes(engines: Engines, reading: str, batch_tokens: int) -> None:
    engine = engines(reading, batch_tokens=batch_tokens)
    found = engine.complete(PROMPTS, max_tokens=8)
    for prompt, made in zip(PROMPTS, found, strict=True):
        wanted = naive_greedy(engine, prompt, 8)
        assert made.tokens == len(wanted)
        ends = (engine.tokenizer.eos_token_id, *engine.reading.ends)
        assert made.finish == ("stop" if wanted[-1] in ends else "length")
        assert made.text == engine.tokenizer.decode(
            [t for t in wanted if t not in ends], skip_special_tokens=True
        )


@pytest.mark.parametrize("name", ["Gemma3", "Mistral", "Glm4", "Qwen3"])
def test_other_architectures_step_exactly(engine: Any, name: str) -> None:
    """Sliding windows shorter than the prompts included; token ids compared, batch and alone."""
    import transformers

    library: Any = transformers
    settings: dict[str, Any] = {
        "vocab_size": len(engine.tokenizer), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 128, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    if name in ("Gemma3", "Mistral"):
        settings["sliding_window"] = 5
    if name == "Gemma3":
        settings["layer_types"] = ["sliding_attention", "full_attention"]
    kind = "Gemma3Text" if name == "Gemma3" else name
    torch.manual_seed(0)
    model = getattr(library, f"{name}ForCausalLM")(
        getattr(library, f"{kind}Config")(**settings)
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15)
    whole = LocalEngine(model, engine.tokenizer, lineage={"attention": "prefix"})
    alone = LocalEngine(model, engine.tokenizer, batch_tokens=1, lineage=whole.lineage)
    assert whole.complete(PROMPTS, max_tokens=8) == alone.complete(PROMPTS, max_tokens=8)
    rows = whole.choice_logprobs(PROMPTS, [" yes", " maybe so"])
    for prompt, row in zip(PROMPTS, rows, strict=True):
        wanted = [naive_score(whole, prompt, c) for c in (" yes", " maybe so")]
        assert row == pytest.approx(wanted, abs=1e-4)
    for prompt, made in zip(PROMPTS, whole.complete(PROMPTS, max_tokens=8), strict=True):
        new = naive_greedy(whole, prompt, 8)
        assert made.tokens == len(new)
        assert made.text == engine.tokenizer.decode(
            [t for t in new if t != 2], skip_special_tokens=True
        )


def _sliding_logits(model: Any, ids: list[int], prefix: int, window: int) -> torch.Tensor:
    """(V,) behind the row, in one pass with masks written out for both kinds of layer."""
    place = torch.arange(len(ids))
    seen = (place[None] < prefix) | (place[None] <= place[:, None])
    near = seen & ((place[None] - place[:, None]).abs() < window)
    mask = {"full_attention": seen[None, None], "sliding_attention": near[None, None]}
    with torch.no_grad():
        found: torch.Tensor = model(
            input_ids=torch.tensor([ids]), attention_mask=mask, use_cache=False
        ).logits[0, -1]
    return found


def test_sliding_windows_step_as_whole_passes(engine: Any) -> None:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    model: Any = Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=len(engine.tokenizer), hidden_size=32, intermediate_size=48,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
            max_position_embeddings=128, sliding_window=5, pad_token_id=2, bos_token_id=1,
            eos_token_id=2, layer_types=["sliding_attention", "full_attention"],
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15)
    asked = LocalEngine(model, engine.tokenizer, lineage={"attention": "prefix"})
    found = asked.complete(PROMPTS, max_tokens=8)
    for prompt, made in zip(PROMPTS, found, strict=True):
        given = asked.encode(prompt)
        ids = list(given)
        for _ in range(8):
            ids.append(int(_sliding_logits(model, ids, len(given), 5).argmax()))
            if ids[-1] == 2:
                break
        new = ids[len(given) :]
        assert made.tokens == len(new)
        assert made.text == asked.tokenizer.decode(
            [t for t in new if t != 2], skip_special_tokens=True
        )


def test_without_a_prefix_the_loop_is_transformers_own(engines: Engines) -> None:
    """Greedy and sampled: the same tokens as generate() on the same causal model."""
    from medexpert.engines.generation import Settings, generate, row_seeds

    engine = engines("causal")
    rows, seeds = [engine.encode(p) for p in PROMPTS], row_seeds(PROMPTS, 5)
    for temperature, top_p in ((0.0, 1.0), (1.0, 1.0), (0.8, 0.7)):
        settings = Settings(10, ("zz",), temperature, top_p)
        taken = (engine.model, engine.tokenizer, rows, settings, seeds)
        assert generate_prefix(*taken, Reading()) == generate(*taken)


@pytest.mark.parametrize("reading", READINGS)
def test_samples_do_not_depend_on_the_batch(engines: Engines, reading: str) -> None:
    found = [
        engines(reading, batch_tokens=size).complete(
            PROMPTS, max_tokens=10, temperature=1.0, top_p=0.9, seed=4
        )
        for size in (1, 4096)
    ]
    assert found[0] == found[1]
    other = engines(reading).complete(PROMPTS, max_tokens=10, temperature=1.0, top_p=0.9, seed=5)
    assert other != found[0]


def test_a_stop_string_ends_a_row_and_not_the_others(engines: Engines) -> None:
    engine = engines("prefix", batch_tokens=4096)
    free = engine.complete(PROMPTS, max_tokens=12)
    text = next(c.text for c in free if len(c.text) > 4)
    mark = text[2:4]
    stopped = engine.complete(PROMPTS, max_tokens=12, stop=[mark])
    for before, after in zip(free, stopped, strict=True):
        cut = before.text.find(mark)
        assert after.text == (before.text if cut < 0 else before.text[:cut])
        assert after.finish == ("stop" if cut >= 0 else before.finish)


def test_the_end_of_a_blank_ends_the_answer(engines: Engines) -> None:
    engine = engines("blank")
    (end,) = engine.reading.ends
    head = engine.model.get_output_embeddings()
    plain = head.forward

    def sure(states: torch.Tensor) -> torch.Tensor:
        out = plain(states)
        out[..., end] = 1e4
        return out

    head.forward = sure
    for made in engine.complete(PROMPTS, max_tokens=5):
        assert (made.text, made.tokens, made.finish) == ("", 1, "stop")


def test_texts_are_scored_causally_whatever_the_reading(engines: Engines) -> None:
    scores = [engines(name).text_logprobs(PROMPTS) for name in ("causal", "prefix")]
    assert scores[0] == scores[1]


def test_the_extra_tokens_count_against_the_context(engines: Engines) -> None:
    engine = engines("blank")
    prompt = "a" * (engine.context - 10)
    size = len(engine.encode(prompt))
    room = engine.context - size
    with pytest.raises(UserError, match="do not fit"):
        engine.complete([prompt], max_tokens=room - 1)
    assert len(engine.complete([prompt], max_tokens=room - 2)) == 1


# -- where the reading comes from -----------------------------------------------------------------


@pytest.mark.parametrize("reading", ["causal", "prefix", "blank"])
def test_a_folder_says_how_it_is_asked(engines: Engines, tmp_path: Path, reading: str) -> None:
    made = engines(reading)
    lineage = {"stage": "instruct", "attention": reading}
    folder = tmp_path / "run" / "instruct" / "model"
    checkpoint.save_model(made.model, made.tokenizer, folder, lineage=lineage, dtype=torch.float32)
    opened = LocalEngine.open(folder)
    assert opened.reading == made.reading
    assert json.loads(json.dumps(opened.facts()))["reading"] == reading
    for one, other in zip(
        opened.choice_logprobs(PROMPTS, [" yes", " maybe"]),
        made.choice_logprobs(PROMPTS, [" yes", " maybe"]),
        strict=True,
    ):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_model_from_elsewhere_is_causal(engine: Any) -> None:
    assert engine.reading == Reading()
    assert reading_of({}, engine.tokenizer) == Reading()


def test_an_unknown_reading_and_missing_tokens_are_told(engine: Any) -> None:
    with pytest.raises(UserError, match="'sideways'"):
        reading_of({"attention": "sideways"}, engine.tokenizer)
    with pytest.raises(UserError, match=r"no \[MASK\]"):
        reading_of({"attention": "blank"}, engine.tokenizer)


def test_a_model_whose_attention_takes_no_mask_is_refused(engines: Engines) -> None:
    engine = engines("prefix")
    engine.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="flash_attention_2"):
        engine.choice_logprobs(PROMPTS, [" yes"])
