"""A plain model folder through transformers: nothing fetched, no code run, no tensor made up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.model.adapters import quantised
from medexpert.records import UserError

if TYPE_CHECKING:
    import torch


def open_plain(folder: Path, dtype: torch.dtype, quantise_on: Any = None) -> tuple[Any, Any]:
    """(model, tokenizer) of a model folder; with a device in `quantise_on`, in 4 bits there.

    Raises UserError when transformers cannot open it, or would fill missing tensors with noise.
    """
    import transformers

    without_cudnn_attention()
    library: Any = transformers
    four_bit: dict[str, Any] = {}
    if quantise_on is not None:
        four_bit = {
            "quantization_config": quantised.settings(dtype),
            "device_map": {"": quantise_on},
        }
    tokenizer = open_tokenizer(folder)
    try:
        model, report = library.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **four_bit,
        )
    except (ValueError, KeyError, OSError, RuntimeError, TypeError, ImportError) as error:
        raise _cannot_open("model", folder, error) from None
    # A tensor that is absent would be filled with random numbers and only warned about.
    absent = sorted({*report["missing_keys"], *(str(k[0]) for k in report["mismatched_keys"])})
    if absent:
        raise UserError(
            f"{len(absent)} tensors are missing or have the wrong shape, first {absent[0]}",
            where=str(folder),
        )
    if four_bit:
        quantised.exact(model)
    return model, tokenizer


def without_cudnn_attention() -> None:
    """Take cuDNN's kernels out of torch's choice for attention, in which they are first on an H100.

    They make a plan for each new length, half a second long, and each token that is written is a
    new length. With a mask their gradients were no numbers at some lengths (torch 2.11 and later:
    https://github.com/pytorch/pytorch/issues/196678).
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises UserError when transformers cannot open it."""
    import transformers

    library: Any = transformers
    try:
        return library.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # the tokenizers library raises plain Exception for a bad file
        raise _cannot_open("tokenizer", folder, error) from None


def _cannot_open(what: str, folder: Path, error: Exception) -> UserError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"transformers cannot open this {what}: {line}", where=str(folder))
