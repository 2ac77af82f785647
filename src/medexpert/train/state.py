"""What a run must remember to continue to the bit: masters, AdamW moments, the step, the totals.

Everything else (row order, learning rate, dropout) is a pure function of seed and step. A
checkpoint is a folder written beside its place, synced and renamed, its manifest last: one
safetensors file a process, with the place of every piece in its header, so that another number of
processes can read it (torch.distributed.checkpoint plans who reads what). No pickles.

Saving copies the tensors and returns; a thread writes the copies while training goes on. The
folder must be on storage that every process sees.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from medexpert import manifest
from medexpert.records import UserError
from medexpert.train import shards
from medexpert.train.optim import Weights
from medexpert.train.parallel import World, from_first

KEEP = 2
BEST = "best"
SHARE = 0.02
"""Of the time since the last checkpoint, what saving the next one may cost."""
SECONDS = 20.0
"""Least time between two checkpoints chosen by their cost."""
FIRST_GUESS = 5e8
"""Bytes a second that saving is thought to manage before it was measured."""


@dataclass
class Progress:
    """Totals of a run so far; `step` is the number of optimiser steps done.

    `skipped`: reason -> count; `norms`: recent gradient norms; `best`: [metric, step] of the step
    whose weights are kept; `meter`: what was measured on the way. All of it goes through JSON and
    comes back equal (floats are written so that they read back to the same bits).
    """

    step: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    padding: int = 0
    seconds: float = 0.0
    skipped: dict[str, int] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)
    best: list[float] | None = None
    meter: list[dict[str, Any]] = field(default_factory=list)
    micro_rows: int = 0


class Checkpointer:
    """Checkpoints of one run under `folder`: `step-NNNNNN` (the newest `keep`) and `best`.

    `key` names the settings and data; beside checkpoints of another key it refuses to work.
    `settings` go into each checkpoint, to tell later what differs. `restore`, `save`,
    `save_best`, `best`, `best_kept`, `due` and `wait` are collective.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        weights: Weights,
        optimizer: torch.optim.Optimizer,
        world: World,
        keep: int = KEEP,
        say: Callable[[str], None] = lambda line: None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.key, self.keep = folder, key, keep
        self.settings = dict(settings or {})
        self.weights, self.optimizer, self.world = weights, optimizer, world
        self.say = world.only_first(say)
        # The thread's own group: its messages must not mix with those of the training.
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._talk = dist.new_group(backend="gloo") if world.size > 1 else None
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None
        self._copies: dict[str, torch.Tensor] = {}
        size = sum(_local(t).numel() * _local(t).element_size() for t in weights.master.values())
        self._cost = 3 * size / FIRST_GUESS
        self._saved_at = time.monotonic()

    # --- saving -----------------------------------------------------------------------------

    def due(self, step: int, every: int) -> bool:
        """Whether to save after `step`: each `every` steps, or (0) where saving costs <= 2 %.

        Raises UserError when the last background write failed.
        """
        wanted = max(SECONDS, self._cost / SHARE)
        failed = self._fault is not None
        cheap = time.monotonic() - self._saved_at >= wanted
        failed, cheap = self._from_first((failed, cheap))
        if failed:  # when one process has it, so have the others as soon as their thread ends
            self.wait()
        return step % every == 0 if every else cheap

    def save(self, progress: Progress) -> None:
        """Copy everything, then write `step-NNNNNN` in the background; older ones go after it.

        Raises UserError when the write before this one failed.
        """
        self._start(f"step-{progress.step:06d}", progress, moments=True)

    def save_best(self, progress: Progress) -> None:
        """Keep the weights of this step as the best ones, beside the checkpoints."""
        self._start(BEST, progress, moments=False)

    def wait(self) -> None:
        """Until the background write is on disk. Raises UserError when it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise_fault()

    @contextmanager
    def written(self) -> Iterator[None]:
        """After an error inside, too, the write that has begun ends before the processes part."""
        try:
            yield
        except UserError:
            if self._thread is not None:
                self._thread.join()
            raise

    def _start(self, name: str, progress: Progress, *, moments: bool) -> None:
        started = time.monotonic()
        self.wait()
        tensors = self._tensors(moments=moments)
        copies = self._copy(tensors)
        facts = {
            "key": self.key,
            "settings": self.settings,
            "progress": asdict(progress),
            "processes": self.world.size,
            "steps": self._steps() if moments else {},
            "versions": manifest.versions(),
        }
        writer = shards.Writer(self.folder, name, facts, self.world.rank)
        self._saved_at = time.monotonic()
        blocked = self._saved_at - started

        def run() -> None:
            try:
                shards.save(tensors, copies, writer, self._group)
                if self.world.first and name != BEST:
                    self._rotate(name)
            except BaseException as fault:
                self._fault = fault
            # What the thread takes from the cores is a cost as well as what training waited for.
            self._cost = blocked + time.thread_time()

        # No daemon: a process that ends meanwhile waits for the file to be whole.
        self._thread = threading.Thread(target=run, name=f"checkpoint {name}")
        self._thread.start()

    def _rotate(self, newest: str) -> None:
        """Keep `newest` and those before it, `keep` in all; they are all of this key."""
        upto = [path for path in found(self.folder) if _number(path.name) <= _number(newest)]
        for old in upto[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def _tensors(self, *, moments: bool) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for name, tensor in self.weights.master.items():
            found[f"{name}|master"] = tensor.detach()
            for kind, value in self.optimizer.state.get(tensor, {}).items() if moments else ():
                if kind != "step":
                    found[f"{name}|{kind}"] = value
        return found

    def _steps(self) -> dict[str, float]:
        """AdamW's own count of steps, for each weight that has moved."""
        counts = {
            name: self.optimizer.state[tensor]["step"]
            for name, tensor in self.weights.master.items()
            if "step" in self.optimizer.state.get(tensor, {})
        }
        if not counts:
            return {}
        return dict(zip(counts, torch.stack(list(counts.values())).tolist(), strict=True))

    @torch.no_grad()
    def _copy(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """This process's part of each on the CPU, in memory that the next checkpoint uses again."""
        for name, tensor in tensors.items():
            local = _local(tensor)
            if name not in self._copies:
                self._copies[name] = torch.empty(
                    local.shape, dtype=local.dtype, pin_memory=local.device.type == "cuda"
                )
            self._copies[name].copy_(local, non_blocking=True)
        if self.world.device.type == "cuda":
            torch.cuda.synchronize()
        return {name: self._copies[name] for name in tensors}

    def _raise_fault(self) -> None:
        fault, self._fault = self._fault, None
        if isinstance(fault, OSError):
            with manifest.disk_errors(self.folder):
                raise fault from None
        if fault is not None:
            raise fault

    # --- loading ----------------------------------------------------------------------------

    def restore(self) -> Progress:
        """Load the newest intact checkpoint made with `key`; a fresh Progress without one.

        A damaged checkpoint is named and removed, and the one before it is taken. Raises UserError
        when there is one of another key, or one that not every process can read.
        """
        refuse_others(self.folder, self.key, self.settings)
        if self.world.first:
            for old in self.folder.glob(".*.partial-old"):  # killed between two renames
                with suppress(OSError):  # its place is taken
                    old.rename(self.folder / old.name[1 : -len(".partial-old")])
            for partial in self.folder.glob(".*.partial*"):
                shutil.rmtree(partial, ignore_errors=True)
        names = [path.name for path in reversed(found(self.folder))]
        for name in self._from_first(names):
            facts = self._intact(self.folder / name)
            if facts is not None:
                self._load(self.folder / name, facts)
                return Progress(**facts["progress"])
        return Progress()

    def best_kept(self, at: Progress) -> list[float] | None:
        """[metric, step] of the best weights that are kept, for a run that goes on from `at`.

        A killed run may have kept better ones after its last checkpoint, in place of those before.
        """
        kept: list[float] | None = None
        with suppress(UserError, OSError):  # none is there, or `best` tells what is wrong
            facts = manifest.read_manifest(self.folder / BEST)
            kept = facts["progress"]["best"] if facts["key"] == self.key else None
        kept = self._from_first(kept)
        return kept if kept and kept[1] > at.step else at.best

    def best(self) -> Progress | None:
        """Load the kept best weights into the model; None when there are none of this key."""
        self.wait()
        folder = self.folder / BEST
        if not self._from_first(folder.is_dir()):
            return None
        facts = self._intact(folder)
        if facts is None:
            return None
        self._load(folder, facts)
        return Progress(**facts["progress"])

    def _intact(self, folder: Path) -> dict[str, Any] | None:
        """The manifest where the folder is whole and of this key, its checksums shared out.

        One that is damaged to the first process, too, is removed. Else a UserError: a machine may
        see later what is there, or a disk answer again, and hours of work are in it.
        """
        size, first = self.world.size, self.world.first
        faults = self._from_all(_fault(folder, size, {self.world.rank}))
        if wrong := {rank: fault for rank, fault in enumerate(faults) if fault}:
            seen = self._from_first(_fault(folder, size, wrong) if first else None)
            if not (seen and all(damaged for _, damaged in (seen, *wrong.values()))):
                rank = min(wrong, key=lambda rank: (wrong[rank][1], rank))
                raise UserError(
                    f"{wrong[rank][0]} (process {rank} of {size}); nothing was removed: run again, "
                    "or remove this folder to go on from the one before it",
                    where=str(folder),
                )
            self.say(f"checkpoint {folder.name} is damaged and is not used: {seen[0]}")
            if first:
                shutil.rmtree(folder, ignore_errors=True)
            return None
        facts: dict[str, Any] = self._from_first(manifest.read_manifest(folder) if first else None)
        if _is_other(facts, self.key):
            self.say(f"checkpoint {folder.name} was made with other settings or data: not used")
            return None
        return facts

    @torch.no_grad()
    def _load(self, folder: Path, facts: Mapping[str, Any]) -> None:
        wanted: dict[str, torch.Tensor] = {}
        for name, tensor in self.weights.master.items():
            wanted[f"{name}|master"] = tensor.detach()
            if name not in facts["steps"]:
                continue
            moments = {kind: torch.zeros_like(tensor) for kind in ("exp_avg", "exp_avg_sq")}
            wanted |= {f"{name}|{kind}": value for kind, value in moments.items()}
            # Fused AdamW wants its step counter, too, where the weights are.
            step = torch.tensor(facts["steps"][name], dtype=torch.float32, device=tensor.device)
            self.optimizer.state[tensor] = {"step": step, **moments}
        shards.load(wanted, folder, self._group)
        self.weights.publish()

    # --- what the processes tell each other -------------------------------------------------

    def _from_first(self, value: Any) -> Any:
        """Rank 0's value, on every process."""
        return from_first(self.world, value, self._talk)

    def _from_all(self, value: Any) -> list[Any]:
        """The values of all processes, on every one."""
        if self._talk is None:
            return [value]
        box: list[Any] = [None] * self.world.size
        dist.all_gather_object(box, value, group=self._talk)
        return box


def _local(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, DTensor):
        shard: torch.Tensor = tensor.to_local()
        return shard
    return tensor


def _fault(folder: Path, size: int, ranks: Container[int]) -> tuple[str, bool] | None:
    """What is wrong with a checkpoint, and whether it is damage: what cannot be read may be whole.

    Of the checksums, which `size` processes share out, those of `ranks` are compared.
    """
    try:
        files = manifest.verify(folder, checksums=False)["files"]
        for number, (name, file) in enumerate(sorted(files.items())):
            if number % size in ranks and manifest.sha256_file(folder / name) != file["sha256"]:
                return f"{folder / name}: its SHA-256 differs from the manifest's", True
    except UserError as error:
        return str(error), True
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror or error}", False
    return None


def refuse_others(folder: Path, key: str, settings: Mapping[str, Any]) -> None:
    """Raise UserError when `folder` holds a checkpoint of another key: hours of work, perhaps.

    Tells which settings differ, or that it is not the settings. Only manifests are read; one that
    cannot be read is left to `Checkpointer.restore`.
    """
    for path in reversed(found(folder)):
        try:
            facts = manifest.read_json(path / manifest.MANIFEST)
        except (UserError, OSError):
            continue
        if "key" in facts and _is_other(facts, key):
            raise UserError(
                f"{path.name} in it was made with other settings or data "
                f"({_difference(facts.get('settings'), settings)}): use those of before to "
                "continue, or remove this folder to start over",
                where=str(folder),
            )


def _is_other(facts: Mapping[str, Any], key: str) -> bool:
    """Whether a checkpoint is of another key, or of a version that wrote no "steps"."""
    return bool(facts["key"] != key or "steps" not in facts)


def _difference(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    if not before:
        return "it does not tell which settings it had"
    one, other = flattened(before), flattened(now)
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    told = [f"{name} was {one.get(name)!r}, is {other.get(name)!r}" for name in names]
    return "; ".join(told) or "the same settings: its data, start or the program's version differ"


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key, as a recipe's errors name them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else None
        flat |= inner or {f"{prefix}{name}": value}
    return flat


def found(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    given = folder.glob("step-*") if folder.is_dir() else ()
    named = [path for path in given if path.name.removeprefix("step-").isdecimal()]
    return sorted(named, key=lambda path: _number(path.name))


def _number(name: str) -> int:
    """The step in a folder's name; a name of more digits than usual is no earlier one."""
    return int(name.removeprefix("step-"))
