"""The GGUF of a model folder, made once and kept in the model cache under its weights' digest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexpert.manifest import read_json, read_manifest, write_manifest
from medexpert.model import folder as folders
from medexpert.model.export import KINDS, export_gguf, refuse_prefix_models
from medexpert.model.staging import Progress, build_once, cache_root, silent
from medexpert.records import digest, unknown_name

FORMAT = 1
"""Part of the cache key: raise it when the writing of a GGUF changes."""
MEMBER = "model.gguf"


@dataclass(frozen=True)
class GgufFolder:
    """An exported model and what an engine needs beside the file.

    `weights` is the digest of the folder it came from. `cache_values` = numbers that keys and
    values of one token take: 2 x layers x key-value heads x head size. `ends` are end tokens.
    """

    path: Path
    kind: str
    weights: str
    sha256: str
    tokenizer: Any
    lineage: dict[str, Any]
    context: int
    cache_values: int
    ends: tuple[int, ...]


def gguf_of(
    folder: Path, *, kind: str = "f16", cache: Path | None = None, progress: Progress = silent
) -> GgufFolder:
    """The folder's GGUF, written and compared with it at the first call.

    The comparison is left out, and that is said, where memory would not hold the model twice.
    Raises UserError as `export_gguf`.
    """
    if kind not in KINDS:
        raise unknown_name("type", kind, KINDS)
    folders.check(folder)
    refuse_prefix_models(folder)
    # An adapter's weights lie on its base's.
    plain = base_of(folder, cache, progress)
    weights = folders.model_digest(folder)
    key = digest({"weights": weights, "base": folders.model_digest(plain), "type": kind,
                  "format": FORMAT})  # fmt: skip

    def fill(into: Path) -> None:
        progress(f"making the GGUF of {folder} ({kind}), once")
        fits = 2 * 4 * folders.describe(plain)["parameters"] < _free_memory()
        if not fits:
            progress("too little free memory to compare the GGUF with the model: not compared")
        facts = export_gguf(folder, into / MEMBER, kind=kind, check=fits, progress=progress)
        facts = {name: value for name, value in facts.items() if name != "file"}
        write_manifest(into, key=key, files=[into / MEMBER], facts={"weights": weights, **facts})

    place = cache_root(cache) / "gguf" / key
    build_once(place, key, fill, progress)
    tokenizer = _tokenizer(plain)
    shape = folders.describe(plain)
    return GgufFolder(
        path=place / MEMBER,
        kind=kind,
        weights=weights,
        sha256=read_manifest(place)["files"][MEMBER]["sha256"],
        tokenizer=tokenizer,
        lineage=folders.read_lineage(folder),
        context=int(shape["context_length"]),
        cache_values=2 * shape["layers"] * shape["kv_heads"] * shape["head_dim"],
        ends=_ends(plain, tokenizer),
    )


def base_of(folder: Path, cache: Path | None = None, progress: Progress = silent) -> Path:
    """The folder itself, or of an adapter the plain model under all its adapters."""
    from medexpert.model.base import parent_folder

    while folders.is_adapter(folder):
        folder = parent_folder(folder, cache=cache, progress=progress)
    return folder


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    load: Any = AutoTokenizer.from_pretrained
    return load(folder, trust_remote_code=False, local_files_only=True)


def _ends(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's EOS and the end tokens that generation_config.json names, or config.json
    where there is none, as transformers has it."""
    path = folder / "generation_config.json"
    named = read_json(path if path.is_file() else folder / "config.json").get("eos_token_id")
    listed = named if isinstance(named, list) else [named]
    found = [tokenizer.eos_token_id, *listed]
    return tuple(dict.fromkeys(int(token) for token in found if token is not None))


def _free_memory() -> int:
    """Bytes of memory that are free or can be made so."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
