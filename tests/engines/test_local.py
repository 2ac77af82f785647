"""The local engine against naive scoring: one pass a prompt and choice, no padding, no cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medexpert.engines.local import LocalEngine, batches
from medexpert.records import UserError

PROMPTS = ["Question: a?\nAnswer:", "Q:", "Is it so, or is it otherwise, and for whom?\nAnswer:"]
Parts = Callable[..., SimpleNamespace]


def naive(engine: LocalEngine, prompt: str, choice: str) -> float:
    """Sum of ln p(choice's tokens), from whole logits of one sequence."""
    head, whole = engine.encode(prompt), engine.encode(prompt + choice)
    with torch.no_grad():
        logprobs = engine.model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(float(logprobs[k - 1, whole[k]]) for k in range(len(head), len(whole)))


def near(found: Sequence[float], wanted: Sequence[float]) -> bool:
    return list(found) == pytest.approx(list(wanted), abs=1e-4)


@pytest.mark.parametrize(
    "choices", [(" yes", " no"), (" yes", " no", " maybe"), (" yes indeed", " no")]
)
def test_choice_logprobs_equal_naive_scoring(engine: Any, choices: tuple[str, ...]) -> None:
    rows = engine.choice_logprobs(PROMPTS, choices)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert near(row, [naive(engine, prompt, choice) for choice in choices])


def test_choices_do_not_depend_on_batch_size(parts: Parts) -> None:
    made = parts()
    rows = [
        LocalEngine(made.model, made.tokenizer, batch_tokens=size).choice_logprobs(
            PROMPTS, [" yes", " no", " a long choice"]
        )
        for size in (1, 40, 4096)
    ]
    for other in rows[1:]:
        assert all(near(a, b) for a, b in zip(rows[0], other, strict=True))


def test_scores_are_normalised_over_the_vocabulary(engine: Any) -> None:
    tokens = [chr(n) for n in range(ord("a"), ord("z"))]
    (row,) = engine.choice_logprobs(["x "], tokens)
    assert 0 < sum(map(math.exp, row)) < 1


def test_a_model_that_caps_its_logits_is_scored_by_its_own_forward(parts: Parts) -> None:
    made = parts()
    plain = made.model.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        out.logits = 2 * torch.tanh(out.logits / 2)
        return out

    made.model.forward = capped
    engine = LocalEngine(made.model, made.tokenizer)
    rows = engine.choice_logprobs(PROMPTS, [" yes", " maybe"])
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert near(row, [naive(engine, prompt, c) for c in (" yes", " maybe")])
    text = engine.text_logprobs([PROMPTS[0]])[0]
    assert text.logprob == pytest.approx(naive(engine, "<|im_start|>", PROMPTS[0]), abs=1e-3)


def test_a_peft_adapter_is_scored_with_its_weights(parts: Parts) -> None:
    from peft import LoraConfig, get_peft_model

    made = parts()
    before = LocalEngine(made.model, made.tokenizer).choice_logprobs(PROMPTS, [" yes", " no"])
    wrapped = get_peft_model(
        made.model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear",
                               init_lora_weights=False),
    )  # fmt: skip
    engine = LocalEngine(wrapped, made.tokenizer)
    rows = engine.choice_logprobs(PROMPTS, [" yes", " no"])
    assert not near(rows[0], before[0])
    assert near(rows[0], [naive(engine, PROMPTS[0], c) for c in (" yes", " no")])


def test_start_token_is_added_once(parts: Parts) -> None:
    made = parts(adds_bos=True)
    engine = LocalEngine(made.model, made.tokenizer)
    assert engine.encode("a")[0] == 1
    assert engine.encode("<|im_start|>a").count(1) == 1
    assert engine.count_tokens("yes no") == 2
    assert 1 not in LocalEngine(parts().model, parts().tokenizer).encode("a")


def test_long_text_is_scored_whole_in_windows(parts: Parts) -> None:
    made = parts(max_position_embeddings=8)
    engine = LocalEngine(made.model, made.tokenizer, batch_tokens=16)
    text = "Some longer text, of more than one window. 是"
    ids = made.tokenizer(text)["input_ids"]
    wanted = 0.0
    for at in range(0, len(ids), 8):
        window = [1 if at == 0 else ids[at - 1], *ids[at : at + 8]]
        with torch.no_grad():
            logprobs = made.model(torch.tensor([window[:-1]])).logits[0].log_softmax(-1)
        wanted += sum(float(logprobs[k, token]) for k, token in enumerate(window[1:]))
    short, found = engine.text_logprobs(["a", text])
    assert found.logprob == pytest.approx(wanted, abs=1e-3)
    assert (found.tokens, found.bytes) == (len(ids), len(text.encode()))
    assert short.tokens == 1
    assert short.logprob < 0
    assert engine.text_logprobs([""])[0].tokens == 0


def test_greedy_batch_equals_one_by_one(engine: Any) -> None:
    together = engine.complete(PROMPTS, max_tokens=12)
    alone = [engine.complete([prompt], max_tokens=12)[0] for prompt in PROMPTS]
    assert together == alone
    assert all(c.tokens == 12 for c in together if c.finish == "length")


def test_greedy_equals_stepwise_argmax(engine: Any) -> None:
    ids = engine.encode(PROMPTS[0])
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(engine.model(torch.tensor([ids])).logits[0, -1].argmax()))
    made = ids[-6:]
    wanted = engine.tokenizer.decode(made, skip_special_tokens=True)
    if 2 not in made:
        assert engine.complete([PROMPTS[0]], max_tokens=6)[0].text == wanted


def test_stop_string_ends_and_is_trimmed(engine: Any) -> None:
    (whole,) = engine.complete([PROMPTS[0]], max_tokens=12)
    mark = whole.text[2:4]
    (cut,) = engine.complete([PROMPTS[0]], max_tokens=12, stop=[mark])
    assert cut.text == whole.text[: whole.text.find(mark)]
    assert cut.finish == "stop"
    assert cut.tokens < whole.tokens


def test_end_token_is_counted_and_not_shown(parts: Parts) -> None:
    made = parts()
    head = torch.nn.Linear(32, len(made.tokenizer))
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[2] = 5.0
    made.model.set_output_embeddings(head)
    (found,) = LocalEngine(made.model, made.tokenizer).complete(["a"], max_tokens=5)
    assert (found.text, found.tokens, found.finish) == ("", 1, "stop")


def test_sampling_is_reproducible_and_leaves_the_global_generator_alone(engine: Any) -> None:
    ask: dict[str, Any] = {"max_tokens": 10, "temperature": 1.5, "top_p": 0.95}
    state = torch.random.get_rng_state()
    first = engine.complete(PROMPTS, seed=1, **ask)
    assert torch.equal(state, torch.random.get_rng_state())
    assert engine.complete(PROMPTS, seed=1, **ask) == first
    assert [engine.complete([p], seed=1, **ask)[0] for p in PROMPTS] == first
    assert engine.complete(PROMPTS, seed=2, **ask) != first
    twins = engine.complete([PROMPTS[0]] * 3, seed=1, **ask)
    assert len({c.text for c in twins}) > 1


def test_sampling_follows_the_model_distribution(engine: Any) -> None:
    draws = engine.complete(["Q:"] * 600, max_tokens=1, temperature=1.0, seed=3)
    with torch.no_grad():
        last = engine.model(torch.tensor([engine.encode("Q:")])).logits[0, -1].softmax(-1)
    token = int(last.argmax())
    text = engine.tokenizer.decode([token], skip_special_tokens=True)
    share = sum(c.text == text for c in draws) / len(draws)
    assert share == pytest.approx(float(last[token]), abs=0.06)


def test_folder_sampling_defaults_are_not_used(parts: Parts) -> None:
    made = parts()
    plain = LocalEngine(made.model, made.tokenizer).complete(PROMPTS, max_tokens=8)
    made.model.generation_config.update(
        do_sample=True, temperature=9.0, repetition_penalty=5.0, no_repeat_ngram_size=1, top_k=1
    )
    kept = made.model.generation_config
    assert LocalEngine(made.model, made.tokenizer).complete(PROMPTS, max_tokens=8) == plain
    assert made.model.generation_config is kept


@pytest.mark.parametrize(
    ("prompt", "choices", "message"),
    [
        ("", [" yes"], "prompt 1: the prompt is empty"),
        ("Answer: ye", ["s"], "the tokenizer joins the prompt's end"),
        ("Answer:", [""], "the choice holds no token"),
        ("x" * 300, [" yes"], r"prompt 1: 300 tokens .* do not fit the context .*allowed: 256"),
        ("Answer:", [], "no choices to score"),
    ],
)
def test_faults_of_prompts_are_named(
    engine: Any, prompt: str, choices: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        engine.choice_logprobs([prompt], choices)


def test_generation_past_the_context_is_refused(engine: Any) -> None:
    with pytest.raises(UserError, match="prompt 2: 250 tokens and 10 to follow do not fit"):
        engine.complete(["a", "x" * 250], max_tokens=10)
    with pytest.raises(UserError, match="max_tokens = 0"):
        engine.complete(["a"], max_tokens=0)
    with pytest.raises(UserError, match=r"temperature = -1.*allowed"):
        engine.complete(["a"], max_tokens=1, temperature=-1)
    with pytest.raises(UserError, match=r"temperature = nan.*allowed"):
        engine.complete(["a"], max_tokens=1, temperature=math.nan)


def test_text_without_start_token_is_refused(parts: Parts) -> None:
    made = parts()
    made.tokenizer.bos_token = made.tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither BOS nor EOS"):
        LocalEngine(made.model, made.tokenizer).text_logprobs(["a"])


def test_open_names_dtype_and_reads_a_folder(parts: Parts, tmp_path: Path) -> None:
    made = parts()
    folder = tmp_path / "demo" / "adapt" / "model"
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    engine = LocalEngine.open(folder)
    assert engine.name == "demo/adapt"
    assert engine.facts()["dtype"] == "float32"
    assert engine.facts()["context"] == 256
    wanted = LocalEngine(made.model, made.tokenizer).choice_logprobs(PROMPTS, [" yes"])
    assert near(engine.choice_logprobs(PROMPTS, [" yes"])[0], wanted[0])
    assert LocalEngine.open(str(folder)).name == "demo/adapt"
    with pytest.raises(UserError, match=r"none: no such model folder.*medexpert models fetch NAME"):
        LocalEngine.open(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"unknown dtype 'float33'.*did you mean 'float32'"):
        LocalEngine.open(folder, dtype="float33")


def test_batches_hold_every_index_within_the_budget() -> None:
    lengths = [5, 1, 30, 7, 7, 2]
    found = list(batches(lengths, 14))
    assert sorted(k for batch in found for k in batch) == list(range(6))
    assert all(len(b) == 1 or max(lengths[k] for k in b) * len(b) <= 14 for b in found)
    assert list(batches([], 4)) == []


def test_a_stop_string_may_be_the_end_tokens_own_text(parts: Parts) -> None:
    """An end token that is no special one decodes to text, which the completion does not hold."""
    made = parts()
    engine = LocalEngine(made.model, made.tokenizer)
    (free,) = engine.complete([PROMPTS[0]], max_tokens=8)
    ids = made.tokenizer(free.text, add_special_tokens=False)["input_ids"]
    made.model.generation_config.eos_token_id = [2, ids[2]]
    mark = made.tokenizer.decode([ids[2]])
    (found,) = engine.complete([PROMPTS[0]], max_tokens=8, stop=[mark])
    at = ids.index(ids[2])
    assert (found.tokens, found.finish) == (at + 1, "stop")
    assert free.text.startswith(found.text)
    assert mark not in found.text
