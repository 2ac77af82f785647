"""Sharing against the naive way, on tiny random models: the same tokens, scores within 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.engines.local import LocalEngine

Parts = Callable[..., SimpleNamespace]
STEM = "Abstract: of forty, ten were better. Question: is it so? "
QUESTIONS = [STEM + "Why", STEM + "How, and for whom?", "x", STEM + "Why not?", STEM + "Why"]
CHOICES = (" yes", " no", " maybe so", " maybe")
KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen3": {},
    "Glm4": {},
    "Gemma3": {"sliding_window": 200, "layer_types": ["sliding_attention", "full_attention"]},
    "Mistral": {"sliding_window": 200},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": 48},
    "Phi3": {},
    "Gemma2": {"sliding_window": 200, "layer_types": ["full_attention", "sliding_attention"]},
}


def random_model(name: str, vocabulary: int, **changes: Any) -> Any:
    import transformers

    library: Any = transformers
    shape: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 256, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    if name == "GPT2":
        shape = {k: v for k, v in shape.items() if k.endswith("_id") or k == "vocab_size"}
    kind = "Gemma3Text" if name == "Gemma3" else name
    config = getattr(library, f"{kind}Config")(**{**shape, **KINDS.get(name, {}), **changes})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(11)
        model = getattr(library, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(
            config
        ).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.2)
    return model


def pair(model: Any, tokenizer: Any, **options: Any) -> tuple[LocalEngine, LocalEngine]:
    """(sharing, naive): the naive one is told that it may not share."""
    sharing, naive = (LocalEngine(model, tokenizer, **options) for _ in range(2))
    naive.reuse.obstacle = "not in this test"
    return sharing, naive


def agree(sharing: LocalEngine, naive: LocalEngine, prompts: list[str], **ask: Any) -> None:
    for choices in ((" yes", " no"), CHOICES):
        for one, other in zip(
            sharing.choice_logprobs(prompts, choices),
            naive.choice_logprobs(prompts, choices),
            strict=True,
        ):
            assert one == pytest.approx(other, abs=1e-4)
    ask = {"max_tokens": 8, **ask}
    assert sharing.complete(prompts, **ask) == naive.complete(prompts, **ask)


@pytest.mark.parametrize("name", KINDS)
def test_other_architectures_share_exactly(engine: Any, name: str) -> None:
    sharing, naive = pair(random_model(name, len(engine.tokenizer)), engine.tokenizer)
    assert sharing.facts()["sharing"].startswith("exact: beginnings")
    assert naive.facts()["sharing"].startswith("off: ")
    for _ in range(2):  # the second time from what was kept
        agree(sharing, naive, QUESTIONS)
    agree(sharing, naive, QUESTIONS, temperature=1.0, top_p=0.9, seed=3)
    assert sharing.usage().prompt_tokens == naive.usage().prompt_tokens
    assert sharing.usage().prefilled_tokens < naive.usage().prefilled_tokens / 3


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    made=st.lists(
        st.tuples(
            st.sampled_from([STEM, STEM * 2, "Other: " + STEM]),
            st.integers(0, 110),
            st.text("abyes no?", max_size=20),
        ),
        min_size=1,
        max_size=7,
    ),
    size=st.sampled_from([1, 150, 4096]),
    keep=st.sampled_from([0, 60, 8192]),
    heat=st.sampled_from([0.0, 1.0]),
)
def test_any_prompts_share_exactly(
    engine: Any, made: list[tuple[str, int, str]], size: int, keep: int, heat: float
) -> None:
    prompts = ["Q" + head[:length] + tail + ":" for head, length, tail in made]
    sharing, naive = pair(engine.model, engine.tokenizer, batch_tokens=size, keep_tokens=keep)
    agree(sharing, naive, prompts, temperature=heat)
    agree(sharing, naive, prompts[::-1], temperature=heat)
    assert sharing.reuse.store.tokens <= keep


@pytest.mark.parametrize("reading", ["prefix", "blank"])
def test_models_that_read_both_ways_share_whole_prompts_only(parts: Parts, reading: str) -> None:
    from medexpert.model.special_tokens import add_infill_tokens

    made = parts()
    if reading == "blank":
        add_infill_tokens(made.model, made.tokenizer)
        with torch.no_grad():
            torch.manual_seed(3)
            made.model.get_input_embeddings().weight[-60:].normal_(0, 0.3)
    lineage = {"attention": reading}
    sharing, naive = pair(made.model, made.tokenizer, lineage=lineage)
    assert sharing.facts()["sharing"] == "exact: whole prompts"
    for _ in range(2):
        agree(sharing, naive, QUESTIONS)
    agree(sharing, naive, QUESTIONS, temperature=1.0, seed=3)
    fresh, _ = pair(made.model, made.tokenizer, lineage=lineage)
    unlike = [STEM + "Why", STEM + "Who"]
    fresh.choice_logprobs(unlike, [" yes"])
    assert fresh.usage().prefilled_tokens == fresh.usage().prompt_tokens


def test_a_part_of_a_prompt_read_both_ways_is_something_else(parts: Parts) -> None:
    """Why only whole prompts may be shared: a beginning's keys know what followed it."""
    made = parts()
    asked, plain = pair(made.model, made.tokenizer, lineage={"attention": "prefix"})
    (true,) = plain.choice_logprobs([STEM + "Why"], [" yes"])
    asked.reuse.reading = type(asked.reading)()  # plans as for a causal model
    (wrong,) = asked.choice_logprobs([STEM + "Who", STEM + "Why"], [" yes"])[1:]
    assert abs(wrong[0] - true[0]) > 1e-3


@pytest.mark.parametrize("window", [40, 75])
def test_rows_beyond_a_sliding_window_are_asked_the_naive_way(engine: Any, window: int) -> None:
    model = random_model("Gemma3", len(engine.tokenizer), sliding_window=window)
    sharing, naive = pair(model, engine.tokenizer)
    assert f"up to {window} tokens (sliding window)" in sharing.facts()["sharing"]
    agree(sharing, naive, [*QUESTIONS, "Short enough to share a", "Short enough to share b"])
    assert sharing.usage().prefilled_tokens < naive.usage().prefilled_tokens


def test_positions_scaled_by_length_are_those_of_a_row_alone(engine: Any) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
            "long_factor": [1.0, 2.0, 4.0, 8.0]}  # fmt: skip
    model = random_model(
        "Phi3", len(engine.tokenizer), rope_parameters=rope, original_max_position_embeddings=90
    )
    asked = LocalEngine(model, engine.tokenizer)
    assert "up to 90 tokens (rotary scaling)" in asked.facts()["sharing"]
    heads = (STEM, STEM + STEM[:14], STEM * 2, "Other: " + STEM[:40])
    prompts = [head + tail for head in heads for tail in ("Why", "How, and for whom?", "So?")]
    for _ in range(2):
        found = asked.choice_logprobs(prompts, CHOICES)
        for prompt, row in zip(prompts, found, strict=True):
            _, naive = pair(model, engine.tokenizer)
            assert row == pytest.approx(
                [naive.choice_logprobs([prompt], [c])[0][0] for c in CHOICES], abs=1e-4
            )
    assert asked.usage().prefilled_tokens < asked.usage().prompt_tokens


def test_a_cache_of_another_kind_is_told_and_not_shared(engine: Any) -> None:
    import transformers

    library: Any = transformers
    torch.manual_seed(0)
    model = library.MambaForCausalLM(
        library.MambaConfig(
            vocab_size=len(engine.tokenizer), hidden_size=32, state_size=4, num_hidden_layers=2,
            pad_token_id=2, bos_token_id=1, eos_token_id=2,
        )
    ).eval()  # fmt: skip
    asked = LocalEngine(model, engine.tokenizer)
    assert asked.facts()["sharing"].startswith("off: ")
    rows = asked.choice_logprobs(QUESTIONS, [" yes", " maybe"])
    assert rows[0] == pytest.approx(rows[-1], abs=1e-4)
    assert asked.usage().prefilled_tokens == asked.usage().prompt_tokens


def test_a_question_is_encoded_once_for_all_that_is_asked_of_it(parts: Parts) -> None:
    made = parts()
    asked = LocalEngine(made.model, made.tokenizer)
    size = len(asked.encode(STEM))
    branches = [STEM + f"Suppose {c}:" for c in "ABC"]
    asked.complete(branches, max_tokens=4)
    rest = sum(len(asked.encode(b)) - size for b in branches)
    shared = len(asked.encode(STEM + "Suppose "))
    first = asked.usage()
    assert first.prefilled_tokens == shared + sum(len(asked.encode(b)) - shared for b in branches)
    assert first.prompt_tokens == 3 * size + rest
    asked.choice_logprobs([STEM + "Verify:"], [" yes", " no"])
    again = asked.usage().since(first)
    assert again.prefilled_tokens == len(asked.encode("Verify:"))
    assert again.prompt_tokens == size + len(asked.encode("Verify:"))


def test_changed_weights_are_not_answered_from_the_past(parts: Parts) -> None:
    made = parts()
    sharing, _ = pair(made.model, made.tokenizer)
    sharing.choice_logprobs(QUESTIONS, [" yes"])
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.mul_(1.2)
    _, naive = pair(made.model, made.tokenizer)
    wanted = naive.choice_logprobs(QUESTIONS, [" yes"])
    for one, other in zip(sharing.choice_logprobs(QUESTIONS, [" yes"]), wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("reading", ["causal", "prefix"])
@pytest.mark.parametrize(("heat", "stop"), [(0.0, ()), (1.2, ()), (0.0, True), (1.2, True)])
def test_streamed_pieces_are_the_completion(
    parts: Parts, reading: str, heat: float, stop: Any, shares: bool
) -> None:
    made = parts()
    engines = pair(made.model, made.tokenizer, lineage={"attention": reading})
    asked = engines[0 if shares else 1]
    for prompt in (QUESTIONS[0], "x", "是"):
        ask: dict[str, Any] = {"max_tokens": 12, "temperature": heat, "seed": 5}
        (free,) = asked.complete([prompt], **ask)
        ask["stop"] = (free.text[3:6],) if stop and len(free.text) > 6 else ()
        before = asked.usage()
        pieces = list(asked.stream(prompt, **ask))
        streamed = asked.usage().since(before)
        (whole,) = asked.complete([prompt], **ask)
        assert "".join(pieces) == whole.text
        assert all(pieces)
        assert (streamed.calls, streamed.generated_tokens) == (1, whole.tokens)
        assert shares or streamed.prefilled_tokens == streamed.prompt_tokens


def test_a_stream_comes_in_pieces_and_faults_come_at_once(engine: Any) -> None:
    from medexpert.records import UserError

    assert len(list(engine.stream(QUESTIONS[0], max_tokens=20))) > 3
    with pytest.raises(UserError, match="do not fit"):
        engine.stream("x" * 300, max_tokens=5)
    with pytest.raises(UserError, match="max_tokens = 0"):
        engine.stream("x", max_tokens=0)


def test_rows_that_end_early_leave_the_others_alone(parts: Parts) -> None:
    """Rows are let go when they end: by end token, by a stop string, one after the other."""
    made = parts()
    sharing, naive = pair(made.model, made.tokenizer)
    prompts = [STEM + chr(ord("a") + k) for k in range(12)]
    free = naive.complete(prompts, max_tokens=24)
    for stop in ({c.text[2:4] for c in free if len(c.text) > 4}, {"e"}):
        ask: dict[str, Any] = {"max_tokens": 24, "stop": sorted(stop)}
        assert sharing.complete(prompts, **ask) == naive.complete(prompts, **ask)
        heat = {**ask, "temperature": 0.9, "seed": 2}
        assert sharing.complete(prompts, **heat) == naive.complete(prompts, **heat)
