"""Four-bit bases: opened, trained on, merged into the values of their codes. Needs bitsandbytes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medexpert.model.adapters import ADAPTERS, quantised
from medexpert.model.adapters.lora import merge_lora
from medexpert.model.base import cast_weights, load
from medexpert.model.checkpoint import save_adapter, save_model
from medexpert.model.folder import model_digest, read_lineage
from medexpert.recipe_train import Lora, Stage
from medexpert.records import UserError
from simulated_gpu import simulated_gpu

STAGE = Stage(method="qlora", lora=Lora(rank=4, alpha=8, dropout=0.0))
present = importlib.util.find_spec("bitsandbytes") is not None
needs_bitsandbytes = pytest.mark.skipif(
    not present, reason="bitsandbytes is not installed (pip install 'medexpert[4bit]')"
)


@pytest.fixture
def base(tmp_path: Path, tiny: Any, tokenizer: Any) -> Path:
    folder = tmp_path / "run" / "instruct" / "model"
    model = tiny.make_model(hidden_size=64, intermediate_size=128)
    save_model(model, tokenizer, folder, lineage={"stage": "instruct"}, dtype=torch.float32)
    return folder


def disturb(wrapped: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return wrapped.eval()


def test_without_bitsandbytes_one_line_says_what_to_install(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"need bitsandbytes.*pip install 'medexpert\[4bit\]'"):
        load(base, dtype=torch.float32, four_bit=True)


def test_qlora_on_a_plain_base_is_a_mistake_of_the_caller(model: Any) -> None:
    with pytest.raises(ValueError, match="four_bit=True"):
        ADAPTERS["qlora"](model, STAGE, 0)


def test_a_base_quantised_in_an_unknown_way_is_refused(base: Path) -> None:
    plain, _ = load(base, dtype=torch.float32)
    wrapped = ADAPTERS["lora"](plain, STAGE, 0)
    folder = base.parents[1] / "adapt" / "adapter"
    lineage = {"stage": "adapt", "parent": str(base), "quantised": {"kind": "int3"}}
    save_adapter(wrapped, folder, lineage=lineage)
    with pytest.raises(UserError, match=r"quantised in a way not known here: .*int3"):
        load(folder, dtype=torch.float32)


def test_codes_on_a_gpu_are_restored_in_main_memory(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where 4 bits fit, 32 need not. Of bitsandbytes only the names."""

    class Linear4bit(torch.nn.Linear):
        pass

    library = SimpleNamespace(
        nn=SimpleNamespace(Linear4bit=Linear4bit),
        functional=SimpleNamespace(dequantize_4bit=lambda data, state: data.bfloat16()),
    )
    monkeypatch.setattr(quantised, "require", lambda: None)
    model = tiny.make_model(tie_word_embeddings=False)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.__class__ = Linear4bit
            module.weight.quant_state = None
    model.config.quantization_config = {}
    with simulated_gpu(monkeypatch) as on_gpu:
        model.to("cuda")
        monkeypatch.setitem(sys.modules, "bitsandbytes", library)
        plain = quantised.restored(model, torch.float32)
        held = [*plain.parameters(), *plain.buffers()]
        assert not any(on_gpu(tensor) for tensor in held)
    assert {tensor.dtype for tensor in held} == {torch.float32}


@needs_bitsandbytes
def test_the_base_is_rounded_and_its_codes_are_restored_exactly(
    base: Path, tiny: Any, tokens: Any
) -> None:
    plain, _ = load(base, dtype=torch.float32)
    small, _ = load(base, dtype=torch.float32, four_bit=True)
    assert quantised.is_quantised(small)
    rounded = tiny.logits(small, tokens)
    assert not torch.allclose(rounded, tiny.logits(plain, tokens), atol=1e-3)
    kinds = {type(m).__name__ for m in small.modules()}
    assert "Linear4bit" in kinds
    again = quantised.restored(small, torch.float32)
    assert "Linear4bit" not in {type(m).__name__ for m in again.modules()}
    torch.testing.assert_close(tiny.logits(again, tokens), rounded, rtol=0, atol=1e-4)
    first = again.model.layers[0].mlp.up_proj.weight
    assert len(first[0, :64].unique()) <= 16  # one block of 64 has sixteen values


@needs_bitsandbytes
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_merged_equals_unmerged(
    base: Path, tiny: Any, tokens: Any, tokenizer: Any, kind: str
) -> None:
    """On the rounded weights: 1e-4 with fp32 products; with bf16 products their own rounding."""
    dtype = getattr(torch, kind)
    small, _ = load(base, dtype=dtype, four_bit=True)
    wrapped = disturb(ADAPTERS["qlora"](small, STAGE, 3))
    unmerged = tiny.logits(wrapped, tokens).float()
    folder = base.parents[1] / "adapt" / "adapter"
    lineage = {"stage": "adapt", "parent": str(base), "parent_digest": model_digest(base)}
    save_adapter(wrapped, folder, lineage=lineage)
    assert read_lineage(folder)["quantised"] == {"kind": "nf4", "dtype": kind}
    opened, _ = load(folder, dtype=torch.float32)
    from_disk = tiny.logits(opened, tokens)
    in_memory = merge_lora(wrapped)
    torch.testing.assert_close(tiny.logits(in_memory, tokens), from_disk, rtol=0, atol=1e-5)
    error = float((from_disk - unmerged).norm() / unmerged.norm())
    assert error < (1e-5 if kind == "float32" else 2e-2)
    into = base.parents[1] / "adapt" / "model"
    save_model(opened, tokenizer, into, lineage=lineage, dtype=torch.float32)
    plain, _ = load(into, dtype=torch.float32)
    assert torch.equal(tiny.logits(plain, tokens), from_disk)


@needs_bitsandbytes
def test_the_gradient_is_that_of_the_plain_base_with_the_same_values(
    base: Path, tokens: Any
) -> None:
    """Also after a forward without gradients, as the evaluations of a stage are."""
    gradients = []
    for plain in (False, True):
        model, _ = load(base, dtype=torch.float32, four_bit=True)
        with torch.no_grad():
            model(tokens)
        if plain:
            model = quantised.restored(model, torch.float32)
        wrapped = disturb(ADAPTERS["lora" if plain else "qlora"](model, STAGE, 3), seed=1).train()
        wrapped(tokens, labels=tokens).loss.backward()
        gradients.append({n: p.grad for n, p in wrapped.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5, msg=name)


@needs_bitsandbytes
def test_only_the_adapter_learns_and_casting_leaves_the_codes(base: Path, tokens: Any) -> None:
    small, _ = load(base, dtype=torch.float32, four_bit=True)
    wrapped = ADAPTERS["qlora"](small, STAGE, 3)
    codes = {n: p.detach().clone() for n, p in wrapped.named_parameters() if p.dtype == torch.uint8}
    assert len(codes) == 14
    with torch.no_grad():
        wrapped.eval()(tokens)  # evaluation between steps must not repack the codes
    wrapped.train()
    cast_weights(wrapped, torch.bfloat16)
    cast_weights(wrapped, torch.float32)
    moving = [p for p in wrapped.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(moving, lr=1e-2)
    losses = []
    for _ in range(8):
        loss = wrapped(tokens, labels=tokens).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3
    after = dict(wrapped.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in codes.items())
