"""Save a model or an adapter so that it is whole or absent, verify it, tell where it came from.

A saved folder holds safetensors, configuration, tokenizer with chat template, `medexpert.json`
(lineage: stage, recipe hash, parent and its digest, data digest, steps, tokens, versions) and,
written last, `manifest.json` with the checksum of every file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.manifest import read_json, verify, versions, write_json, write_manifest
from medexpert.model import folder as folders
from medexpert.model.adapters import quantised
from medexpert.model.adapters.lora import merge_lora
from medexpert.model.staging import staged
from medexpert.records import UserError, digest

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from medexpert.model.adapters.cpoly import CPolyModel


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    lineage: Mapping[str, Any],
    dtype: torch.dtype,
    key: str = "",
) -> dict[str, Any]:
    """Write a plain Hugging Face folder with weights in `dtype`; returns the manifest.

    The model in memory is not changed. `key` goes into the manifest (empty: the lineage's digest).

    A `parent` that is a folder is written the way :func:`link` puts it.

    Raises UserError: disk full (nothing half-written is left), place not writable, a folder with
    foreign files. Raises TypeError for a wrapped adapter: merge it first or use save_adapter.
    """
    if hasattr(model, "peft_config") or hasattr(model, "cpoly"):
        raise TypeError("save_model takes a plain model: call merge_lora, or use save_adapter")
    with staged(folder) as temporary:
        model.save_pretrained(temporary, state_dict=_cast(model, dtype), max_shard_size="5GB")
        config = read_json(temporary / "config.json")
        config["dtype"] = str(dtype).removeprefix("torch.")  # transformers writes the model's own
        write_json(temporary / "config.json", config)
        tokenizer.save_pretrained(temporary)
        return _seal(temporary, _linked(lineage, folder), key)


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The state with floating tensors in `dtype`; tensors that share memory go on sharing it."""
    done: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if place not in done:
            done[place] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        state[name] = done[place]
    return state


def save_adapter(
    model: PeftModel | CPolyModel, folder: Path, *, lineage: Mapping[str, Any], key: str = ""
) -> dict[str, Any]:
    """Write a peft or C-Poly adapter folder (safetensors only, no tokenizer: the base has it).

    `lineage["parent"]`, a model folder or a name that `fetch` takes, is how it finds its base; a
    folder is written the way :func:`link` puts it. A base in 4 bits is told in the lineage as
    `quantised`. Returns the manifest; raises as save_model does.
    """
    if not lineage.get("parent"):
        raise ValueError("an adapter's lineage needs 'parent': without it the base cannot be found")
    facts = quantised.told(model)
    entry = {**lineage, "quantised": facts} if facts else dict(lineage)
    with staged(folder) as temporary:
        _save_adapter_files(model, temporary)
        return _seal(temporary, _linked(entry, folder), key)


def export_task(folder: Path, task: str, to: Path) -> dict[str, Any]:
    """One task of the C-Poly folder `folder` as a standard peft LoRA folder `to`; exact.

    Its lineage is the C-Poly folder's, with `task`. Returns the manifest. Raises UserError for a
    folder without tasks or an unknown task, and as save_model does.
    """
    from medexpert.model.adapters.cpoly import files

    if not folders.is_cpoly(folder):
        raise UserError("it holds no C-Poly tasks to export", where=str(folder))
    folders.check(folder)
    lineage = folders.read_lineage(folder)
    parent = str(lineage.get("parent", ""))
    near = Path(os.path.normpath(folder / parent))
    if parent and near.is_dir():
        lineage["parent"] = str(near)
    with staged(to) as temporary:
        files.write_task(folder, task, temporary)
        _tidy_peft(temporary)
        return _seal(temporary, {**_linked(lineage, to), "task": task}, "")


def _save_adapter_files(model: Any, folder: Path) -> None:
    if hasattr(model, "cpoly"):
        from medexpert.model.adapters.cpoly import files

        files.write(model, folder)
        return
    # The embeddings are never trained here; looking whether they were would ask the hub.
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    _tidy_peft(folder)


def _tidy_peft(folder: Path) -> None:
    """Make what peft wrote the same in every process and on every machine."""
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card
    path = folder / folders.ADAPTER_CONFIG
    config = read_json(path)
    config["base_model_name_or_path"] = ""  # a path of this machine; the lineage tells it better
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()  # peft holds a set, whose order changes by process
    write_json(path, config)


def _seal(folder: Path, lineage: Mapping[str, Any], key: str) -> dict[str, Any]:
    entry = {**lineage, "versions": lineage.get("versions") or versions()}
    write_json(folder / folders.LINEAGE, entry)
    files = [path for path in folder.rglob("*") if path.is_file()]
    facts = {"stage": str(lineage.get("stage", "")), "licence": str(lineage.get("licence", ""))}
    return write_manifest(folder, key=key or digest(dict(lineage)), files=files, facts=facts)


def _linked(lineage: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    parent = Path(str(lineage.get("parent", "")))
    known = parent != Path() and parent.is_dir()
    return {**lineage, "parent": link(parent, folder)} if known else dict(lineage)


def link(parent: Path, folder: Path) -> str:
    """How `folder`'s lineage names `parent`: relative if both lie in one run folder.

    So a run folder can be moved as a whole and its adapters still find their base.
    """
    parent, folder = parent.resolve(), folder.resolve()
    run = folder.parent.parent
    return os.path.relpath(parent, folder) if parent.is_relative_to(run) else str(parent)


def verify_model(folder: Path) -> dict[str, Any]:
    """The manifest of a model that medexpert saved, after checking every file against it.

    Raises UserError when it is unfinished, damaged, or cannot be opened as a model.
    """
    entry = verify(folder)
    folders.check(folder)
    return entry


def task_of(folder: Path, task: str) -> str:
    """The task that `folder` is opened for: the one named, or the only one.

    Empty for a folder without tasks. Raises UserError for an unknown task, for none of several,
    and for a task where there are none.
    """
    if not folders.is_cpoly(folder):
        if task:
            raise UserError(f"it holds no tasks, so none is called {task!r}", where=str(folder))
        return ""
    from medexpert.model.adapters.cpoly import CPolyConfig

    config = CPolyConfig.read(folder)
    if task:
        return config.tasks[config.index(task)]
    if len(config.tasks) > 1:
        raise UserError(
            "these weights are for several tasks: name one",
            where=str(folder),
            allowed=", ".join(config.tasks),
        )
    return config.tasks[0]


def open_adapter(model: PreTrainedModel, folder: Path, task: str = "") -> PreTrainedModel:
    """Put the adapter of `folder` onto `model` (float32) and merge it; `task` is for C-Poly.

    Raises UserError when the adapter's tensors and the base's modules do not fit each other.
    """
    if folders.is_cpoly(folder):
        from medexpert.model.adapters.cpoly import files

        return files.read(model, folder).unwrap(task_of(folder, task))
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft warns of is an error below
            wrapped = PeftModel.from_pretrained(
                model,
                folder,
                is_trainable=False,
                autocast_adapter_dtype=False,
                local_files_only=True,
            )
    except (ValueError, RuntimeError, KeyError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the adapter does not fit its base model: {line}", where=str(folder)
        ) from None
    stored = set(folders.read_header(folder / folders.ADAPTER_WEIGHTS))
    expected = set(get_peft_model_state_dict(wrapped))
    if stored != expected:
        odd = sorted(stored ^ expected)
        raise UserError(
            f"the adapter does not fit its base model: {len(odd)} tensors differ, first {odd[0]}",
            where=str(folder),
        )
    return merge_lora(wrapped)
