"""Several machines and one folder: what one of them sees late, or not at all, costs no work.

Run as a script this file is one world of processes: `test_shared_storage.py RANKS FOLDER`.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import worlds
from medexpert import manifest
from medexpert.records import UserError
from medexpert.train.optim import Masters
from medexpert.train.parallel import World, barrier
from medexpert.train.state import Checkpointer, Progress, found


def told(work: Callable[[], Any]) -> str:
    try:
        return str(work())
    except UserError as error:
        return str(error)


def _checkpoints(world: World, folder: Path) -> dict[str, Any]:
    """What a restore says, and what it leaves, when one process cannot read the newest."""
    weights = Masters(torch.nn.Linear(3, 2), torch.float32, world.size)
    held = Checkpointer(folder, "k", weights, torch.optim.AdamW(weights.master.values()), world)
    for step in (1, 2):
        held.save(Progress(step))
    held.wait()
    seen: dict[str, Any] = {}
    faults = {
        "late": (1, "verify", UserError("not a finished folder")),
        "unread": (0, "sha256_file", OSError(errno.EIO, "Input/output error")),
    }
    for name, (rank, call, error) in faults.items():
        mine = patch.object(manifest, call, side_effect=error)
        with mine if world.rank == rank else nullcontext():
            seen[name] = told(held.restore)
    barrier(world)
    seen["left"] = [path.name for path in found(folder)]
    seen["then"] = held.restore().step
    barrier(world)
    if world.first:
        part = sorted(found(folder)[-1].glob("*.safetensors"))[-1]
        part.write_bytes(part.read_bytes()[:-1] + b"\x77")
    barrier(world)
    seen["damaged"] = held.restore().step
    barrier(world)
    seen["left then"] = [path.name for path in found(folder)]
    return seen


def _seen(world: World, folder: Path) -> None:
    seen = {"checkpoints": _checkpoints(world, folder / "state")}
    (folder / f"{world.rank}.json").write_text(json.dumps(seen))


def test_what_one_machine_does_not_see_is_not_taken_for_damage(tmp_path: Path) -> None:
    worlds.launch(__file__, "2", str(tmp_path))
    for rank in range(2):
        seen = json.loads((tmp_path / f"{rank}.json").read_text())["checkpoints"]
        assert "not a finished folder (process 1 of 2); nothing was removed" in seen["late"]
        assert "Input/output error (process 0 of 2); nothing was removed" in seen["unread"]
        assert (seen["left"], seen["then"]) == (["step-000001", "step-000002"], 2)
        assert (seen["left then"], seen["damaged"]) == (["step-000001"], 1)


if __name__ == "__main__":
    worlds.run(int(sys.argv[1]), _seen, Path(sys.argv[2]))
