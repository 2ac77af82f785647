"""Where a run could have gone on with the wrong weights, counts or files."""

from __future__ import annotations

import inspect
import json
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medexpert.model import base
from medexpert.model.adapters import ADAPTERS
from medexpert.pipeline import Pipeline
from medexpert.recipe import load
from medexpert.recipe_train import Meter, Preference, Stage
from medexpert.records import UserError
from medexpert.train import state
from medexpert.train.batches import Account
from medexpert.train.faults import repeatable
from medexpert.train.optim import Masters
from medexpert.train.parallel import World, hold
from medexpert.train.preference import PreferenceObjective
from medexpert.train.progress import Log
from medexpert.train.stage import stage_pieces
from medexpert.train.watch import Instruments, Watch
from tiny_loop import ALONE, SETTINGS, Broken, events, go, make_plan


def test_a_run_in_which_no_step_could_be_used_is_an_error(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"skips": 1000})

    def fault(call: int, batch: Any) -> float:
        return math.nan

    steps = make_plan(settings).steps
    with pytest.raises(UserError, match=f"none of the {steps} steps could be used"):
        go(tiny_model(), tmp_path, settings, wrap=lambda one: Broken(one, fault))


def test_best_weights_that_are_gone_are_not_replaced_by_the_last(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dev(model: Any, tokenizer: Any) -> Mapping[str, float]:
        return {"accuracy": 0.5, "macro_f1": 0.5, "log_loss": 1.0}

    settings = SETTINGS.model_copy(update={"meter": Meter(select="accuracy")})
    monkeypatch.setattr(state.Checkpointer, "best", lambda self: None)
    with pytest.raises(UserError, match=r"the best weights, of step \d+, are not there any more"):
        go(tiny_model(), tmp_path, settings, instruments=Instruments(dev=dev))


def test_better_weights_that_a_killed_run_kept_are_the_best_of_the_next(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding differs on another number of processes: the same step need not be as good again."""
    values = iter([0.5, 0.9])

    def dev(model: Any, tokenizer: Any) -> Mapping[str, float]:
        return {"accuracy": next(values, 0.4), "macro_f1": 0.5, "log_loss": 1.0}

    gap = round(0.25 * make_plan().steps)
    meter = Meter(select="accuracy", select_every=0.25)
    settings = SETTINGS.model_copy(update={"meter": meter, "checkpoint_every": gap})
    real = state.Checkpointer.save

    def save(self: state.Checkpointer, progress: state.Progress) -> None:
        if progress.best == [0.9, 2 * gap]:
            self.wait()
            raise RuntimeError("power cut")
        real(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(state.Checkpointer, "save", save)
        with pytest.raises(RuntimeError, match="power cut"):
            go(tiny_model(), tmp_path, settings, instruments=Instruments(dev=dev))
    outcome = go(tiny_model(), tmp_path, settings, instruments=Instruments(dev=dev))
    assert outcome.progress.best == [0.9, 2 * gap]


def test_nothing_finite_on_the_dev_fold_is_told(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    def dev(model: Any, tokenizer: Any) -> Mapping[str, float]:
        return {"accuracy": 0.5, "macro_f1": 0.5, "log_loss": math.nan}

    settings = SETTINGS.model_copy(update={"meter": Meter(select="log_loss")})
    lines: list[str] = []
    go(tiny_model(), tmp_path, settings, instruments=Instruments(dev=dev), lines=lines)
    assert any("nothing finite was measured" in line for line in lines)


def test_the_log_of_a_run_that_starts_again_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [{"event": "measure", "step": 0}, {"event": "step", "step": 1, "loss": 1.0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Log(path, 1).events() == rows
    assert Log(path, 0).events() == []


def test_out_of_memory_is_of_the_step_that_is_done_again(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    taken: list[int] = []

    class Counting(Broken):
        def take_facts(self, summed: Any) -> dict[str, float]:
            taken.append(self.calls)
            return super().take_facts(summed)

    def fault(call: int, batch: Any) -> float:
        if call == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    settings = SETTINGS.model_copy(update={"micro_rows": 2})
    go(tiny_model(), tmp_path, settings, wrap=lambda one: Counting(one, fault))
    found = events(tmp_path)
    assert [e["step"] for e in found if e["event"] == "out_of_memory"] == [3]
    # What was counted of the step before the fault is taken out before it is done again.
    assert taken[:4] == [1, 2, 3, 5]


def test_what_a_failed_pass_has_made_is_gone_before_memory_is_given_back(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def fault(call: int, batch: Any) -> float:
        if call == 3:
            activations = torch.zeros(8)
            made.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    alive: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(made[0]() is not None))
    settings = SETTINGS.model_copy(update={"micro_rows": 2})
    go(tiny_model(), tmp_path, settings, wrap=lambda one: Broken(one, fault))
    assert alive == [False]


def test_frozen_weights_are_rounded_before_they_move(tiny_model: Callable[..., Any]) -> None:
    settings = Stage(method="lora")
    moved: list[set[torch.dtype]] = []

    class Moving(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ADAPTERS["lora"](tiny_model(), settings, 0)

        def to(self, *args: Any, **kwargs: Any) -> Any:
            moved.append({p.dtype for p in self.model.parameters() if not p.requires_grad})
            return self

    hold(Moving(), settings, ALONE)
    assert moved == [{torch.bfloat16}]


def test_pairs_of_a_step_that_is_done_again_are_counted_once() -> None:
    objective = PreferenceObjective(Preference())
    objective._tally = torch.tensor([2.0, 1.0, 1.0])
    objective.take_facts(lambda counted: counted)
    assert objective.last_facts == {}


def test_every_process_decides_by_the_measurements_of_the_first() -> None:
    meter = Meter(select="accuracy", select_every=1.0)
    mine = {"accuracy": 0.5, "macro_f1": 0.5, "log_loss": 1.0}
    watch = Watch("adapt", meter, Instruments(dev=lambda model, tokenizer: mine), 4, [])
    model = torch.nn.Linear(1, 1)
    whole: Any = Masters(model, torch.float32).whole
    first = [{"event": "measure", "kind": "dev", "step": 4, **mine, "accuracy": 0.75}]
    assert watch.measure(4, model, whole, lambda events: first) == first
    assert watch.found == first
    assert model.training


def test_a_checkpoint_of_more_digits_is_the_newer_one(tmp_path: Path) -> None:
    for name in ("step-999999", "step-1000000", "step-000002", "step-12.odd"):
        (tmp_path / name).mkdir()
    named = [path.name for path in state.found(tmp_path)]
    assert named == ["step-000002", "step-999999", "step-1000000"]


def test_the_released_model_needs_no_second_fp32_copy() -> None:
    model = torch.nn.Linear(3, 2)
    weights = Masters(model, torch.bfloat16)
    with torch.no_grad():
        weights.master["weight"].add_(1e-4)
    released: Any = weights.release()
    assert released.weight.dtype == torch.float32
    assert released.weight.data_ptr() == weights.master["weight"].data_ptr()
    assert torch.equal(released.weight, weights.master["weight"])


def test_text_is_not_held_in_memory_before_it_is_stored(base_model: Path, tmp_path: Path) -> None:
    _, tokenizer = base.load(base_model, dtype=torch.float32)
    found = stage_pieces("knowledge", tmp_path / "none", tokenizer, Stage(), Account())
    assert inspect.isgenerator(found)


def test_products_that_torch_will_not_repeat_are_one_line() -> None:
    def product() -> None:
        with repeatable(True):
            raise RuntimeError("... set an environment variable: CUBLAS_WORKSPACE_CONFIG=:4096:8")

    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG=:4096:8 before"):
        product()


def test_a_protocol_and_the_roles_are_part_of_what_selects(recipe: Callable[..., Path]) -> None:
    changes = [
        (['adapt.meter.select="accuracy"'], ['evaluate.protocol="question-only"']),
        (["adapt.meter.stop_general=0.1", "adapt.meter.at=[0.0, 1.0]"], []),
    ]
    from medexpert import instruments

    for lines, more in changes:
        pipeline = Pipeline(load(recipe(), lines), lambda line: None)
        if not (pipeline.root / "data" / "manifest.json").exists():
            pipeline.run([pipeline.data_step()])
        before = instruments.measured_on(pipeline, "adapt")
        other = Pipeline(load(recipe(), [*lines, *more]), lambda line: None)
        if not more:
            other.roles = lambda: {"another": "general"}  # type: ignore[method-assign]
        assert before == instruments.measured_on(pipeline, "adapt")
        assert before != instruments.measured_on(other, "adapt")


def test_only_stages_run_under_torchrun(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    pipeline = Pipeline(load(recipe(), []), lambda line: None)
    with pytest.raises(UserError, match="data is the work of one process, and torchrun started"):
        pipeline.run([pipeline.data_step()])
    assert not (pipeline.root / "data").exists()


def test_the_door_asks_for_repeatable_products_before_torch_is_there() -> None:
    code = "import os, sys, medexpert.__main__; print(os.environ['CUBLAS_WORKSPACE_CONFIG'], "
    code += "'torch' in sys.modules)"
    given = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [":4096:8", "False"]


def test_a_write_that_has_begun_ends_before_an_error_leaves(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    weights = Masters(torch.nn.Linear(3, 2), torch.float32)
    optimizer = torch.optim.AdamW(weights.master.values())
    held = state.Checkpointer(tmp_path, "k", weights, optimizer, ALONE)

    def failing() -> None:
        with held.written():
            held.save(state.Progress(step=3))
            raise UserError("too many")

    with pytest.raises(UserError, match="too many"):
        failing()
    assert (tmp_path / "step-000003" / "manifest.json").is_file()


def test_a_fault_of_the_first_process_is_one_line_on_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from medexpert.train import turns
    from medexpert.train.stage import _Stage

    stage = object.__new__(_Stage)
    stage.key, stage.folder, stage.data = "k", tmp_path, tmp_path / "instruct.jsonl"
    stage.world = replace(World(0, 1, 0, torch.device("cpu")), rank=1, size=2)
    fault = UserError("the disk is full")
    monkeypatch.setattr(turns, "from_first", lambda world, value, group: fault)
    with pytest.raises(UserError, match="the disk is full"):
        stage.store()
