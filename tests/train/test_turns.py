"""Whole models one after the other, and what the first process finds told to all.

Run as a script this file is one world of processes: `test_turns.py RANKS FOLDER`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import worlds
from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train import cost, forecast, parallel, turns
from medexpert.train.parallel import World
from medexpert.train.turns import by_first, in_turn


def refused() -> int:
    raise UserError("no such model", where="base.model", allowed="another")


def one(world: World) -> dict[str, Any]:
    """What a process sees: when its turn was, when all were over, what the first one told."""
    with in_turn(world):
        began = time.monotonic()
        time.sleep(0.2)
        ended = time.monotonic()
    over = time.monotonic()
    told = ""
    try:
        by_first(world, refused)
    except UserError as error:
        told = str(error)
    return {"turn": [began, ended], "over": over, "told": told, "made": by_first(world, lambda: 7)}


def hours(group: Any) -> float:
    """How long a process waits for the others of a group."""
    waits: timedelta = group._get_backend(torch.device("cpu")).options._timeout
    return waits / timedelta(hours=1)


def _seen(world: World, folder: Path) -> None:
    waits = [hours(group) for group in (torch.distributed.group.WORLD, world.patient)]
    (folder / f"{world.rank}.json").write_text(json.dumps({**one(world), "waits": waits}))


def test_turns_follow_each_other_and_all_leave_together(tmp_path: Path) -> None:
    worlds.launch(__file__, "3", str(tmp_path))
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    turns = [row["turn"] for row in seen]
    assert all(before[1] <= after[0] for before, after in pairwise(turns))
    assert min(row["over"] for row in seen) >= turns[-1][1]
    assert {row["told"] for row in seen} == {"base.model: no such model; allowed: another"}
    assert [row["made"] for row in seen] == [7, None, None]
    assert all(row["waits"] == [0.5, 12] for row in seen)  # half an hour for one that is lost


def test_what_one_process_does_alone_is_waited_for_patiently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups: list[Any] = []
    monkeypatch.setattr(turns, "from_first", lambda world, value, group: groups.append(group))
    monkeypatch.setattr(parallel, "sum_over", lambda world, value, group: groups.append(group))
    patient: Any = object()
    world = World(0, 2, 0, torch.device("cpu"), patient)
    by_first(world, lambda: 7)
    parallel.barrier(world)
    assert groups == [patient, patient]


def test_alone_it_is_always_ones_turn() -> None:
    seen = one(World(0, 1, 0, torch.device("cpu")))
    assert (seen["made"], seen["told"][:10]) == (7, "base.model")


def test_a_forecast_reckons_with_one_whole_model_at_a_time(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast.cost, "load_bytes", lambda shape: 80e9)
    shape = cost.read_shape(base_model)
    eight = replace(forecast.h100(8), gpu=False)

    def beyond(sharding: Any, processes: int) -> float:
        settings, here = Stage(sharding=sharding), replace(eight, processes=processes)
        found = forecast.forecast("instruct", settings, shape, 1000, here)
        return (found.memory - sum(found.memory_by.values())) / (
            80e9 - sum(found.memory_by.values())
        )

    assert beyond("full", 8) == pytest.approx(1 / 8)
    assert beyond("replicate", 8) == beyond("full", 1) == pytest.approx(1)


if __name__ == "__main__":
    worlds.run(int(sys.argv[1]), _seen, Path(sys.argv[2]))
