"""LoRA by peft: h = W x + (alpha / r) B A x, with W frozen, A (r, in), B (out, r).

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3. B starts at zero,
so the wrapped model starts as the model it wraps.

DoRA (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5) learns the length
of each output's weights besides: W' = m (W + (alpha / r) B A) / |W + (alpha / r) B A|, m starting
at |W|.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from medexpert.model.adapters import quantised
from medexpert.model.adapters.targets import ALL_LINEAR, candidates, matching
from medexpert.records import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from medexpert.recipe_train import Lora


def add_lora(model: PreTrainedModel, settings: Lora, seed: int, *, dora: bool = False) -> PeftModel:
    """Wrap `model` with LoRA layers; only they are trainable. The seed alone decides their start.

    The adapter takes the dtype of the layer it sits on; the training loop keeps fp32 masters.

    Raises UserError when a target module matches nothing (a typo would otherwise train less, or
    nothing) or cannot carry LoRA, naming the candidates.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets = settings.target_modules
    if targets != ALL_LINEAR:
        matching(targets, model)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
        bias="none",
        use_dora=dora,
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


def merge_lora(model: PeftModel) -> PreTrainedModel:
    """The update written into the weights, in float32; returns the plain model.

    Works in place: `model` is cast to float32 and must not be used afterwards. In half precision a
    small update would be lost in rounding, so cast down only when saving. A 4-bit base becomes a
    plain one with the values of its codes: quantising the sum again would change the model.

    Raises UserError when a merged weight is not finite.
    """
    import torch

    if quantised.is_quantised(model.get_base_model()):
        model = _on_plain_base(model)
    wide: Any = model.to(torch.float32)
    try:
        return wide.merge_and_unload(safe_merge=True)  # type: ignore[no-any-return]
    except ValueError as error:
        raise UserError(f"the adapter cannot be merged: {error}") from None


def _on_plain_base(model: Any) -> PeftModel:
    """The adapter moved from a 4-bit base to the same base with plain weights."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    state = get_peft_model_state_dict(model)
    config = model.peft_config["default"]
    plain = quantised.restored(model.unload(), torch.float32)
    wrapped = get_peft_model(plain, config, autocast_adapter_dtype=False)
    set_peft_model_state_dict(wrapped, state)
    return wrapped.eval()  # type: ignore[no-any-return]
