"""LoRA by peft: h = W x + (alpha / r) B A x, with W frozen, A (r, in), B (out, r).

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3. B starts at zero,
so the wrapped model starts as the model it wraps.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medexpert.records import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from medexpert.recipe_train import Lora

ALL_LINEAR = "all-linear"


def add_lora(model: PreTrainedModel, settings: Lora, seed: int) -> PeftModel:
    """Wrap `model` with LoRA layers; only they are trainable. The seed alone decides their start.

    The adapter takes the dtype of the layer it sits on; the training loop keeps fp32 masters.

    Raises UserError when a target module matches nothing (a typo would otherwise train less, or
    nothing) or cannot carry LoRA, naming the candidates.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets = settings.target_modules
    _check_targets(targets, model)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
        bias="none",
    )
    cards = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft calling transformers
        torch.manual_seed(seed)
        try:
            wrapped: Any = get_peft_model(model, config, autocast_adapter_dtype=False)
        except ValueError as error:
            raise UserError(
                f"target_modules = {targets!r} cannot carry LoRA: {str(error).splitlines()[0]}",
                allowed=", ".join(candidates(model)),
            ) from None
    return wrapped  # type: ignore[no-any-return]


def candidates(model: PreTrainedModel) -> list[str]:
    """Last names of the linear layers that LoRA can sit on, the output layer left out."""
    import torch
    from transformers.pytorch_utils import Conv1D

    whole: Any = model
    output = whole.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not output
        }
    )


def _check_targets(targets: str | Sequence[str], model: PreTrainedModel) -> None:
    """Every name must match a module, the way peft matches: whole name or its end after a dot."""
    if targets == ALL_LINEAR:
        return
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(targets, str):
        try:
            missing = [] if any(re.fullmatch(targets, name) for name in names) else [targets]
        except re.error as error:
            raise UserError(
                f"target_modules = {targets!r} is no regular expression: {error}"
            ) from None
    else:
        missing = [t for t in targets if not any(n == t or n.endswith(f".{t}") for n in names)]
        missing = missing if targets else ["(an empty list)"]
    if missing:
        known = candidates(model)
        close = difflib.get_close_matches(missing[0], known, n=1, cutoff=0.5)
        raise UserError(
            f"target_modules: no module of the model matches {', '.join(map(repr, missing))}",
            allowed=f"{ALL_LINEAR}, {', '.join(known)}",
            nearest=close[0] if close else "",
        )


def merge_lora(model: PeftModel) -> PreTrainedModel:
    """W + (alpha / r) B A written into the weights, in float32; returns the plain model.

    Works in place: `model` is cast to float32 and must not be used afterwards. In half precision a
    small update would be lost in rounding, so cast down only when saving.

    Raises UserError when a merged weight is not finite.
    """
    import torch

    wide: Any = model.to(torch.float32)
    try:
        return wide.merge_and_unload(safe_merge=True)  # type: ignore[no-any-return]
    except ValueError as error:
        raise UserError(f"the adapter cannot be merged: {error}") from None
