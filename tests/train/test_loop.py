"""The loop: learns, resumes to the bit, meets every fault as its table says, stops cleanly."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medexpert.recipe_train import Meter
from medexpert.records import UserError
from medexpert.train.faults import Interrupted, out_of_memory, repeatable
from medexpert.train.optim import Masters
from medexpert.train.progress import clock
from medexpert.train.state import found as checkpoints_in
from medexpert.train.watch import Instruments
from tiny_loop import SETTINGS, Broken, events, go, make_plan


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(t, other.state_dict()[n]) for n, t in one.state_dict().items())


def after_publish(monkeypatch: Any, number: int, act: Callable[[], None]) -> None:
    """Do `act` right behind the given update of the weights, counted from 1."""
    real = Masters.publish
    done = 0

    def publish(self: Masters) -> None:
        nonlocal done
        real(self)
        done += 1
        if done == number:
            act()

    monkeypatch.setattr(Masters, "publish", publish)


def power_cut() -> None:
    raise RuntimeError("power cut")


# -- learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss_falls_and_the_log_tells_it(
    tiny_model: Callable[..., Any], tmp_path: Path, dtype: str
) -> None:
    settings = SETTINGS.model_copy(update={"dtype": dtype, "epochs": 12.0})
    lines: list[str] = []
    outcome = go(tiny_model(), tmp_path, settings, lines=lines, flops=1e6, rate=1e12)
    assert outcome.losses[-1] < 0.7 * outcome.losses[0]
    found = events(tmp_path)
    assert [e["step"] for e in found] == list(range(1, outcome.steps + 1))
    wanted = {"loss", "learning_rate", "grad_norm", "tokens_per_second", "matmul_share", "memory"}
    assert wanted <= set(found[0])
    assert found[-1]["tokens"] == outcome.progress.tokens
    assert all(p.dtype == torch.float32 for p in outcome.model.parameters())
    assert "tokens/s" in lines[-1]
    assert "ETA" in lines[-1]


def test_frozen_weights_do_not_move(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    model = tiny_model()
    model.model.embed_tokens.requires_grad_(False)
    before = weights(model)
    after = weights(go(model, tmp_path).model)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    moved = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[moved], after[moved])


def test_accumulation_equals_the_large_batch_in_the_last_window_too(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    logs = []
    for micro in (4, 2, 1):
        settings = SETTINGS.model_copy(update={"micro_rows": micro, "rows_per_step": 4})
        assert len(make_plan(settings).rows) % 4
        go(tiny_model(), tmp_path / str(micro), settings)
        logs.append([(e["loss"], e["grad_norm"]) for e in events(tmp_path / str(micro))])
    for log in logs[1:]:
        np.testing.assert_allclose(logs[0], log, rtol=2e-5)


def test_nothing_trainable_is_an_error(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no parameter is trainable"):
        go(tiny_model().requires_grad_(False), tmp_path)


# -- resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_run_stopped_anywhere_ends_byte_equal(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any, stop_at: int, dtype: str
) -> None:
    settings = SETTINGS.model_copy(update={"dtype": dtype})
    whole = go(tiny_model(attention_dropout=0.1), tmp_path / "whole", settings).model
    with monkeypatch.context() as patched:
        after_publish(patched, stop_at + 1, power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            go(tiny_model(attention_dropout=0.1), tmp_path / "cut", settings)
    resumed = go(tiny_model(attention_dropout=0.1), tmp_path / "cut", settings).model
    assert same(whole, resumed)
    logs = [
        [(e["step"], e["loss"], e["learning_rate"]) for e in events(tmp_path / name)]
        for name in ("whole", "cut")
    ]
    assert logs[0] == logs[1]


def test_other_settings_never_continue_a_checkpoint(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    go(tiny_model(), tmp_path)
    kept = checkpoints_in(tmp_path / "state")
    with pytest.raises(UserError, match="made with other settings or data"):
        go(tiny_model(), tmp_path, key="other")
    assert kept
    assert checkpoints_in(tmp_path / "state") == kept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_checkpoints_and_stops(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any, number: int
) -> None:
    settings = SETTINGS.model_copy(update={"checkpoint_every": 100})
    with monkeypatch.context() as patched:
        after_publish(patched, 2, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match="stopped after step 2 of"):
            go(tiny_model(), tmp_path, settings)
    lines: list[str] = []
    resumed = go(tiny_model(), tmp_path, settings, lines=lines).model
    assert any("continuing after step 2 of" in line for line in lines)
    assert same(resumed, go(tiny_model(), tmp_path / "whole", settings).model)


# -- faults ----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_skipped_and_counted(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    def fault(call: int, batch: Any) -> float:
        return math.nan if call == 3 else 1.0

    settings = SETTINGS.model_copy(update={"rows_per_step": 1})
    outcome = go(tiny_model(), tmp_path, settings, wrap=lambda one: Broken(one, fault))
    assert outcome.progress.skipped["not finite"] == 1
    found = events(tmp_path)
    assert [e["step"] for e in found if e["event"] == "skip"] == [3]
    assert all(math.isfinite(e["loss"]) for e in found if e["event"] == "step")
    assert all(p.isfinite().all() for p in outcome.model.parameters())
    assert len(outcome.losses) == outcome.steps - 1


def test_too_many_unusable_steps_in_a_row_stop_with_advice(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(UserError, match=r"step 4: not finite .*lower knowledge.learning_rate"):
        go(model, tmp_path)
    assert [e["event"] for e in events(tmp_path)] == ["skip"] * 4


def test_a_spike_is_skipped_and_the_weights_stay(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    def fault(call: int, batch: Any) -> float:
        return 1e4 if call in (20, 21) else 1.0

    changes = {"rows_per_step": 1, "epochs": 6.0, "spike": 10.0, "checkpoint_every": 1}
    settings = SETTINGS.model_copy(update=changes)
    outcome = go(tiny_model(), tmp_path / "whole", settings, wrap=lambda one: Broken(one, fault))
    assert outcome.progress.skipped["spike"] == 2
    # The counts and the norms that made it a spike are part of a checkpoint.
    with monkeypatch.context() as patched:
        after_publish(patched, 18, power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            go(tiny_model(), tmp_path / "cut", settings, wrap=lambda one: Broken(one, fault))

    def later(call: int, batch: Any) -> float:
        return fault(call + 17, batch)

    resumed = go(tiny_model(), tmp_path / "cut", settings, wrap=lambda one: Broken(one, later))
    assert resumed.progress.skipped == outcome.progress.skipped
    assert same(outcome.model, resumed.model)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_global_one(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    def fault(call: int, batch: Any) -> float:
        if len(batch.inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    settings = SETTINGS.model_copy(update={"micro_rows": 4, "rows_per_step": 4})
    lines: list[str] = []
    outcome = go(
        tiny_model(), tmp_path / "oom", settings, lines=lines, wrap=lambda one: Broken(one, fault)
    )
    assert any("out of memory; going on with micro_rows = 2" in line for line in lines)
    smaller = settings.model_copy(update={"micro_rows": 2})
    assert same(outcome.model, go(tiny_model(), tmp_path / "two", smaller).model)


def test_a_row_that_does_not_fit_alone_is_one_line(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    def fault(call: int, batch: Any) -> float:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")

    with pytest.raises(UserError, match=r"out of memory at step 1 .*sequence_length, or set"):
        go(tiny_model(), tmp_path, wrap=lambda one: Broken(one, fault))
    assert not out_of_memory(RuntimeError("shapes do not match"))


# -- measuring -------------------------------------------------------------------------------------


def test_bits_are_measured_at_their_shares_and_stop_the_run(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    seen: list[bool] = []

    def heldout(model: Any, tokenizer: Any) -> Mapping[str, Mapping[str, Any]]:
        assert tokenizer == "its tokenizer"
        seen.append(model.training)
        bits = 1.0 + 0.01 * len(seen)
        return {
            "a": {"role": "medical", "bits_per_byte": 2.0},
            "b": {"role": "general", "bits_per_byte": bits},
            "c": {"role": "general", "bits_per_byte": bits + 1},
        }

    meter = Meter(at=(0.0, 0.05, 0.25, 0.5, 1.0))
    settings = SETTINGS.model_copy(update={"epochs": 12.0, "meter": meter})
    instruments = Instruments(heldout=heldout, tokenizer="its tokenizer")
    outcome = go(tiny_model(), tmp_path / "all", settings, instruments=instruments)
    found = [e for e in events(tmp_path / "all") if e["event"] == "measure"]
    steps = outcome.steps
    assert [e["step"] for e in found] == [0, *(round(s * steps) for s in (0.05, 0.25, 0.5)), steps]
    assert found[0]["general"] == pytest.approx(1.51)
    assert seen == [False] * 5
    # Measuring changes nothing.
    assert same(outcome.model, go(tiny_model(), tmp_path / "none", settings.model_copy(
        update={"meter": Meter()})).model)  # fmt: skip

    seen.clear()
    strict = settings.model_copy(update={"meter": meter.model_copy(update={"stop_general": 0.01})})
    outcome = go(tiny_model(), tmp_path / "stop", strict, instruments=instruments)
    assert "general text costs" in outcome.stopped
    assert outcome.steps == round(0.25 * steps)


@pytest.mark.parametrize("cut", [False, True])
def test_the_best_weights_on_the_dev_fold_are_kept(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any, cut: bool
) -> None:
    at_best: dict[str, torch.Tensor] = {}
    name = "model.layers.0.mlp.up_proj.weight"
    seen: list[torch.Tensor] = []

    def dev(model: Any, tokenizer: Any) -> Mapping[str, float]:
        weight = model.state_dict()[name].clone()
        if not any(torch.equal(weight, other) for other in seen):
            seen.append(weight)
        number = next(i for i, other in enumerate(seen) if torch.equal(weight, other))
        value = (0.5, 0.9, 0.9, 0.2)[number]
        if number == 1:
            at_best[name] = weight
        return {"accuracy": value, "macro_f1": value, "log_loss": 1 - value}

    settings = SETTINGS.model_copy(
        update={"meter": Meter(select="accuracy", select_every=0.25), "epochs": 4.0}
    )
    if cut:
        steps = make_plan(settings).steps
        with monkeypatch.context() as patched:
            after_publish(patched, steps - 1, power_cut)
            with pytest.raises(RuntimeError, match="power cut"):
                go(tiny_model(), tmp_path, settings, instruments=Instruments(dev=dev))
    outcome = go(tiny_model(), tmp_path, settings, instruments=Instruments(dev=dev))
    assert torch.equal(outcome.model.state_dict()[name], at_best[name])
    assert outcome.progress.best is not None
    assert outcome.progress.best[0] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("meter", "message"),
    [
        (Meter(at=(0.0,)), "meter.at is set, but no held-out text"),
        (Meter(select="macro_f1"), "meter.select is set, but the task has no dev fold"),
    ],
)
def test_what_cannot_be_measured_is_an_error(
    tiny_model: Callable[..., Any], tmp_path: Path, meter: Meter, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        go(tiny_model(), tmp_path, SETTINGS.model_copy(update={"meter": meter}))


def test_a_kernel_that_does_not_repeat_is_one_line() -> None:
    with repeatable(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    told = r"put_ has no form that repeats.*deterministic = false"
    with pytest.raises(UserError, match=told), repeatable(True):
        torch.zeros(4).put_(torch.tensor([0]), torch.ones(1))


def test_clock() -> None:
    assert clock(65) == "1:05"
    assert clock(3725) == "1:02:05"
