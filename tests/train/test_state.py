"""Checkpoints: whole or absent, verified, rotated, asynchronous, chosen by their cost."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.distributed.checkpoint.metadata import Metadata

from medexpert import manifest
from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train import shards, state
from medexpert.train.optim import Masters, adamw
from medexpert.train.parallel import World
from medexpert.train.state import BEST, Checkpointer, Progress, found

ALONE = World(0, 1, 0, torch.device("cpu"))
Make = Callable[..., "Held"]


class Held:
    """A tiny model, its masters and optimiser, and the checkpointer under test."""

    def __init__(
        self, model: Any, folder: Path, key: str = "key", keep: int = 2, **more: Any
    ) -> None:
        self.said: list[str] = []
        self.masters = Masters(model, torch.bfloat16)
        self.optimizer = adamw(self.masters, Stage())
        self.folder = folder
        self.checkpoints = Checkpointer(
            folder, key, self.masters, self.optimizer, ALONE, keep, self.said.append, **more
        )

    def step(self, seed: int) -> None:
        torch.manual_seed(seed)
        for tensor in self.masters.master.values():
            tensor.grad = torch.randn_like(tensor)
        self.optimizer.step()
        self.masters.publish()

    def tensors(self) -> dict[str, torch.Tensor]:
        return {n: t.clone() for n, t in self.checkpoints._tensors(moments=True).items()}


@pytest.fixture
def make(tiny_model: Callable[..., Any], tmp_path: Path) -> Make:
    def build(**settings: Any) -> Held:
        return Held(tiny_model(), tmp_path / "state", **settings)

    return build


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


def test_restored_to_the_bit_and_training_goes_on_the_same(make: Make) -> None:
    one = make()
    one.step(1)
    progress = Progress(1, 10, 8, 2, 0.1 + 0.2, {"spike": 1}, [1 / 3], [0.7, 1.0], [{"bpb": 1.1}])
    one.checkpoints.save(progress)
    kept = one.tensors()
    one.step(2)  # while the thread writes the copies
    one.checkpoints.wait()
    other = make()
    assert other.checkpoints.restore() == progress
    assert same(other.tensors(), kept)
    live = dict(other.masters.live)
    assert all(torch.equal(live[n], t.bfloat16()) for n, t in other.masters.master.items())
    other.step(2)
    assert same(other.tensors(), one.tensors())


def test_the_folder_is_safetensors_and_json_only(make: Make) -> None:
    one = make()
    one.step(1)
    one.checkpoints.save(Progress(1))
    one.checkpoints.wait()
    folder = found(one.folder)[0]
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "part-00000.safetensors"]
    assert sorted(p.name for p in one.folder.iterdir()) == ["step-000001"]
    facts = manifest.verify(folder)
    assert facts["key"] == "key"
    assert facts["processes"] == 1
    assert same(load_file(folder / "part-00000.safetensors"), one.tensors())


def test_weights_that_never_moved_have_no_moments(make: Make) -> None:
    one = make()
    name, tensor = next(iter(one.masters.master.items()))
    tensor.grad = torch.ones_like(tensor)
    one.optimizer.step()
    one.checkpoints.save(Progress(1))
    one.checkpoints.wait()
    other = make()
    other.checkpoints.restore()
    assert same(other.tensors(), one.tensors())
    assert [n for n, t in other.masters.master.items() if t in other.optimizer.state] == [name]


def test_writing_happens_while_training_goes_on(make: Make, monkeypatch: Any) -> None:
    real, go, began = shards.write_tensors, threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        began.set()
        assert go.wait(30)
        return real(*args)

    monkeypatch.setattr(shards, "write_tensors", slow)
    one = make()
    one.step(1)
    kept = one.tensors()
    one.checkpoints.save(Progress(1))
    assert began.wait(30)
    one.step(2)  # saved is what was there when save() was called
    assert found(one.folder) == []
    go.set()
    one.checkpoints.wait()
    other = make()
    assert other.checkpoints.restore().step == 1
    assert same(other.tensors(), kept)


def test_a_full_disk_comes_up_at_the_next_call_and_leaves_nothing(
    make: Make, monkeypatch: Any
) -> None:
    def full(path: Path, *rest: Any) -> Any:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    one = make()
    one.step(1)
    one.checkpoints.save(Progress(1))
    one.checkpoints.wait()
    monkeypatch.setattr(shards, "write_tensors", full)
    for call in (
        one.checkpoints.wait,
        lambda: one.checkpoints.save(Progress(3)),
        lambda: one.checkpoints.due(3, 1),
    ):
        one.checkpoints.save(Progress(2))
        assert one.checkpoints._thread is not None
        one.checkpoints._thread.join()
        with pytest.raises(UserError, match=r"the disk is full .*same command to continue"):
            call()
    assert [p.name for p in one.folder.iterdir()] == ["step-000001"]
    assert make().checkpoints.restore().step == 1


@pytest.mark.parametrize("harm", ["byte", "short", "gone", "manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(make: Make, harm: str) -> None:
    one = make()
    for step in (1, 2):
        one.step(step)
        one.checkpoints.save(Progress(step))
    one.checkpoints.wait()
    file = found(one.folder)[-1] / "part-00000.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    if harm == "byte":
        file.write_bytes(raw)
    elif harm == "short":
        file.write_bytes(raw[:-1])
    elif harm == "gone":
        file.unlink()
    else:
        (file.parent / "manifest.json").unlink()
    other = make()
    assert other.checkpoints.restore().step == 1
    assert any("step-000002 is damaged and is not used" in line for line in other.said)
    assert [p.name for p in found(one.folder)] == ["step-000001"]


def test_half_written_folders_are_swept_and_never_loaded(make: Make) -> None:
    one = make()
    partial = one.folder / ".step-000009.partial"
    partial.mkdir(parents=True)
    (partial / "part-00000.safetensors").write_bytes(b"half")
    assert one.checkpoints.restore() == Progress()
    assert not partial.exists()


def test_only_files_that_the_manifest_names_are_loaded(make: Make) -> None:
    one = make()
    for step in (1, 2):
        one.step(step)
        one.checkpoints.save(Progress(step))
    one.checkpoints.wait()
    old, new = (folder / "part-00000.safetensors" for folder in found(one.folder))
    new.with_name("part-00001.safetensors").write_bytes(old.read_bytes())  # of a run before
    other = make()
    assert other.checkpoints.restore().step == 2
    assert same(other.tensors(), one.tensors())


def test_a_checkpoint_without_a_part_does_not_replace_the_one_before(tmp_path: Path) -> None:
    facts: Any = {"key": "k", "progress": {"step": 1}}
    writers = [shards.Writer(tmp_path, BEST, facts, 0)]
    facts = {"key": "k", "progress": {"step": 2}}
    writers.append(shards.Writer(tmp_path, BEST, facts, 0))
    assert writers[0].partial != writers[1].partial
    part: Any = {"part-00001.safetensors": {"bytes": 4, "sha256": "0"}}
    results: Any = [[SimpleNamespace(storage_data=part)]]
    for writer in writers:
        writer.set_up_storage_writer(True)
    (writers[0].partial / "part-00001.safetensors").write_bytes(b"four")
    writers[0].finish(Metadata({}), results)
    with pytest.raises(UserError, match=r"file part-00001.safetensors is missing"):
        writers[1].finish(Metadata({}), results)
    assert manifest.read_manifest(tmp_path / BEST)["progress"]["step"] == 1


def test_checkpoints_of_another_key_are_refused_and_kept(make: Make) -> None:
    before = {"epochs": 1.0, "lora": {"rank": 8}}
    one = make(settings=before)
    for step in (5, 6):
        one.step(step)
        one.checkpoints.save(Progress(step))
    one.checkpoints.wait()
    other = make(key="other", settings={**before, "epochs": 3.0})
    error = r"state: step-000006 .*\(epochs was 1\.0, is 3\.0\): use .* or remove this folder"
    with pytest.raises(UserError, match=error):
        other.checkpoints.restore()
    with pytest.raises(UserError, match=r"\(the same settings: its data, start or .* differ\)"):
        make(key="other", settings=before).checkpoints.restore()
    assert [p.name for p in found(one.folder)] == ["step-000005", "step-000006"]
    assert make(settings=before).checkpoints.restore().step == 6


def test_rotation_touches_no_later_step(make: Make) -> None:
    one = make(keep=1)
    for step in (6, 1):
        one.checkpoints.save(Progress(step))
    one.checkpoints.wait()
    assert [p.name for p in found(one.folder)] == ["step-000001", "step-000006"]


def test_settings_are_told_apart_by_dotted_key() -> None:
    before = Stage().learned_by(1)
    flat = state.flattened(before)
    assert flat["lora.rank"] == 16
    assert flat["cpoly.tasks"] == {}
    assert "checkpoints" not in flat
    now = Stage(lora={"rank": 4}, checkpoints=7).learned_by(2)
    assert state._difference(before, now) == "lora.rank was 16, is 4; seed was 1, is 2"


def test_rotation_keeps_as_many_as_asked_and_a_step_can_be_saved_again(make: Make) -> None:
    one = make(keep=3)
    for step in (1, 2, 3, 4, 5, 5):
        one.step(step)
        one.checkpoints.save(Progress(step))
    one.checkpoints.wait()
    assert [p.name for p in found(one.folder)] == ["step-000003", "step-000004", "step-000005"]
    other = make()
    other.checkpoints.restore()
    assert same(other.tensors(), one.tensors())


def test_best_weights_are_kept_beside_the_rotation(make: Make) -> None:
    one = make(keep=1)
    assert one.checkpoints.best() is None
    one.step(1)
    kept = one.masters.gather()
    one.checkpoints.save_best(Progress(1, best=[0.9, 1]))
    for step in (2, 3):
        one.step(step)
        one.checkpoints.save(Progress(step, best=[0.9, 1]))
    one.checkpoints.wait()
    assert sorted(p.name for p in one.folder.iterdir()) == [BEST, "step-000003"]
    other = make(keep=1)
    assert other.checkpoints.restore().step == 3
    best = other.checkpoints.best()
    assert best is not None
    assert best.best == [0.9, 1]
    assert same(other.masters.gather(), kept)
    assert make(key="other").checkpoints.best() is None


def test_best_weights_outlive_a_kill_between_two_renames(make: Make) -> None:
    one = make()
    one.step(1)
    one.checkpoints.save_best(Progress(1, best=[0.9, 1]))
    one.checkpoints.wait()
    (one.folder / BEST).rename(one.folder / f".{BEST}.partial-old")
    (one.folder / f".{BEST}.2.partial").mkdir()
    other = make()
    other.checkpoints.restore()
    assert [p.name for p in one.folder.iterdir()] == [BEST]
    assert other.checkpoints.best() == Progress(1, best=[0.9, 1])


def test_due_by_steps() -> None:
    held: Any = Checkpointer.__new__(Checkpointer)
    held._fault, held._talk, held._cost, held._saved_at = None, None, 0.0, 0.0
    held.world = ALONE
    assert [step for step in range(1, 10) if held.due(step, 3)] == [3, 6, 9]


def test_due_by_cost_is_two_percent_and_twenty_seconds(make: Make, monkeypatch: Any) -> None:
    one = make()
    now = one.checkpoints._saved_at
    monkeypatch.setattr(state.time, "monotonic", lambda: now)
    one.checkpoints._cost = 0.1  # of 20 s it would be 0.5 %
    now += 19.9
    assert not one.checkpoints.due(7, 0)
    now += 0.2
    assert one.checkpoints.due(7, 0)
    one.checkpoints._cost = 3.0  # 2 % of 150 s
    assert not one.checkpoints.due(7, 0)
    now += 131
    assert one.checkpoints.due(7, 0)


def test_cost_is_measured_and_the_time_starts_again(make: Make) -> None:
    one = make()
    one.step(1)
    before, one.checkpoints._cost = one.checkpoints._saved_at, math.inf
    one.checkpoints.save(Progress(1))
    one.checkpoints.wait()
    assert 0 < one.checkpoints._cost < 30
    assert one.checkpoints._saved_at > before
    assert not one.checkpoints.due(2, 0)


@given(
    st.builds(
        Progress,
        step=st.integers(0),
        tokens=st.integers(0),
        seconds=st.floats(0, allow_nan=False),
        skipped=st.dictionaries(st.text(), st.integers(0)),
        norms=st.lists(st.floats(allow_nan=False)),
        best=st.none() | st.lists(st.floats(allow_nan=False), min_size=2, max_size=2),
        meter=st.lists(st.dictionaries(st.text(), st.floats(allow_nan=False) | st.text())),
    )
)
def test_progress_through_json_is_equal(progress: Progress) -> None:
    from dataclasses import asdict

    assert Progress(**json.loads(json.dumps(asdict(progress), ensure_ascii=False))) == progress


def test_a_file_is_valid_safetensors_with_its_own_checksum(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 2).T,  # not contiguous
        "a": torch.randn(2, 3).bfloat16(),
        "empty": torch.zeros(0, 4),
        "number": torch.tensor(1.5),
    }
    path = tmp_path / "x.safetensors"
    size, sha256 = shards.write_tensors(
        path, tensors, {name: [0] * t.ndim for name, t in tensors.items()}
    )
    assert size == os.path.getsize(path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(load_file(path), tensors)
