"""A GGUF file -> a Hugging Face folder with the same values in float32, tokenizer included."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from medexpert.model.staging import Progress
from medexpert.records import UserError

FORMAT = 1
"""Part of the cache key: raise it when the conversion changes, so that old folders are rebuilt."""

# Text splitting named by `tokenizer.ggml.pre` that transformers leaves at plain GPT-2 splitting,
# though the model was trained with every digit apart (llama.cpp's table of pre-tokenizers).
# Without it a blank line before a digit becomes two tokens instead of one.
_DIGITS_APART = {"smollm"}
_PLAIN = {"", "default", "gpt-2", "gpt2", "mpt", "olmo", "phi-2"}


def dequantise(path: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write `path`'s model and tokenizer into the existing, empty `folder`.

    Returns facts for the manifest: name, licence, quantisation, pre_tokenizer. The quantisation
    note leaves the config, since the saved weights are plain float32 tensors.

    Raises UserError when the file is no GGUF, is damaged, or holds an unsupported architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = gguf_facts(path)
    progress(f"de-quantising {path.name} ({facts['quantisation']}) to float32, once")
    place, options = str(path.parent), {"gguf_file": path.name, "trust_remote_code": False}
    try:
        with redirect_stderr(io.StringIO()):  # its progress bar heeds no setting
            tokenizer: Any = AutoTokenizer.from_pretrained(place, **options)
            model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
    except (ValueError, KeyError, IndexError, OSError, RuntimeError, ImportError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"this GGUF ({facts['architecture']}) cannot be opened: {line}", where=str(path)
        ) from None
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    facts["pre_tokenizer_applied"] = _split_text(tokenizer, facts["pre_tokenizer"], progress)
    model.save_pretrained(folder, max_shard_size="5GB")
    tokenizer.save_pretrained(folder)
    return facts


def gguf_facts(path: Path) -> dict[str, Any]:
    """What the file says of itself. Raises UserError when it is no GGUF or is cut short."""
    with path.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise UserError("not a GGUF file (its first bytes are not 'GGUF')", where=str(path))
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise UserError(f"a damaged or cut-short GGUF file ({error})", where=str(path)) from None
    if end == 0 or end > path.stat().st_size:
        raise UserError("a damaged or cut-short GGUF file", where=str(path))

    def text(key: str) -> str:
        field = reader.get_field(key)
        return str(field.contents()) if field else ""

    kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return {
        "name": text("general.name"),
        "licence": text("general.license"),
        "architecture": text("general.architecture"),
        "quantisation": " ".join(f"{name}:{count}" for name, count in kinds.most_common()),
        "pre_tokenizer": text("tokenizer.ggml.pre"),
    }


def _split_text(tokenizer: Any, name: str, progress: Progress) -> str:
    """Give the tokenizer the text splitting that the GGUF names, where transformers does not."""
    from tokenizers import pre_tokenizers

    if name in _DIGITS_APART:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
            ]
        )
        return "digits apart, then GPT-2 splitting"
    if name in _PLAIN or name in _known_to_transformers():
        return "as transformers builds it"
    progress(
        f"warning: the text splitting {name!r} of this GGUF is not reproduced; some tokens may "
        "differ from the original model's (use its safetensors folder where that matters)"
    )
    return "not reproduced: transformers' default"


def _known_to_transformers() -> set[str]:
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:  # an internal table: elsewhere in another version, then only a warning more
        return set()
    return set(GGUF_PRE_TOKENIZER_SPLITS)
