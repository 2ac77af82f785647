"""Quicker passes on a CPU give what the plain ones give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from medexpert.engines import quick
from medexpert.engines.local import LocalEngine

Parts = Callable[..., SimpleNamespace]
TEXT = "Forty patients were asked whether the drug had helped them, and most had no opinion. "


@pytest.mark.parametrize("width", [1, 5, 128, 300])
@pytest.mark.parametrize("before", [0, 3, 140])
def test_blocks_are_causal_attention_behind_a_beginning(width: int, before: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 6, width, 8)
    key, value = (torch.randn(2, 2, before + width, 8) for _ in range(2))
    place = torch.arange(before + width)
    mask = place[None] <= place[before:, None]
    wanted = nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), mask, scale=0.3
    )
    found = quick.causal(query, key, value, 0.3)
    assert torch.allclose(found, wanted.transpose(1, 2), atol=1e-5)


def test_a_plain_model_goes_by_blocks_and_scores_as_before(parts: Parts) -> None:
    made = parts(max_position_embeddings=2048)
    quicker, plain = (LocalEngine(made.model, made.tokenizer) for _ in range(2))
    assert quicker.network.blocks
    assert quicker.facts()["causal_blocks"] is True
    plain.network.blocks = False
    prompts = [TEXT * n + "So?" for n in (1, 2, 5)]
    for one, other in zip(
        quicker.choice_logprobs(prompts, [" yes", " maybe"]),
        plain.choice_logprobs(prompts, [" yes", " maybe"]),
        strict=True,
    ):
        assert one == pytest.approx(other, abs=1e-4)
    for text, same in zip(
        quicker.text_logprobs(prompts), plain.text_logprobs(prompts), strict=True
    ):
        assert text.logprob == pytest.approx(same.logprob, abs=1e-3)
    assert made.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("name", "changes"),
    [("Mistral", {"sliding_window": 20}), ("Gemma2", {"attn_logit_softcapping": 2.0})],
)
def test_attention_that_is_more_than_causal_stays_as_it_is(
    engine: Any, name: str, changes: dict[str, Any]
) -> None:
    import transformers

    library: Any = transformers
    settings: dict[str, Any] = {
        "vocab_size": len(engine.tokenizer), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "attn_implementation": "eager",
    }  # fmt: skip
    config = getattr(library, f"{name}Config")(**settings, **changes)
    model = getattr(library, f"{name}ForCausalLM")(config).eval()
    assert not quick.blocks_hold(model)
    assert model.config._attn_implementation == "eager"


def test_a_pass_with_a_mask_cannot_get_to_the_blocks(parts: Parts) -> None:
    made = parts()
    ids, mask = torch.tensor([[3, 4, 5]]), torch.ones(1, 1, 3, 3, dtype=torch.bool)
    with quick.blocks(made.model), pytest.raises(NotImplementedError):
        made.model(input_ids=ids, attention_mask=mask)
    assert made.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_is_the_layer(bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 80, bias=bias).to(dtype)
    states = torch.randn(3, 7, 48).to(dtype)
    with torch.inference_mode():
        found, wanted = quick.PackedLinear(layer)(states), layer(states)
    assert torch.allclose(found, wanted, atol=1e-5 if dtype == torch.float32 else 2e-2)


class Gated(nn.Module):
    def __init__(self, act: nn.Module, *, swapped: bool = False) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(16, 32, bias=True), nn.Linear(16, 32, bias=False)
        self.down_proj, self.act_fn, self.swapped = nn.Linear(32, 16, bias=False), act, swapped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.gate_proj(x), self.up_proj(x)
        one, other = (other, one) if self.swapped else (one, other)
        found: torch.Tensor = self.down_proj(self.act_fn(one) * other)
        return found


@pytest.mark.parametrize(
    ("module", "fused"),
    [(Gated(nn.SiLU()), True), (Gated(nn.GELU()), False), (Gated(nn.SiLU(), swapped=True), False)],
)
def test_a_gated_layer_is_fused_only_if_it_is_one(module: Gated, fused: bool) -> None:
    torch.manual_seed(0)
    states = torch.randn(2, 5, 16)
    with torch.inference_mode():
        wanted = module(states)
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(module, name, quick.PackedLinear(getattr(module, name)))
        made = quick._fused(module, torch.float32)
        assert (made is not None) == fused
        if made is not None:
            assert torch.allclose(made(states), wanted, atol=1e-5)


def test_opening_a_folder_packs_and_changes_no_answer(parts: Parts, tmp_path: Path) -> None:
    made = parts(max_position_embeddings=2048)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    opened, plain = LocalEngine.open(tmp_path), LocalEngine(made.model, made.tokenizer)
    assert opened.facts()["packed_layers"] == 2 * 7
    assert sum(isinstance(m, quick.PackedGate) for m in opened.model.modules()) == 2
    assert plain.facts()["packed_layers"] == 0
    assert opened.facts()["parameters"] == plain.facts()["parameters"]
    prompts = [TEXT + end for end in ("Why", "How")]
    assert opened.complete(prompts, max_tokens=8) == plain.complete(prompts, max_tokens=8)
    for one, other in zip(
        opened.choice_logprobs(prompts, [" yes", " maybe"]),
        plain.choice_logprobs(prompts, [" yes", " maybe"]),
        strict=True,
    ):
        assert one == pytest.approx(other, abs=1e-4)


def test_adapters_are_not_packed(parts: Parts) -> None:
    from peft import LoraConfig, get_peft_model

    made = parts()
    get_peft_model(made.model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    assert quick.pack(made.model) == 0


def test_nothing_is_packed_where_the_cpu_refuses_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    made = parts()
    assert quick.pack(made.model.bfloat16()) == 0
    assert quick.pack(made.model.float()) == 2 * 7
