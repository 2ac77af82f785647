"""C-Poly on disk: `cpoly_config.json` and `cpoly_model.safetensors`; a task as a LoRA folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from medexpert.model.adapters.cpoly.config import CPolyConfig
from medexpert.model.adapters.cpoly.layer import task_factors
from medexpert.model.adapters.cpoly.model import CPolyModel
from medexpert.model.folder import ADAPTER_WEIGHTS, CPOLY_WEIGHTS
from medexpert.records import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def tensors_of(model: CPolyModel) -> dict[str, torch.Tensor]:
    """Skills and logits as MODULE.NAME, the module as the transformers model calls it."""
    return {
        f"{module}.{name}": tensor.detach().cpu().contiguous()
        for module, layer in model.layers().items()
        for name, tensor in layer.tensors().items()
    }


def write(model: CPolyModel, folder: Path) -> None:
    """Write configuration and weights into an existing folder, as they are, to the bit."""
    model.cpoly.write(folder)
    save_file(tensors_of(model), str(folder / CPOLY_WEIGHTS), metadata={"format": "pt"})


def read(model: PreTrainedModel, folder: Path) -> CPolyModel:
    """Put the skills of `folder` onto `model`, in eval mode and their stored dtype.

    Raises UserError when the folder's tensors and the model's modules do not fit each other.
    """
    config = CPolyConfig.read(folder)
    stored = load_file(str(folder / CPOLY_WEIGHTS))
    try:
        wrapped = CPolyModel(model, config, seed=0)
    except UserError as error:
        raise _unfit(str(error), folder) from None
    expected = tensors_of(wrapped)
    odd = sorted(
        name
        for name in stored.keys() | expected.keys()
        if name not in stored or name not in expected or stored[name].shape != expected[name].shape
    )
    if odd:
        raise _unfit(f"{len(odd)} tensors differ, first {odd[0]}", folder)
    for module, layer in wrapped.layers().items():
        for name, tensor in layer.tensors().items():
            tensor.data = stored[f"{module}.{name}"].to(tensor.device)
    return wrapped.eval()


def _unfit(why: str, folder: Path) -> UserError:
    return UserError(f"the adapter does not fit its base model: {why}", where=str(folder))


def write_task(folder: Path, task: str, to: Path) -> None:
    """One task of C-Poly folder `folder` as a standard peft LoRA in the existing folder `to`.

    The update of a task is a LoRA of rank (A + B) r: its low halves stacked, its weighted high
    halves side by side. lora_alpha = rank, so that peft's scale is 1. Stored in float32.
    Raises UserError listing the tasks.
    """
    from peft import LoraConfig

    config = CPolyConfig.read(folder)
    number = config.index(task)
    stored = load_file(str(folder / CPOLY_WEIGHTS))
    modules = sorted({name.rpartition(".")[0] for name in stored})
    found: dict[str, torch.Tensor] = {}
    for module in modules:
        low, high = task_factors(config, _of(stored, module), number)
        found[f"base_model.model.{module}.lora_A.weight"] = low.contiguous()
        found[f"base_model.model.{module}.lora_B.weight"] = high.contiguous()
    named = config.target_modules
    rank = config.skills * config.rank
    LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=modules if isinstance(named, str) else sorted(named),
        task_type="CAUSAL_LM",
        bias="none",
        inference_mode=True,
        base_model_name_or_path="",
    ).save_pretrained(str(to))
    save_file(found, str(to / ADAPTER_WEIGHTS), metadata={"format": "pt"})


def _of(stored: Mapping[str, torch.Tensor], module: str) -> dict[str, torch.Tensor | None]:
    """The tensors of one module by their last name."""
    return {
        name.rpartition(".")[2]: tensor
        for name, tensor in stored.items()
        if name.rpartition(".")[0] == module
    }
