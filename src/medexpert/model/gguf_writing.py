"""The tensors, settings and tokenizer of a transformers model -> one GGUF file.

Written with the `gguf` package, which reading GGUF needs anyway: llama.cpp's converter brings its
own copy of that package under the same name, so the two cannot live in one environment.
Key names, tensor names and the order of rotary rows follow llama.cpp's GGUF specification.

Supported: the architectures in `ARCHITECTURES` with byte-level BPE text splitting from `_SPLITS`.
Everything else is an error that says so; nothing is written approximately.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medexpert.model import folder as folders
from medexpert.model.staging import Progress, silent
from medexpert.records import UserError

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""transformers' model_type -> the name in `general.architecture`."""
_INTERLEAVED = {"llama"}
"""Architectures whose rotary rows GGUF keeps in pairs (x0, x1) instead of in halves."""
_FIXED = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_IN_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    ("digits", "gpt-2"): "smollm",
    ("gpt-2",): "gpt-2",
    (_REGEX % "{1,3}", "bytes"): "llama-bpe",
    (_REGEX % "", "bytes"): "qwen2",
}
"""How the text is split before the merges -> llama.cpp's name for it."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType
_BLOCK = 32  # values that share one scale in q8_0


@dataclass(frozen=True)
class Tensor:
    """A tensor under its GGUF name; `read()` gives it in float32."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Any]


def write_gguf(folder: Path, out: Path, *, kind: str, progress: Progress = silent) -> None:
    """Write the model folder (adapters are merged) with matrices in `kind`, "f16" or "q8_0".

    A plain folder is read a tensor at a time. Raises UserError: an architecture, setting, tensor or
    tokenizer that is not supported, a value beyond float16.
    """
    import gguf

    settings, tensors, tokenizer = _opened(folder, progress)
    architecture = _architecture(settings, folder)
    renamed = [_renamed(tensor, architecture, settings, folder) for tensor in tensors]
    writer = gguf.GGUFWriter(out, architecture)
    try:
        described = folders.describe(folder)
        _add_settings(writer, settings, described, kind)
        vocabulary = next(t.shape[0] for t in renamed if t.name == "token_embd.weight")
        add_tokenizer(writer, tokenizer, vocabulary, folder)
        stored = [(tensor, _stored_as(tensor, kind, folder)) for tensor in renamed]
        for tensor, how in stored:
            shape = (
                gguf.quant_shape_to_byte_shape(tensor.shape, how)
                if how.name == "Q8_0"
                else tensor.shape
            )
            size = int(np.prod(shape)) * {"F32": 4, "F16": 2, "Q8_0": 1}[how.name]
            kinds = {"F32": np.float32, "F16": np.float16, "Q8_0": np.uint8}
            writer.add_tensor_info(
                tensor.name, shape, np.dtype(kinds[how.name]), size,
                raw_dtype=how if how.name == "Q8_0" else None,
            )  # fmt: skip
        progress(f"writing {len(stored)} tensors as {kind}")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, how in stored:
            writer.write_tensor_data(_encoded(tensor, how, folder))
    finally:
        writer.close()


# -- what there is ---------------------------------------------------------------------------------


def _opened(folder: Path, progress: Progress) -> tuple[dict[str, Any], list[Tensor], Any]:
    """(config.json's content, tensors under transformers' names, tokenizer)."""
    folders.check(folder)
    if folders.is_adapter(folder):
        import torch

        from medexpert.model.base import load

        progress(f"merging {folder} into its base")
        model, tokenizer = load(folder, dtype=torch.float32, device="cpu")
        config = json.loads(model.config.to_json_string(use_diff=False))
        state: Mapping[str, Any] = model.state_dict()
        tensors = [
            Tensor(name, tuple(value.shape), partial(_in_float32, value))
            for name, value in state.items()
        ]
        return config, tensors, tokenizer
    from transformers import AutoConfig, AutoTokenizer

    # The class fills in what config.json leaves to its defaults.
    whole: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    config = json.loads(whole.to_json_string(use_diff=False))
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    return config, list(_stored(folder)), tokenizer


def _in_float32(value: Any) -> Any:
    return value.float().numpy()


def _stored(folder: Path) -> Iterator[Tensor]:
    from safetensors import safe_open

    for path in folders.weight_files(folder):
        for name, entry in sorted(folders.read_header(path).items()):

            def read(path: Path = path, name: str = name) -> Any:
                with safe_open(path, framework="pt") as file:
                    return file.get_tensor(name).float().numpy()

            yield Tensor(name, tuple(entry["shape"]), read)


def _architecture(config: Mapping[str, Any], folder: Path) -> str:
    kind = str(config["model_type"])
    where = str(folder)
    if kind not in ARCHITECTURES:
        raise UserError(
            f"the architecture {kind!r} is not written here",
            where=where,
            allowed=", ".join(ARCHITECTURES) + "; any other with --llama-cpp DIR",
        )
    rope = config.get("rope_parameters") or {}
    scaling = str(rope.get("rope_type", "default"))
    faults = [
        f"rotary scaling {scaling!r}" if scaling != "default" else "",
        "a partial rotary factor" if rope.get("partial_rotary_factor", 1.0) != 1.0 else "",
        f"activation {config['hidden_act']!r}" if config["hidden_act"] != "silu" else "",
        "a sliding window" if config.get("use_sliding_window") else "",
    ]
    for fault in filter(None, faults):
        raise UserError(f"{fault} is not written here", where=where, allowed="--llama-cpp DIR")
    return ARCHITECTURES[kind]


def _renamed(tensor: Tensor, architecture: str, config: Mapping[str, Any], folder: Path) -> Tensor:
    """The tensor under its GGUF name, rotary rows in GGUF's order."""
    name, read = _FIXED.get(tensor.name, ""), tensor.read
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", tensor.name)
    part = _IN_LAYER.get(layer.group(2), "") if layer else ""
    # Biases outside attention would be written and read by nobody.
    if layer and part and (layer.group(3) == "weight" or part.startswith("attn_")):
        name = f"blk.{layer.group(1)}.{part}.{layer.group(3)}"
        if architecture in _INTERLEAVED and part in ("attn_q", "attn_k"):
            key = "num_attention_heads" if part == "attn_q" else "num_key_value_heads"
            heads = int(config[key])

            def read() -> Any:
                return interleaved(tensor.read(), heads)

    if not name:
        raise UserError(
            f"the tensor {tensor.name} has no place in a GGUF of {architecture}",
            where=str(folder),
            allowed="--llama-cpp DIR",
        )
    return Tensor(name, tensor.shape, read)


def interleaved(rows: Any, heads: int) -> Any:
    """Rotary rows from halves to pairs within each head: [h][2][d/2] -> [h][d/2][2]."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _stored_as(tensor: Tensor, kind: str, folder: Path) -> Any:
    import gguf

    types = gguf.GGMLQuantizationType
    if len(tensor.shape) == 1:
        return types.F32
    if kind == "q8_0" and tensor.shape[-1] % _BLOCK:
        raise UserError(
            f"rows of {tensor.name} hold {tensor.shape[-1]} values; q8_0 needs a multiple of"
            f" {_BLOCK}",
            where=str(folder),
            allowed="--type f16",
        )
    return types.Q8_0 if kind == "q8_0" else types.F16


def _encoded(tensor: Tensor, how: Any, folder: Path) -> Any:
    import gguf

    value = tensor.read()
    if how.name == "Q8_0":
        return gguf.quants.quantize(value, how)
    if how.name == "F32":
        return np.ascontiguousarray(value, dtype=np.float32)
    if not np.all(np.abs(value) <= np.finfo(np.float16).max):  # NaN fails this, too
        raise UserError(f"{tensor.name} holds a value that float16 cannot", where=str(folder))
    return np.ascontiguousarray(value, dtype=np.float16)


# -- what is said of it ----------------------------------------------------------------------------


def _add_settings(
    writer: Any, config: Mapping[str, Any], described: Mapping[str, Any], kind: str
) -> None:
    import gguf

    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    head = int(config.get("head_dim") or hidden // heads)
    types = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(Path(described["folder"]).resolve().name)
    if described["licence"]:
        writer.add_license(described["licence"].lower())
    writer.add_file_type(types[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config["num_key_value_heads"]))
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config["rope_parameters"]["rope_theta"]))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))


def add_tokenizer(writer: Any, tokenizer: Any, vocabulary: int, folder: Path) -> None:
    """Vocabulary, merges, text splitting, special tokens and chat template; `vocabulary` is the
    number of rows of the embedding, which may be more than the tokenizer has tokens."""
    from medexpert.model.base import chat_format
    from medexpert.model.text import start_tokens

    where = str(folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    described = json.loads(backend.to_str()) if backend is not None else {}
    bpe = described.get("model") or {}
    if bpe.get("type") != "BPE" or bpe.get("byte_fallback"):
        raise UserError(
            "its tokenizer is not byte-level BPE, which is all that is written here",
            where=where,
            allowed="--llama-cpp DIR",
        )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting(described, where))
    tokens, kinds = _tokens(described, vocabulary, where)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    # Older tokenizer files write a merge as one string, newer ones as a pair.
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]])
    special = {
        "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id,
    }  # fmt: skip
    for name, token in special.items():
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(int(token))
    start = start_tokens(tokenizer)
    if start and start != [tokenizer.bos_token_id]:
        raise UserError(
            f"its tokenizer begins every text with {tokenizer.convert_ids_to_tokens(start)}, which"
            " a GGUF cannot say",
            where=where,
            allowed="nothing, or the BOS token",
        )
    writer.add_add_bos_token(bool(start))
    template = chat_format(tokenizer)[0]
    if template:
        writer.add_chat_template(template)


def splitting(described: Mapping[str, Any], where: str) -> str:
    """llama.cpp's name of the text splitting in a tokenizer.json. Raises UserError if unknown."""
    whole = described.get("pre_tokenizer") or {}
    parts = whole.get("pretokenizers", [whole])
    seen: list[str] = []
    for part in parts:
        if part.get("type") == "Digits" and part.get("individual_digits"):
            seen.append("digits")
        elif part.get("type") == "ByteLevel" and not part.get("add_prefix_space"):
            seen.append("gpt-2" if part.get("use_regex", True) else "bytes")
        elif part.get("type") == "Split" and part.get("behavior") == "Isolated":
            seen.append(str(part["pattern"].get("Regex", "")))
        else:
            seen.append(str(part.get("type")))
    found = _SPLITS.get(tuple(seen), "")
    normalizer = (described.get("normalizer") or {}).get("type")
    # llama.cpp leaves out Qwen's NFC normalisation, too: it differs for decomposed accents only.
    if not found or (normalizer and (found, normalizer) != ("qwen2", "NFC")):
        raise UserError(
            f"its tokenizer splits text in a way not known here ({', '.join(seen)}"
            f"{f', after {normalizer}' if normalizer else ''})",
            where=where,
            allowed=f"{', '.join(_SPLITS.values())}; any other with --llama-cpp DIR",
        )
    return found


def _tokens(
    described: Mapping[str, Any], vocabulary: int, where: str
) -> tuple[list[str], list[int]]:
    """(token texts, their kinds), one a row of the embedding; rows without a token are unused."""
    names = {number: name for name, number in described["model"]["vocab"].items()}
    kinds = dict.fromkeys(names, NORMAL)
    for added in described["added_tokens"]:
        names[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(names) >= vocabulary:
        raise UserError(
            f"its tokenizer has {max(names) + 1} tokens, its embedding {vocabulary} rows",
            where=where,
        )
    return (
        [names.get(number, f"[PAD{number}]") for number in range(vocabulary)],
        [kinds.get(number, UNUSED) for number in range(vocabulary)],
    )
