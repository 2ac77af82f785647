"""A model folder judged from its files alone: is it whole, may it be opened, how big is it.

Weights are never loaded here: shapes come from safetensors headers. Only safetensors are read,
since a pickle (`.bin`, `.pt`) can run any code on loading; code shipped with a model is never run.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medexpert.manifest import MANIFEST, digest_files, output_digest, read_json, verify
from medexpert.records import UserError

LINEAGE = "medexpert.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CPOLY_CONFIG = "cpoly_config.json"
CPOLY_WEIGHTS = "cpoly_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NOT_CAUSAL = ("ForMaskedLM", "Classification", "ForQuestionAnswering", "ForPreTraining")


def existing(folder: str | Path) -> Path:
    """The folder as a path. Raises UserError, telling how to get a base, when it is not there."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(
            "not a folder" if path.exists() else "no such model folder",
            where=str(folder),
            allowed="a model or adapter folder; `medexpert models fetch NAME` fetches a base model"
            " and prints its folder",
        )
    return path


def is_adapter(folder: Path) -> bool:
    """Whether this is an adapter folder, peft's or C-Poly's (it has no weights of its own base)."""
    adapter = (folder / ADAPTER_CONFIG).is_file() or is_cpoly(folder)
    return adapter and not (folder / "config.json").is_file()


def is_cpoly(folder: Path) -> bool:
    """Whether this folder holds C-Poly skills for several tasks."""
    return (folder / CPOLY_CONFIG).is_file()


def read_lineage(folder: Path) -> dict[str, Any]:
    """What medexpert wrote about how the model was made; empty for a model from elsewhere."""
    path = folder / LINEAGE
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError("a JSON object is expected", where=str(path))
    return value


def ours(folder: Path) -> bool:
    """Whether medexpert wrote this folder, so that its manifest can be held against it."""
    if (folder / LINEAGE).is_file():
        return True
    path = folder / MANIFEST
    value = read_json(path) if path.is_file() else None
    return isinstance(value, dict) and {"key", "files", "versions"} <= set(value)


def check(folder: Path) -> None:
    """Raise UserError on the first reason why this folder cannot be opened as a causal LM."""
    if ours(folder):
        verify(folder)
    if is_adapter(folder):
        check_adapter(folder)
        return
    check_config(folder)
    check_tokenizer(folder)
    for path in weight_files(folder):
        read_header(path)


def check_config(folder: Path) -> dict[str, Any]:
    """`config.json`, if it names a causal LM that transformers itself can build."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError("not a Hugging Face model folder: it has no config.json", where=str(folder))
    config = read_json(path)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise UserError("it has no model_type", where=str(path))
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not causal and config.get("auto_map"):
        files = {str(place).split(".")[0] + ".py" for place in config["auto_map"].values()}
        code = ", ".join(sorted(files))
        raise UserError(
            f"the model needs Python code of its own ({code}) because transformers does not know "
            f"the architecture {kind!r}; medexpert runs no code that comes with a model",
            where=str(path),
        )
    architectures = [str(name) for name in config.get("architectures") or ()]
    if not causal or any(part in name for name in architectures for part in _NOT_CAUSAL):
        raise UserError(
            f"{', '.join(architectures) or kind} is not a causal language model that the installed "
            "transformers can build",
            where=str(path),
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unnamed method")
        raise UserError(
            f"its weights are quantised ({method}); give the full-precision safetensors or a GGUF",
            where=str(path),
        )
    return dict(config)


def check_tokenizer(folder: Path) -> None:
    """Raise UserError when the folder holds no tokenizer that transformers can read."""
    names = {path.name for path in folder.iterdir()}
    single = names & {"tokenizer.json", "tokenizer.model"}
    if not single and not {"vocab.json", "merges.txt"} <= names:
        raise UserError(
            "it has no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt)",
            where=str(folder),
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises UserError naming a missing one."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        raise _no_safetensors([path.name for path in folder.iterdir()], str(folder))
    value = read_json(index)
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict) or not places:
        raise UserError("it has no weight_map", where=str(index))
    names = sorted(set(map(str, places.values())))
    for name in names:
        if Path(name).name != name:
            raise UserError(f"shard {name!r} lies outside the folder", where=str(index))
        if not (folder / name).is_file():
            raise UserError(
                f"shard {name} is missing ({len(names)} are listed in {INDEX})", where=str(folder)
            )
    return [folder / name for name in names]


def refuse_without_safetensors(names: list[str], where: str) -> None:
    """Raise UserError if a listing of files holds no model weights in safetensors."""
    if WEIGHTS not in names and INDEX not in names:
        raise _no_safetensors(names, where)


def _no_safetensors(names: list[str], where: str) -> UserError:
    pickles = sorted(n for n in names if n.endswith(PICKLES) and n != "training_args.bin")
    if pickles:
        return UserError(
            f"refused: its weights are pickles ({pickles[0]}), which can run any code when loaded; "
            "convert them to safetensors where you trust the source",
            where=where,
        )
    if any(name.endswith(".gguf") for name in names):
        return UserError("it holds GGUF files: give the path of one .gguf file", where=where)
    return UserError(f"it has no weights ({WEIGHTS} or {INDEX})", where=where)


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensor names with dtype and shape of a safetensors file, after checking its length.

    Layout: 8 bytes little-endian length N, N bytes of JSON, then the tensors' bytes up to the
    largest `data_offsets` end (safetensors format description). Raises UserError when cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        start = handle.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        raw = handle.read(length) if 8 + length <= size else b""
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        for entry in header.values():
            entry["shape"], entry["dtype"] = [int(n) for n in entry["shape"]], str(entry["dtype"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise UserError("not a readable safetensors file (cut short?)", where=str(path)) from None
    if 8 + length + end != size:
        raise UserError(
            f"cut short or damaged: {size} bytes, but its header describes {8 + length + end}",
            where=str(path),
        )
    return dict(header)


def check_adapter(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter, LoRA or C-Poly, whose weights are safetensors."""
    if is_cpoly(folder):
        return _check_cpoly(folder)
    config = read_json(folder / ADAPTER_CONFIG)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise UserError(
            f"adapter type {kind!r} cannot be opened",
            where=str(folder / ADAPTER_CONFIG),
            allowed="LORA",
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        names = [path.name for path in folder.iterdir() if path.name.startswith("adapter_model")]
        if names:
            raise _no_safetensors(names, str(folder))
        raise UserError(f"the adapter has no {ADAPTER_WEIGHTS}", where=str(folder))
    read_header(folder / ADAPTER_WEIGHTS)
    return dict(config)


def _check_cpoly(folder: Path) -> dict[str, Any]:
    from medexpert.model.adapters.cpoly.config import CPolyConfig

    config = CPolyConfig.read(folder)
    if not (folder / CPOLY_WEIGHTS).is_file():
        raise UserError(f"the adapter has no {CPOLY_WEIGHTS}", where=str(folder))
    read_header(folder / CPOLY_WEIGHTS)
    return config.model_dump(mode="json")


def origin(folder: Path) -> dict[str, str]:
    """{hub, commit} when the folder is a snapshot in the Hugging Face cache, else empty."""
    folder = folder.resolve()
    owner = re.fullmatch(r"models--(.+?)--(.+)", folder.parent.parent.name)
    if folder.parent.name == "snapshots" and owner:
        return {"hub": f"{owner.group(1)}/{owner.group(2)}", "commit": folder.name}
    return {}


def model_digest(folder: Path) -> str:
    """16 hex digits that change when the model does.

    From the manifest where there is one, else from the bytes of the weights (about a second a GB),
    the configuration and the tokenizer with its chat template.
    """
    if ours(folder):
        return output_digest(folder)
    return digest_files(p for p in sorted(folder.iterdir()) if p.is_file() and _of_model(p))


def _of_model(path: Path) -> bool:
    return path.suffix in (".safetensors", ".jinja", ".model") or path.name in (
        "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", ADAPTER_CONFIG,
        CPOLY_CONFIG,
    )  # fmt: skip


def describe(folder: Path) -> dict[str, Any]:
    """Size, shape and history of a model without loading it.

    `parameters` counts stored tensors (tied embeddings once); `weight_bytes` is their size on disk;
    for an adapter both count the adapter alone and `base` says where its base is; with C-Poly
    `tasks` names its tasks.
    `linear_in_plus_out` sums inputs + outputs of the linear layers that LoRA sits on by default,
    so that rank times it is the size of such an adapter.
    """
    lineage = read_lineage(folder)
    facts = read_json(folder / MANIFEST) if ours(folder) else {}
    adapter = is_adapter(folder)
    own = CPOLY_WEIGHTS if is_cpoly(folder) else ADAPTER_WEIGHTS
    files = [folder / own] if adapter else weight_files(folder)
    tensors = [entry for path in files for entry in read_header(path).values()]
    config = check_adapter(folder) if adapter else check_config(folder)
    found: dict[str, Any] = {
        "folder": str(folder),
        "kind": "adapter" if adapter else "model",
        "parameters": sum(math.prod(entry["shape"]) for entry in tensors),
        "weight_bytes": sum(path.stat().st_size for path in files),
        "stored_dtype": "+".join(sorted({entry["dtype"] for entry in tensors})),
        "licence": str(lineage.get("licence") or facts.get("licence") or ""),
        "lineage": lineage,
        "origin": origin(folder) or facts.get("origin", {}),
    }
    if adapter:
        rank = config.get("rank", config.get("r"))
        found |= {"base": lineage.get("parent", ""), "rank": rank}
        return {**found, "tasks": config["tasks"]} if is_cpoly(folder) else found
    linear = [e["shape"] for path in files for n, e in read_header(path).items() if _linear(n, e)]
    return {**found, **_shape(config), "linear_in_plus_out": sum(map(sum, linear))}


def _linear(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a tensor is the weight of a linear layer other than the output layer."""
    parts = set(name.split("."))
    outside = {"embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out"}
    return len(entry["shape"]) == 2 and parts.isdisjoint(outside)


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers a memory estimate needs, under one name for every architecture."""
    inner = config.get("text_config") or {}

    def first(*names: str) -> int:
        return next((int(v) for n in names for v in (config.get(n) or inner.get(n),) if v), 0)

    heads = first("num_attention_heads", "n_head")
    hidden = first("hidden_size", "n_embd")
    return {
        "architecture": (config.get("architectures") or [config["model_type"]])[0],
        "layers": first("num_hidden_layers", "n_layer"),
        "hidden": hidden,
        "intermediate": first("intermediate_size", "n_inner"),
        "heads": heads,
        "kv_heads": first("num_key_value_heads") or heads,
        "head_dim": first("head_dim") or (hidden // heads if heads else 0),
        "vocabulary": first("vocab_size"),
        "context_length": first("max_position_embeddings", "n_positions"),
        "tied": bool(config.get("tie_word_embeddings", False)),
    }
