"""Tensors of one or many processes as safetensors files in a folder that is whole or absent.

Storage for torch.distributed.checkpoint: it plans which process writes and reads which piece, these
classes do it. One file a process; its header tells where each piece begins in the whole tensor, so
any number of processes can read what any other number wrote. No pickles.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    SavePlan,
    SavePlanner,
    WriteItem,
)
from torch.distributed.checkpoint.state_dict_loader import load as plan_and_load
from torch.distributed.checkpoint.state_dict_saver import save as plan_and_save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from medexpert import manifest

CODES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}
"""torch's dtypes and safetensors' names of them."""
# One process is no mishap. Set once: filters belong to the whole program, not to a thread.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")
OFFSETS = "offsets"
"""Key in a file's header: tensor name -> where its piece begins in the whole, a number a side."""


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], offsets: Mapping[str, list[int]]
) -> tuple[int, str]:
    """Write a safetensors file of CPU tensors and sync it; its size in bytes and its SHA-256.

    Written here and not by the library because this hashes on the way and copies nothing, and
    lets other threads run meanwhile. Raises OSError.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", OFFSETS: json.dumps(offsets)}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    state = hashlib.sha256()
    with path.open("wb", buffering=0) as handle:
        for part in (len(text).to_bytes(8, "little") + text, *map(_raw, tensors.values())):
            state.update(part)
            left = memoryview(part)
            while left:
                left = left[handle.write(left) :]
        os.fsync(handle.fileno())
    return path.stat().st_size, state.hexdigest()


def _raw(tensor: torch.Tensor) -> Any:
    """The bytes of a CPU tensor, not copied."""
    whole: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(whole)


class _Copied(DefaultSavePlanner):
    """Plans by the live tensors (their shapes and places), writes the copies."""

    def __init__(self, copies: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.copies = copies

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor:
        return self.copies[write_item.index.fqn]


class Writer(StorageWriter):
    """Writes `folder/name`: beside its place first, the manifest last, then renamed."""

    def __init__(self, folder: Path, name: str, facts: Mapping[str, Any], rank: int) -> None:
        self.target, self.facts, self.rank = folder / name, facts, rank
        # A name of its own: a network file system may remember where an earlier one has gone.
        self.partial = folder / f".{name}.{facts['progress']['step']}.partial"

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """One writer is for one checkpoint."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self.partial.mkdir(parents=True, exist_ok=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors: dict[str, torch.Tensor] = {}
        offsets: dict[str, list[int]] = {}
        for item in plan.items:
            data = planner.resolve_data(item)
            assert isinstance(data, torch.Tensor)
            assert item.tensor_data is not None
            tensors[item.index.fqn] = data
            offsets[item.index.fqn] = list(item.tensor_data.chunk.offsets)
        results: list[WriteResult] = []
        if tensors:
            file = self.partial / f"part-{self.rank:05d}.safetensors"
            size, sha256 = write_tensors(file, tensors, offsets)
            entry = {file.name: {"bytes": size, "sha256": sha256}}
            results = [WriteResult(plan.items[0].index, size, entry)]
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On one process, when all have written: the manifest, and the folder takes its place."""
        files: dict[str, Any] = {}
        for result in (one for each in results for one in each):
            files |= result.storage_data
        entry = {**self.facts, "files": dict(sorted(files.items()))}
        manifest.write_json(self.partial / manifest.MANIFEST, entry)
        manifest.verify(self.partial, checksums=False)  # all parts are here, before old ones go
        old = self.partial.with_name(f".{self.target.name}.partial-old")
        shutil.rmtree(old, ignore_errors=True)
        if self.target.exists():
            self.target.rename(old)
        self.partial.rename(self.target)
        sync_folder(self.target.parent)
        shutil.rmtree(old, ignore_errors=True)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names, so that a rename outlives a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def save(
    tensors: dict[str, Any],
    copies: Mapping[str, torch.Tensor],
    writer: Writer,
    group: dist.ProcessGroup | None,
) -> None:
    """Write `copies` (each process its part) of the live `tensors` as one finished folder.

    Collective over `group` (None: one process). Nothing half-written is left after an error.
    Raises what one of the processes raised: OSError or UserError where the disk is full.
    """
    try:
        with _plain_errors():
            plan_and_save(
                tensors,
                storage_writer=writer,
                planner=_Copied(copies),
                process_group=group,
                no_dist=group is None,
            )
    except BaseException:
        if writer.rank == 0:
            shutil.rmtree(writer.partial, ignore_errors=True)
        raise


def load(tensors: dict[str, Any], folder: Path, group: dist.ProcessGroup | None) -> None:
    """Fill `tensors` in place, each process what it holds of them. Collective over `group`.

    Raises RuntimeError or ValueError when a tensor is missing or of another shape.
    """
    with _plain_errors():
        plan_and_load(
            tensors, storage_reader=Reader(folder), process_group=group, no_dist=group is None
        )


@contextmanager
def _plain_errors() -> Iterator[None]:
    """The first cause instead of torch's bundle of them, which is no `Exception`."""
    try:
        yield
    except CheckpointException as bundle:
        raise next(iter(bundle.failures.values()))[0] from None


class Reader(StorageReader):
    """Reads what :class:`Writer` wrote; the pieces are found by the headers of the files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: dict[MetadataIndex, Path] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """One reader is for one checkpoint."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        chunks: dict[str, list[ChunkStorageMetadata]] = {}
        dtypes: dict[str, torch.dtype] = {}
        named = {code: dtype for dtype, code in CODES.items()}
        for file in map(self.folder.joinpath, manifest.read_manifest(self.folder)["files"]):
            with safe_open(file, framework="pt") as opened:
                offsets = json.loads(opened.metadata()[OFFSETS])
                for name in opened.keys():  # noqa: SIM118
                    piece = opened.get_slice(name)
                    at, shape = torch.Size(offsets[name]), torch.Size(piece.get_shape())
                    chunks.setdefault(name, []).append(ChunkStorageMetadata(at, shape))
                    dtypes[name] = named[piece.get_dtype()]
                    self._file[MetadataIndex(name, at)] = file
        return Metadata(
            {
                name: TensorStorageMetadata(TensorProperties(dtypes[name]), _whole(held), held)
                for name, held in chunks.items()
            }
        )

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        if not self._file:  # only one process may have been asked for the metadata
            self.read_metadata()

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_file: dict[Path, list[Any]] = {}
        for item in plan.items:
            by_file.setdefault(self._file[item.storage_index], []).append(item)
        for file, items in by_file.items():
            with safe_open(file, framework="pt") as opened:
                for item in items:
                    place = tuple(
                        slice(start, start + length)
                        for start, length in zip(item.storage_offsets, item.lengths, strict=True)
                    )
                    target = planner.resolve_tensor(item).detach()
                    name = item.storage_index.fqn
                    # A tensor without sides cannot be sliced.
                    piece = opened.get_slice(name)[place] if place else opened.get_tensor(name)
                    target.copy_(piece)
                    planner.commit_tensor(item, target)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


def _whole(chunks: list[ChunkStorageMetadata]) -> torch.Size:
    """The size of the tensor that the chunks cover."""
    ends = [
        [start + length for start, length in zip(c.offsets, c.sizes, strict=True)] for c in chunks
    ]
    return torch.Size([max(side) for side in zip(*ends, strict=True)])
