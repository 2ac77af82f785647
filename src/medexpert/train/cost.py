"""What a stage costs before it runs: parameters, FLOPs and memory, from the architecture alone.

A model is built on torch's `meta` device from its config.json: no weights are read or allocated, so
a 9B model is sized in a second. What hours and money follow is in `train/forecast.py`.

N = weights of linear layers. A product of a token with a weight matrix is 2 operations a weight.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexpert.model import folder as folders
from medexpert.recipe_train import Stage
from medexpert.records import UserError

WIDTH = {"bfloat16": 2, "float32": 4}
"""Bytes of a number in the compute dtype."""
FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight: half a byte, an 8-bit scale for each 64, a fp32 one for each 256 scales
(NF4, quantised twice: QLoRA, arXiv 2305.14314, section 3)."""
SLOPE_ROWS, LOGIT_ROWS = 1024, 128
"""Positions whose softmax slope (dtype) and whose logits (fp32, twice) exist at once."""
PROCESS = 0.6e9
"""Bytes of a process with torch, transformers and a tokenizer and no model (measured, CPU)."""


@dataclass(frozen=True)
class Linear:
    """A linear layer other than the output layer: y (outputs) = W x (inputs)."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Shape:
    """An architecture in numbers. `parameters` counts by name, tied weights once."""

    architecture: str
    parameters: Mapping[str, int]
    linears: tuple[Linear, ...]
    head: int
    embedding: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context_length: int

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    @property
    def body(self) -> int:
        """Weights of the linear layers that every token passes."""
        return sum(layer.inputs * layer.outputs for layer in self.linears)


@dataclass(frozen=True)
class Flops:
    """Operations a token: what the model needs (`total`), and with recomputation (`executed`)."""

    forward: float
    backward_inputs: float
    backward_weights: float
    attention: float
    adapter: float
    recompute: float

    @property
    def total(self) -> float:
        parts = (self.forward, self.backward_inputs, self.backward_weights)
        return sum(parts) + self.attention + self.adapter

    @property
    def executed(self) -> float:
        return self.total + self.recompute


def read_shape(folder: Path) -> Shape:
    """The shape of a model folder, of which only config.json has to be there.

    An adapter folder has the shape of its base. Raises UserError when there is no config.json, when
    transformers does not know the architecture, or for a mixture of experts.
    """
    return shape_of(weightless(folder))


def weightless(folder: Path) -> Any:
    """The model of a folder, of an adapter its base, on the meta device: names and sizes.

    Raises UserError as `read_shape`.
    """
    if folders.is_adapter(folder):
        parent = folder / str(folders.read_lineage(folder).get("parent", ""))
        return weightless(parent.resolve())
    folders.check_config(folder)
    import torch
    import transformers

    library: Any = transformers
    try:
        config = library.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        with torch.device("meta"):
            model = library.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, OSError, RuntimeError, TypeError, ImportError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"its architecture cannot be built from config.json: {line}", where=str(folder)
        ) from None
    return model


def shape_of(model: Any) -> Shape:
    """The shape of a plain transformers model on any device, before an adapter is put on it.

    Raises UserError for a mixture of experts, where a token passes a part of the weights only.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config = model.config.get_text_config()
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    if any(getattr(config, name, None) for name in experts):
        raise UserError("the cost of a mixture of experts is not modelled", where="base.model")
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    linears = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not output:
            sizes = tuple(module.weight.shape)
            inputs, outputs = sizes if isinstance(module, Conv1D) else sizes[::-1]
            linears.append(Linear(name, int(inputs), int(outputs)))
    heads = int(config.num_attention_heads)
    hidden = int(config.hidden_size)
    return Shape(
        architecture=type(model).__name__,
        parameters={name: p.numel() for name, p in model.named_parameters()},
        linears=tuple(linears),
        head=int(output.weight.numel()),
        embedding=int(embedding.weight.numel()),
        layers=int(config.num_hidden_layers),
        hidden=hidden,
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or hidden // heads),
        intermediate=int(getattr(config, "intermediate_size", None) or 4 * hidden),
        vocabulary=int(config.vocab_size),
        context_length=int(getattr(config, "max_position_embeddings", None) or 0),
    )


def adapted(shape: Shape, targets: str | Sequence[str]) -> list[Linear]:
    """The linear layers that adapters sit on, matched as peft does.

    Raises UserError when nothing matches.
    """
    if targets == "all-linear":
        found = list(shape.linears)
    elif isinstance(targets, str):
        found = [layer for layer in shape.linears if re.fullmatch(targets, layer.name)]
    else:
        found = [
            layer
            for layer in shape.linears
            if any(layer.name == t or layer.name.endswith(f".{t}") for t in targets)
        ]
    if not found:
        raise UserError(
            f"target_modules = {targets!r} matches no linear layer of the model",
            allowed=", ".join(sorted({layer.name.rsplit(".", 1)[-1] for layer in shape.linears})),
        )
    return found


def kept_still(name: str, settings: Stage) -> bool:
    """Whether the recipe freezes this parameter."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.freeze)


def adapter_parameters(shape: Shape, settings: Stage, tasks: int = 1) -> int:
    """Parameters that an adapter adds; 0 for full training.

    LoRA: rank x (inputs + outputs) a layer; DoRA: and a magnitude an output. C-Poly: as many of
    those as there are skills (common + tasks x private), and a logit a task and skill.
    """
    if settings.method == "full":
        return 0
    chosen = settings.cpoly if settings.method == "cpoly" else settings.lora
    layers = adapted(shape, chosen.target_modules)
    low_rank = sum(chosen.rank * (layer.inputs + layer.outputs) for layer in layers)
    if settings.method == "dora":
        return low_rank + sum(layer.outputs for layer in layers)
    if settings.method == "cpoly":
        own = settings.cpoly
        tasks = len(own.tasks) or tasks
        logits = len(layers) * tasks * (own.common + own.private)
        return low_rank * (own.common + tasks * own.private) + logits
    return low_rank


def trained_parameters(shape: Shape, settings: Stage, tasks: int = 1) -> int:
    """Parameters that the optimiser moves. `tasks`: of C-Poly, where the recipe names none."""
    if settings.method != "full":
        return adapter_parameters(shape, settings, tasks)
    return sum(n for name, n in shape.parameters.items() if not kept_still(name, settings))


def flops_per_token(
    shape: Shape,
    settings: Stage,
    *,
    loss_share: float = 1.0,
    keys: float | None = None,
) -> Flops:
    """Training operations a token.

    2N forward; 2N back to the inputs; 2 x trained weights back to the weights; the output layer
    only at the `loss_share` of positions that carry loss. Attention: 4 x heads x head_dim x `keys`
    a layer forward (scores and their product with the values), twice that backward; `keys` is the
    mean number of tokens that a token sees (None: half a row, or a row where attention is read both
    ways). Adapters: 6 operations a weight that a token passes; of C-Poly's private skills only its
    own task's. Frozen layers below the first trained one are counted as if they passed gradients.
    """
    if keys is None:
        both_ways = settings.attention == "prefix"
        keys = settings.sequence_length / (1 if both_ways else 2)
    head = shape.head * loss_share
    forward = 2 * (shape.body + head)
    moved = 0.0
    if settings.method == "full":
        moved = sum(
            layer.inputs * layer.outputs
            for layer in shape.linears
            if not kept_still(f"{layer.name}.weight", settings)
        )
        moved += 0 if _head_still(shape, settings) else head
    attention = 4.0 * shape.heads * shape.head_dim * keys * shape.layers
    passed = _passed_by_a_token(shape, settings)
    again = 2 * shape.body + attention + 2 * passed if settings.recompute else 0.0
    return Flops(
        forward=forward,
        backward_inputs=forward,
        backward_weights=2 * moved,
        attention=3 * attention,
        adapter=6.0 * passed,
        recompute=again,
    )


def _passed_by_a_token(shape: Shape, settings: Stage) -> int:
    """Adapter weights that one token is multiplied with."""
    if settings.method == "full":
        return 0
    chosen = settings.cpoly if settings.method == "cpoly" else settings.lora
    layers = adapted(shape, chosen.target_modules)
    skills = settings.cpoly.common + settings.cpoly.private if settings.method == "cpoly" else 1
    return skills * sum(chosen.rank * (layer.inputs + layer.outputs) for layer in layers)


def _head_still(shape: Shape, settings: Stage) -> bool:
    names = [n for n in shape.parameters if n.startswith(("lm_head", "output", "embed_out"))]
    tied = [n for n in shape.parameters if "embed" in n or "wte" in n]
    return all(kept_still(name, settings) for name in (names or tied))


def activation_bytes(shape: Shape, settings: Stage) -> int:
    """What the forward pass keeps for the backward one, of one micro-batch.

    A layer keeps, a token and in the compute dtype: the inputs of its two groups of linear layers
    (2 hidden), queries, keys and values as attention reads them, its result (5 x heads x head_dim)
    and 4 x intermediate; of each norm a fp32 copy and the scaled values. Adapters: the input after
    dropout and its mask. With recomputation: the layers' inputs, and one layer whole.
    """
    width = WIDTH[settings.dtype]
    tokens = settings.sequence_length * settings.micro_rows
    queries = shape.heads * shape.head_dim
    norms = _norm_widths(shape)
    layer = width * (2 * shape.hidden + 5 * queries + 4 * shape.intermediate)
    layer += (4 + width) * norms
    if settings.method != "full":
        chosen = settings.cpoly if settings.method == "cpoly" else settings.lora
        inputs = sum(linear.inputs for linear in adapted(shape, chosen.target_modules))
        layer += int((2 if chosen.dropout else 1) * width * inputs / max(1, shape.layers))
    last = (4 + 2 * width) * shape.hidden
    kept = shape.layers * layer
    if settings.recompute:
        kept = shape.layers * width * shape.hidden + layer
    return tokens * (kept + last)


def _norm_widths(shape: Shape) -> int:
    """Numbers normalised a token in one layer: hidden for most, the heads for norms of heads."""
    found = 0
    for name, size in shape.parameters.items():
        last, _, kind = name.rpartition(".")
        if kind == "weight" and "norm" in last.rsplit(".", 1)[-1] and re.search(r"\.\d+\.", name):
            wide = {"q_norm": shape.heads, "k_norm": shape.kv_heads}.get(last.rsplit(".", 1)[-1], 1)
            found += size * (wide if size == shape.head_dim else 1)
    return found // max(1, shape.layers)


def memory_bytes(
    shape: Shape, settings: Stage, *, processes: int = 1, tasks: int = 1, process: float = PROCESS
) -> dict[str, float]:
    """Peak bytes of one of `processes` processes, by what holds them; their sum is the peak.

    One process, or `sharding = "replicate"`: weights in the compute dtype beside fp32 masters.
    Sharded: the masters are the weights, 1/n of them here, and whole layers exist while they
    compute. Adapters: the base is frozen in the compute dtype and is sharded like everything else;
    a 4-bit one (qlora) never is. A checkpoint is copied before it is written.
    """
    width = WIDTH[settings.dtype]
    moving = trained_parameters(shape, settings, tasks)
    shards = processes if settings.sharding == "full" and settings.method != "qlora" else 1
    if settings.method == "qlora":
        frozen = shape.body * FOUR_BIT + (shape.total - shape.body) * width
    else:
        frozen = width * (shape.total - (moving if settings.method == "full" else 0))
    ends = sum(n for name, n in shape.parameters.items() if not re.search(r"\.\d+\.", name))
    layer = (shape.total - ends) / max(1, shape.layers)
    # The layer that computes, the next one on its way, and the sums of one layer's gradients.
    whole = width * (2 * layer + ends) + 4 * layer if shards > 1 else 0.0
    return {
        "process": process,
        "frozen weights": frozen / shards,
        "weights": width * moving if shards == 1 else 0.0,
        "masters": 4 * moving / shards,
        "gradients": 4 * moving / shards,
        "moments": 8 * moving / shards,
        "whole layers": whole,
        "activations": float(activation_bytes(shape, settings)),
        "logits": float(logit_bytes(shape, settings)),
        "checkpoint copy": 12 * moving / shards,
    }


def logit_bytes(shape: Shape, settings: Stage) -> int:
    """One block of the loss: softmax slopes, one chunk of fp32 logits, the head's own gradient."""
    width = WIDTH[settings.dtype]
    rows = min(SLOPE_ROWS, settings.sequence_length * settings.micro_rows)
    own = shape.head * width if settings.method == "full" else 0
    return shape.vocabulary * (rows * width + LOGIT_ROWS * (width + 8)) + own


def load_bytes(shape: Shape, process: float = PROCESS) -> float:
    """Peak while a model is opened in float32, as training does before it casts."""
    return process + 4 * shape.total


def checkpoint_bytes(shape: Shape, settings: Stage, tasks: int = 1) -> int:
    """A checkpoint on disk: fp32 masters and the two AdamW moments."""
    return 12 * trained_parameters(shape, settings, tasks)


def disk_bytes(shape: Shape, stages: Sequence[Stage], tasks: int = 1) -> int:
    """A run folder at its fullest: a fp32 model a stage, the checkpoints of the largest stage.

    One checkpoint more than are kept exists while the newest is written.
    """
    states = [(stage.checkpoints + 1) * checkpoint_bytes(shape, stage, tasks) for stage in stages]
    adapters = sum(4 * adapter_parameters(shape, stage, tasks) for stage in stages)
    return len(stages) * 4 * shape.total + adapters + max(states, default=0)
