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
from unittest.mock import MagicMock, patch

import pytest
import torch

import worlds
from medexpert import manifest
from medexpert.records import UserError
from medexpert.train import meeting, speed, stage
from medexpert.train.meeting import require_shared
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


class Full:
    """A stage that is trained and cannot be saved."""

    def __init__(self, *given: Any) -> None:
        pass

    def prepare(self, *given: Any) -> None:
        pass

    def train(self, *given: Any) -> None:
        pass

    def save(self, *given: Any) -> None:
        raise UserError("the disk is full")


def _saved(world: World, folder: Path) -> str:
    """What a process says of a stage that the first one cannot save."""
    recipe: Any = MagicMock()
    with (
        patch.object(stage, "_Stage", Full),
        patch.object(stage, "quarantine_of"),
        patch.object(speed, "set_up_threads"),
        patch.object(meeting, "open_world", lambda: nullcontext(world)),
    ):
        return told(
            lambda: stage.run_stage(
                recipe, "adapt", parent=folder, data=folder, folder=folder, key="k", say=print
            )
        )


def _seen(world: World, folder: Path) -> None:
    seen: dict[str, Any] = {
        "checkpoints": _checkpoints(world, folder / "state"),
        "saved": _saved(world, folder / "adapt"),
        "own": told(lambda: require_shared(world, folder / f"of-{world.rank}")),
        "shared": told(lambda: require_shared(world, folder / "of-all")),
    }
    barrier(world)
    seen["removed"] = not list((folder / "of-all").iterdir())
    (folder / f"{world.rank}.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes sees."""
    folder = tmp_path_factory.mktemp("shared")
    worlds.launch(__file__, "2", str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_what_one_machine_does_not_see_is_not_taken_for_damage(both: list[dict[str, Any]]) -> None:
    for seen in (row["checkpoints"] for row in both):
        assert "not a finished folder (process 1 of 2); nothing was removed" in seen["late"]
        assert "Input/output error (process 0 of 2); nothing was removed" in seen["unread"]
        assert (seen["left"], seen["then"]) == (["step-000001", "step-000002"], 2)
        assert (seen["left then"], seen["damaged"]) == (["step-000001"], 1)


def test_no_process_is_done_before_the_first_has_saved(both: list[dict[str, Any]]) -> None:
    assert [row["saved"] for row in both] == ["the disk is full"] * 2


def test_machines_that_share_no_folder_are_told_at_the_start(both: list[dict[str, Any]]) -> None:
    for row in both:
        assert "1 of 2 processes do not see here what the first one writes" in row["own"]
        assert row["own"].endswith("allowed: a run folder on storage that all machines share")
        assert row["shared"] == "None"
        assert row["removed"]


if __name__ == "__main__":
    worlds.run(int(sys.argv[1]), _seen, Path(sys.argv[2]))
