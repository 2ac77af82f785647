"""A stage from files to files: what it saves is what it says."""

from __future__ import annotations

import gc
import shutil
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medexpert import manifest
from medexpert.model import base, checkpoint
from medexpert.recipe import Run, load
from medexpert.records import UserError
from medexpert.train import stage, turns
from medexpert.train.batches import Account
from medexpert.train.parallel import World
from medexpert.train.stage import run_stage, stage_pieces
from medexpert.train.untrainable import problems


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve short questions as the file of a stage."""
    from medexpert.records import Example, to_json

    path = tmp_path / "adapt.jsonl"
    fields = {"question": "Does it help?", "contexts": ["It helped nine of ten."], "answer": "yes"}
    rows = [Example(str(n), "s", "task", "pubmedqa.lm_eval", fields) for n in range(12)]
    path.write_text("".join(to_json(row) + "\n" for row in rows))
    facts = {"quarantined": True, "quarantine": {"pubmedqa": {}}}
    manifest.write_manifest(tmp_path, key="d", files=[path], facts=facts)
    return path


def go(recipe: Run, parent: Path, data: Path, folder: Path, key: str = "k") -> dict[str, Any]:
    return run_stage(
        recipe, "adapt", parent=parent, data=data, folder=folder, key=key, say=lambda _: None
    )


def test_frozen_weights_come_out_bit_identical_and_merged_equals_adapter(
    recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapt"
    settings = load(recipe(), ["adapt.epochs=1", "adapt.sequence_length=128"])
    assert settings.adapt.dtype == "bfloat16"
    entry = go(settings, base_model, data, folder)
    assert "adapter/adapter_model.safetensors" in entry["files"]
    before = base.load(base_model, dtype=torch.float32)[0].state_dict()
    merged = base.load(folder / "model", dtype=torch.float32)[0].state_dict()
    opened = base.load(folder / "adapter", dtype=torch.float32)[0].state_dict()
    moved = [name for name in before if not torch.equal(before[name], merged[name])]
    assert moved
    assert all("_proj" in name for name in moved)
    assert all(torch.equal(merged[name], opened[name]) for name in merged)
    # The adapter as a base has the parameters of the model under it.
    further = load(recipe(), ['adapt.freeze=["*.layers.0.*"]'])
    assert problems(further, folder / "adapter", {}) == []

    full = load(recipe(), ["adapt.method=full", "adapt.epochs=1", "adapt.sequence_length=128"])
    entry = go(full, base_model, data, folder, key="other")
    assert not (folder / "adapter").exists()
    assert not any(name.startswith("adapter/") for name in entry["files"])
    manifest.verify(folder)


@pytest.mark.parametrize("method", ["lora", "dora", "cpoly"])
def test_a_base_in_float32_stays_in_main_memory(
    recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path, method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Before training (it moves rounded) and after it, when the trained one is gone already."""
    lines = [f'adapt.method="{method}"', "adapt.epochs=1", "adapt.sequence_length=128"]
    at_work = object.__new__(stage._Stage)
    at_work.name, at_work.parent, at_work.sharded, at_work.tasks = (
        "adapt",
        base_model,
        False,
        ("t",),
    )
    at_work.recipe = load(recipe(), lines)
    at_work.settings, at_work.world = at_work.recipe.adapt, World(0, 1, 0, torch.device("meta"))
    model, _ = at_work._open()
    assert {p.device.type for p in model.parameters()} == {"cpu"}

    trained: list[weakref.ref[Any]] = []
    kept, opened = checkpoint.save_adapter, base.load

    def keep(model: Any, *args: Any, **how: Any) -> Any:
        trained.append(weakref.ref(model))
        return kept(model, *args, **how)

    def reopen(folder: Path, **how: Any) -> Any:
        assert [one() for one in trained] == [None] * len(trained)
        return opened(folder, **how)

    monkeypatch.setattr(base, "default_device", lambda: torch.device("meta"))
    monkeypatch.setattr(checkpoint, "save_adapter", keep)
    monkeypatch.setattr(base, "load", reopen)
    gc.disable()
    try:
        go(load(recipe(), [*lines, "adapt.recompute=true"]), base_model, data, tmp_path / "adapt")
    finally:
        gc.enable()
    assert len(trained) == 1


def test_what_is_refused_costs_no_finished_stage(
    recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tmp_path / "adapt"
    go(load(recipe(), ["adapt.epochs=1", "adapt.sequence_length=128"]), base_model, data, folder)
    short = load(recipe(), ["adapt.epochs=1", "adapt.sequence_length=16"])
    with pytest.raises(UserError, match=r"sequence_length = 16: 12 longer than sequence_l"):
        go(short, base_model, data, folder, key="other")
    long = load(recipe(), ["adapt.sequence_length=4096"])
    with pytest.raises(UserError, match="the model reads at most 204"):
        go(long, base_model, data, folder, key="another")
    measured = load(recipe(), ["adapt.sequence_length=128", 'adapt.meter.select="accuracy"'])
    with pytest.raises(UserError, match=r"adapt\.meter\.select is set, but the task has"):
        go(measured, base_model, data, folder, key="third")
    monkeypatch.setitem(sys.modules, "wandb", None)
    watched = load(recipe(), ["adapt.sequence_length=128", "tracker=wandb"])
    with pytest.raises(UserError, match="'wandb' needs a package that is not installed"):
        go(watched, base_model, data, folder, key="fourth")
    manifest.verify(folder)


def test_checkpoints_left_by_a_finished_stage_are_in_nobodys_way(
    recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A kill between the manifest and the removal of what it makes superfluous."""
    folder, lines = tmp_path / "adapt", ["adapt.sequence_length=128", "adapt.checkpoint_every=1"]
    with monkeypatch.context() as patch:
        patch.setattr(stage.shutil, "rmtree", lambda *_, **__: None)  # type: ignore[attr-defined]
        go(load(recipe(), [*lines, "adapt.epochs=1"]), base_model, data, folder)
    assert list((folder / "state").iterdir())
    entry = go(load(recipe(), [*lines, "adapt.epochs=0.5"]), base_model, data, folder, key="other")
    assert entry["key"] == "other"
    assert not (folder / "state").exists()


def test_rows_longer_than_the_model_reads_are_refused(
    recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path
) -> None:
    settings = load(recipe(), ["adapt.sequence_length=4096"])
    with pytest.raises(UserError, match="sequence_length is 4096, but the model reads at most 204"):
        go(settings, base_model, data, tmp_path / "adapt")


def test_a_share_of_an_epoch_is_of_all_data_whatever_the_cap(
    recipe: Callable[..., Path], base_model: Path, data: Path
) -> None:
    tokenizer = base.load(base_model, dtype=torch.float32)[1]

    def items(*overrides: str) -> int:
        account = Account()
        settings = load(recipe(), overrides).adapt
        list(stage_pieces("adapt", data, tokenizer, settings, account))
        return account.items

    assert items("adapt.epochs=1", "adapt.max_tokens=60") < 12
    assert items("adapt.epochs=0.5", "adapt.max_tokens=60") == 12


def test_data_without_quarantine_is_refused_or_stamps(
    recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path
) -> None:
    short = ["adapt.epochs=1", "adapt.sequence_length=128"]
    facts = {"quarantined": False, "quarantine": {}}
    manifest.write_manifest(data.parent, key="d", files=[data], facts=facts)
    with pytest.raises(UserError, match=r"built without quarantine.*--allow-leaks"):
        go(load(recipe(), short), base_model, data, tmp_path / "adapt")
    allowed = load(recipe(), [*short, "data.allow_leaks=true"])
    entry = go(allowed, base_model, data, tmp_path / "adapt")
    assert (entry["leaks"], entry["quarantine"]) == (True, [])
    # The stamp goes with the weights: clean data on top of them does not wash it off.
    clean = {"quarantined": True, "quarantine": {"pubmedqa": {}, "mmlu-medical": {}}}
    manifest.write_manifest(data.parent, key="d", files=[data], facts=clean)
    entry = go(load(recipe(), short), tmp_path / "adapt" / "model", data, tmp_path / "next")
    assert (entry["leaks"], entry["quarantine"]) == (True, [])


def test_an_unknown_task_to_merge_is_told_before_training(
    recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path
) -> None:
    settings = load(recipe(), ['adapt.method="cpoly"', 'adapt.cpoly.merge="nothing"'])
    with pytest.raises(UserError, match=r"adapt\.cpoly\.merge: unknown task 'nothing'"):
        go(settings, base_model, data, tmp_path / "adapt")
    assert not (tmp_path / "adapt" / "log.jsonl").exists()


def test_a_stopped_stage_is_not_started_over_with_other_settings(
    recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    folder, lines = tmp_path / "adapt", ["adapt.sequence_length=128", "adapt.checkpoint_every=1"]
    with monkeypatch.context() as patch:
        patch.setattr(stage._Stage, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            go(load(recipe(), [*lines, "adapt.epochs=0.5"]), base_model, data, folder)
    kept = sorted(path.name for path in (folder / "state").iterdir())
    tokens = manifest.read_json(folder / "tokens" / manifest.MANIFEST)
    assert kept
    error = r"adapt/state: step-\d+ .*\(epochs was 0\.5, is 1\.0\): .* remove this folder"
    with pytest.raises(UserError, match=error):
        go(load(recipe(), [*lines, "adapt.epochs=1"]), base_model, data, folder, key="other")
    assert sorted(path.name for path in (folder / "state").iterdir()) == kept
    assert manifest.read_json(folder / "tokens" / manifest.MANIFEST) == tokens
    shutil.rmtree(folder / "state")
    assert go(load(recipe(), [*lines, "adapt.epochs=1"]), base_model, data, folder, key="other")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_reference_of_pairs_is_rounded_as_what_is_trained(
    recipe: Callable[..., Path], base_model: Path, data: Path, method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    opened: list[dict[str, Any]] = []

    def note(folder: Path, **how: Any) -> tuple[Any, Any]:
        opened.append(how)
        return None, None

    at_work = object.__new__(stage._Stage)
    at_work.name, at_work.parent, at_work.folder, at_work.key = (
        "adapt",
        base_model,
        data.parent,
        "k",
    )
    at_work.data, at_work.account, at_work.infill = data, Account(), None
    at_work.tokenizer = base.load(base_model, dtype=torch.float32)[1]
    lines = [f'adapt.method="{method}"', 'adapt.objective="preference"']
    at_work.settings = load(recipe(), lines).adapt
    monkeypatch.setattr(base, "load", note)
    at_work._pieces()
    assert opened == [{"dtype": torch.bfloat16, "four_bit": method == "qlora"}]


def test_a_process_with_shards_opens_the_model_in_its_turn(
    recipe: Callable[..., Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage._Stage, "_open", lambda self: ("model", "tokenizer"))
    monkeypatch.setattr(turns, "from_first", lambda world, value, group: value)

    def made(rank: int, *settings: str) -> Any:
        world = World(rank, 2, rank, torch.device("cpu"))
        told = load(recipe(), settings)
        return stage._Stage(told, "adapt", tmp_path, data, tmp_path, "k", world, print).model

    assert [made(rank) for rank in (0, 1)] == ["model", None]
    assert [made(rank, "adapt.sharding=replicate") for rank in (0, 1)] == ["model", "model"]
