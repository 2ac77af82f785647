"""Base weights in 4 bits (QLoRA): NF4 by bitsandbytes, and back.

Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3: 4-bit NormalFloat
in blocks of 64 with the blocks' scales quantised again. What is trained on such a base belongs to
its rounded weights, so it is merged into those.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from medexpert.records import UserError

if TYPE_CHECKING:
    import torch

KIND = "nf4"


def require() -> None:
    """Raise UserError with the line that installs bitsandbytes where it is missing."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "4-bit weights need bitsandbytes, which is not installed: pip install 'medexpert[4bit]'"
        )


def settings(dtype: torch.dtype) -> Any:
    """How transformers opens a model in 4 bits; products are computed in `dtype`."""
    require()
    import transformers

    library: Any = transformers
    return library.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=KIND,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def exact(model: Any) -> None:
    """Keep bitsandbytes from repacking the weights on CPUs with AVX512-BF16.

    There a forward in eval mode would round the blocks' scales to bf16 for good, and later forwards
    would pass no gradient to what lies below: wrong training without a word.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False


def is_quantised(model: Any) -> bool:
    """Whether the model was opened in 4 bits."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def told(model: Any) -> dict[str, str]:
    """What an adapter folder must say of its 4-bit base to make it again; empty for a plain one.

    The weights were rounded to `dtype` before they were quantised.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not is_quantised(base):
        return {}
    compute = base.config.quantization_config.bnb_4bit_compute_dtype
    return {"kind": KIND, "dtype": str(compute).removeprefix("torch.")}


def restored(model: Any, dtype: torch.dtype) -> Any:
    """The 4-bit model as a plain one in main memory: each weight the exact value of its code.

    In `dtype` all of them together may be more than the GPU has that held their codes. In place;
    the quantised model must not be used afterwards.
    """
    import torch

    require()
    kind: Any = importlib.import_module("bitsandbytes")
    for name, module in list(model.named_modules()):
        if not isinstance(module, kind.nn.Linear4bit):
            continue
        weight: Any = module.weight
        values = kind.functional.dequantize_4bit(weight.data, weight.quant_state)
        plain = torch.nn.Linear(
            module.in_features, module.out_features, bias=module.bias is not None, device="meta"
        )
        plain.weight = torch.nn.Parameter(values.to("cpu", dtype), requires_grad=False)
        if module.bias is not None:
            bias = module.bias.data.to("cpu", dtype)
            plain.bias = torch.nn.Parameter(bias, requires_grad=False)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, plain)
    for name in ("is_loaded_in_4bit", "is_quantized"):
        setattr(model, name, False)
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    del model.config.quantization_config
    return model.to("cpu")
