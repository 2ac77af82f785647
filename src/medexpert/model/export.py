"""A model folder, or an adapter merged into its base, as one file or folder for other programs.

    gguf   one file for OpenVINO GenAI, llama.cpp and Ollama
    hf     a plain Hugging Face folder

A GGUF is written here (`gguf_writing`) for the architectures and tokenizers listed there, or by the
converter of a llama.cpp checkout of the user's own. Either way it is read back before it is called
done: some texts must give the same tokens, and the logits must agree (`gguf_checking`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from medexpert.manifest import disk_errors
from medexpert.model import folder as folders
from medexpert.model.staging import Progress, silent
from medexpert.records import UserError, unknown_name

FORMATS = ("gguf", "hf")
KINDS = ("f16", "q8_0")
"""What the matrices of a GGUF are stored as; OpenVINO GenAI reads both and refuses bf16."""
CONVERTER = "convert_hf_to_gguf.py"


def export(
    folder: Path,
    out: Path,
    *,
    to: str = "gguf",
    kind: str = "f16",
    llama_cpp: Path | None = None,
    check: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write `folder` as `out`; returns what was written, and how it differs when it was checked.

    Raises UserError: unknown format or kind, an existing `out`, a model this format cannot hold, a
    converter that fails, a file that reads back as another model (it is removed).
    """
    if to not in FORMATS:
        raise unknown_name("format", to, FORMATS, where="--to")
    if to == "hf":
        if kind != "f16" or llama_cpp is not None:
            raise UserError("--type and --llama-cpp are for --to gguf", where="export")
        return export_hf(folder, out, progress=progress)
    return export_gguf(folder, out, kind=kind, llama_cpp=llama_cpp, check=check, progress=progress)


def export_hf(folder: Path, out: Path, *, progress: Progress = silent) -> dict[str, Any]:
    """A plain Hugging Face folder in float32, adapters merged; the lineage goes with it."""
    import torch

    from medexpert.model.base import load
    from medexpert.model.checkpoint import save_model

    if out.exists():
        raise _exists(out)
    progress(f"opening {folder}")
    model, tokenizer = load(folder, dtype=torch.float32, device="cpu")
    lineage = {**folders.read_lineage(folder), "exported_from": folders.model_digest(folder)}
    save_model(model, tokenizer, out, lineage=lineage, dtype=torch.float32)
    return {"format": "hf", "file": str(out), "bytes": _size(out)}


def export_gguf(
    folder: Path,
    out: Path,
    *,
    kind: str = "f16",
    llama_cpp: Path | None = None,
    check: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """One GGUF file with matrices in `kind`, vectors in float32, and the tokenizer."""
    if kind not in KINDS:
        raise unknown_name("type", kind, KINDS, where="--type")
    if out.exists():
        raise _exists(out)
    refuse_prefix_models(folder)
    partial = out.with_name(f".{out.name}.partial.gguf")
    try:
        with disk_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            if llama_cpp is not None:
                convert_with(llama_cpp, folder, partial, kind, progress)
            else:
                from medexpert.model.gguf_writing import write_gguf

                write_gguf(folder, partial, kind=kind, progress=progress)
            facts: dict[str, Any] = {}
            if check:
                from medexpert.model.gguf_checking import check_gguf

                facts = check_gguf(folder, partial, kind=kind, progress=progress)
            partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return {"format": "gguf", "type": kind, "file": str(out), "bytes": _size(out), **facts}


def refuse_prefix_models(folder: Path) -> None:
    """Raise UserError for a model that reads its prompt both ways: a GGUF cannot say so, and the
    programs that open one would read it causally and answer worse without a word."""
    reading = str(folders.read_lineage(folder).get("attention", "causal"))
    if reading != "causal":
        raise UserError(
            f"this model reads prompts both ways (attention = {reading!r}), which no GGUF reader"
            " does",
            where=str(folder),
            allowed="a model trained with attention = 'causal'",
        )


def convert_with(
    checkout: Path, folder: Path, out: Path, kind: str, progress: Progress = silent
) -> None:
    """Run the converter of a llama.cpp checkout, with the `gguf` package that lies beside it.

    Raises UserError when there is none, when it fails, or when it needs a merged folder.
    """
    script = checkout / CONVERTER
    if not script.is_file():
        raise UserError(f"no {CONVERTER} in this llama.cpp checkout", where=str(checkout))
    if folders.is_adapter(folder):
        raise UserError(
            "llama.cpp's converter takes a whole model: first `medexpert export --to hf`",
            where=str(folder),
        )
    folders.check(folder)
    progress(f"converting with {script}")
    # Its own `gguf` before ours, which is too old for it.
    paths = [str(checkout / "gguf-py"), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, str(script), str(folder), "--outfile", str(out), "--outtype", kind]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode or not out.is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        missing = re.search(r"No module named '(\w+)'", last)
        advice = f" (it needs `pip install {missing.group(1)}`)" if missing else ""
        raise UserError(f"llama.cpp's converter failed: {last}{advice}", where=str(script))


def _exists(out: Path) -> UserError:
    return UserError("it exists already; nothing was replaced", where=str(out))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
