"""What a run must remember to continue to the bit: masters, AdamW moments, the step, the totals.

Everything else (row order, learning rate, dropout) is a pure function of seed and step. A
checkpoint is a folder written beside its place, synced and renamed, its manifest last; safetensors
and JSON only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from medexpert import manifest
from medexpert.model.staging import staged
from medexpert.records import UserError
from medexpert.train.optim import Masters

KEEP = 2


@dataclass
class Progress:
    """Totals of a run so far; `step` is the number of optimiser steps done."""

    step: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    padding: int = 0
    seconds: float = 0.0


def save(
    folder: Path, progress: Progress, masters: Masters, optimizer: torch.optim.Optimizer, key: str
) -> Path:
    """Write `folder/step-NNNNNN` atomically; keep it and the newest before it, KEEP in all.

    Checkpoints of a later step are another key's, passed over by :func:`restore`: they go now that
    there is one to continue from.
    """
    target = folder / f"step-{progress.step:06d}"
    with staged(target) as partial:
        _write(partial, progress, masters, optimizer, key)
    upto = [path for path in found(folder) if path.name <= target.name]
    for old in set(found(folder)) - set(upto[-KEEP:]):
        shutil.rmtree(old, ignore_errors=True)
    return target


def _write(
    partial: Path, progress: Progress, masters: Masters, optimizer: torch.optim.Optimizer, key: str
) -> None:
    moments: dict[str, torch.Tensor] = {}
    for name, tensor in masters.master.items():
        for kind, value in optimizer.state[tensor].items():
            moments[f"{name}|{kind}"] = value
    files = [partial / "masters.safetensors", partial / "moments.safetensors"]
    for file, tensors in zip(files, (masters.master, moments), strict=True):
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, str(file))
    manifest.write_manifest(partial, key=key, files=files, facts={"progress": asdict(progress)})


def found(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(folder.glob("step-[0-9]*")) if folder.is_dir() else []


def restore(
    folder: Path,
    masters: Masters,
    optimizer: torch.optim.Optimizer,
    key: str,
    say: Callable[[str], None],
) -> Progress:
    """Load the newest intact checkpoint made with `key`; a fresh Progress when there is none.

    A damaged checkpoint is named and removed, and the one before it is taken.
    """
    for partial in folder.glob(".step-*.partial*"):
        shutil.rmtree(partial, ignore_errors=True)
    for checkpoint in reversed(found(folder)):
        try:
            facts = manifest.verify(checkpoint)
        except UserError as error:
            say(f"checkpoint {checkpoint.name} is damaged and is not used: {error}")
            shutil.rmtree(checkpoint, ignore_errors=True)
            continue
        if facts["key"] != key:
            say(f"checkpoint {checkpoint.name} was made with other settings or data: not used")
            continue
        _load(checkpoint, masters, optimizer)
        return Progress(**facts["progress"])
    return Progress()


def _load(checkpoint: Path, masters: Masters, optimizer: torch.optim.Optimizer) -> None:
    saved: Mapping[str, torch.Tensor] = load_file(str(checkpoint / "masters.safetensors"))
    masters.load(saved)
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in load_file(str(checkpoint / "moments.safetensors")).items():
        name, _, kind = key.rpartition("|")
        by_name.setdefault(name, {})[kind] = value
    for name, tensor in masters.master.items():
        # Fused AdamW wants its step counter, too, where the weights are.
        optimizer.state[tensor] = {
            kind: value.to(tensor.device) for kind, value in by_name[name].items()
        }
