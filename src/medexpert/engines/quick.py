"""What makes one pass on a CPU quicker and changes no result beyond rounding.

`blocks`: causal attention by plain products of blocks of queries with the keys they can see. The
CPU kernel behind PyTorch's attention is slower, in bf16 several times. `pack`: weights of linear
layers laid out once for oneDNN, which PyTorch otherwise does anew for each product or not at all.

Legend: B rows, T tokens, H query heads, G key heads (H / G queries share one), D size of a head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

BLOCK = 64
"""Queries multiplied at once; keys behind a block are not looked at. Measured: with 128 the scores
of float32 leave the cache."""
NAME = "medexpert_blocks"
_HARMLESS = {"position_ids", "use_cache", "output_attentions", "output_hidden_states",
             "return_dict", "cache_position", "is_causal"}  # fmt: skip
_ROWS = 512
"""Rows that the packed layout is chosen for: measured, any from 8 to 1,024 does as well."""


@functools.cache
def _unseen(size: int) -> torch.Tensor:
    """(size, size): which keys of a block lie behind a query; at most BLOCK of them are kept."""
    return torch.ones(size, size, dtype=torch.bool).triu_(1)


def causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """softmax(scale Q K^T, causal) V: (B, H, T, D), (B, G, S + T, D) twice -> (B, T, H, D). The
    first S keys are a beginning that every query sees."""
    rows, heads, width, _ = query.shape
    groups, length = key.shape[1], key.shape[2]
    before, size = length - width, value.shape[-1]
    q = query.reshape(rows * groups, heads // groups, width, query.shape[-1])
    k = key.reshape(rows * groups, length, -1)
    v = value.reshape(rows * groups, length, -1)
    out = query.new_empty((rows, width, heads, size))
    shaped = out.view(rows, width, groups, heads // groups, size)
    for start in range(0, width, BLOCK):
        end = min(width, start + BLOCK)
        block = q[:, :, start:end].flatten(1, 2)
        keys = before + end
        scores = torch.baddbmm(
            block.new_zeros(()), block, k[:, :keys].transpose(1, 2), beta=0, alpha=scale
        )
        split = scores.view(rows * groups, -1, end - start, keys)
        split[..., before + start :].masked_fill_(_unseen(end - start), -math.inf)
        mixed = torch.bmm(torch.softmax(scores, -1), v[:, :keys])
        mixed = mixed.view(rows, groups, heads // groups, end - start, size)
        shaped[:, start:end] = mixed.permute(0, 3, 1, 2, 4)
    return out


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, dropout: float = 0.0,
    scaling: float | None = None, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """For transformers. Raises NotImplementedError for anything but plain causal attention."""
    plain = (
        attention_mask is None and not dropout and query.shape[2] <= key.shape[2]
        and more.get("is_causal", getattr(module, "is_causal", True)) is not False
        and all(name in _HARMLESS or value_ is None for name, value_ in more.items())
    )  # fmt: skip
    if not plain:
        raise NotImplementedError("attention that is more than causal")
    return causal(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None


@contextmanager
def blocks(model: Any) -> Iterator[None]:
    """Passes without a mask go through :func:`causal`. Under a name of its own: a pass that needs a
    mask can never get here by mistake."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    config = model.config.get_text_config()
    kept = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = kept


@torch.inference_mode()
def blocks_hold(model: Any) -> bool:
    """Whether the model's passes through `blocks` give what they give without: asked of itself."""
    config = model.config.get_text_config()
    if model.device.type != "cpu" or config._attn_implementation not in ("sdpa", "eager"):
        return False
    width = min(BLOCK + 8, int(getattr(config, "max_position_embeddings", 0) or BLOCK + 8))
    ids = (torch.arange(2 * width).view(2, width) * 7 + 3) % config.vocab_size
    wanted = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float()
    try:
        with blocks(model):
            found = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float()
    except (NotImplementedError, TypeError, ValueError, AttributeError, RuntimeError):
        return False
    allowed = (1e-4 if model.dtype == torch.float32 else 0.05) * float(wanted.abs().max())
    return bool(((found - wanted).abs() <= allowed).all())


class PackedLinear(nn.Module):
    """A linear layer whose weight is kept in oneDNN's own layout. It cannot be trained or saved."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self.packed, self.bias, "none", [], ""
        )
        return found


class PackedGate(nn.Module):
    """down(silu(gate(x)) * up(x)) with the product made while `up` is: one block of memory less to
    write and read. `parts` are packed layers."""

    def __init__(self, parts: dict[str, PackedLinear]) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = parts["gate_proj"], parts["up_proj"]
        self.down_proj = parts["down_proj"]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj, self.up_proj
        gated = torch.ops.mkldnn._linear_pointwise(states, gate.packed, gate.bias, "swish", [], "")
        mixed = torch.ops.mkldnn._linear_pointwise.binary(states, gated, up.packed, up.bias, "mul")
        found: torch.Tensor = self.down_proj(mixed)
        return found


_GATE = {"gate_proj", "up_proj", "down_proj", "act_fn"}


@torch.inference_mode()
def _fused(module: nn.Module, dtype: torch.dtype) -> PackedGate | None:
    """The module of packed layers as a PackedGate, None where that is not what it computes."""
    if set(dict(module.named_children())) != _GATE:
        return None
    parts = {name: part for name, part in module.named_children() if name != "act_fn"}
    if not all(type(part) is PackedLinear for part in parts.values()):
        return None
    made = PackedGate(parts)  # type: ignore[arg-type]
    width = made.gate_proj.in_features
    probe = torch.linspace(-2, 2, 3 * width).view(1, 3, width).sin().to(dtype)
    wanted, found = module(probe).float(), made(probe).float()
    allowed = (1e-5 if dtype == torch.float32 else 0.03) * float(wanted.abs().max())
    return made if bool(((wanted - found).abs() <= allowed).all()) else None


def pack(model: Any) -> int:
    """Replace the decoder's plain linear layers on a CPU, each weight once; how many it was.

    Only for a model that is asked and nothing else. Adapters and quantised layers stay as they are.
    """
    available: Any = torch.backends.mkldnn.is_available
    usable = available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16):
        return 0
    if usable and model.dtype == torch.bfloat16:  # a CPU without AVX-512 refuses the layout
        usable = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    modules = list(model.modules())
    if not usable or any(type(m).__module__.startswith("peft.") for m in modules):
        return 0
    head = model.get_output_embeddings()
    count = 0
    for parent in modules:
        for name, child in list(parent.named_children()):
            # The head may share its weight with the input embedding, which must stay readable.
            if type(child) is nn.Linear and child is not head:
                setattr(parent, name, PackedLinear(child))
                count += 1
    for parent in modules:
        for name, child in list(parent.named_children()):
            gate = _fused(child, model.dtype)
            if gate is not None:
                setattr(parent, name, gate)
    return count
