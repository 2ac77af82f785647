"""The loop: learns, resumes to the bit, stops cleanly."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train import state
from medexpert.train.batches import Piece, Plan
from medexpert.train.loop import Interrupted, clock, train
from medexpert.train.optim import Masters, adamw, learning_rate

SETTINGS = Stage(
    sequence_length=32, rows_per_step=2, learning_rate=5e-3, checkpoint_every=2, epochs=3,
    dtype="float32",
)  # fmt: skip


def make_plan(settings: Stage = SETTINGS) -> Plan:
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(12):
        ids = (np.arange(16) * rng.integers(1, 4) + rng.integers(0, 9)).astype(np.int32) % 90 + 5
        pieces.append(Piece(ids[:-1], ids[1:]))
    return Plan(
        pieces, capacity=32, epochs=settings.epochs, max_tokens=0, rows_per_step=2, seed=1,
        shuffle=True,
    )  # fmt: skip


def go(model: Any, folder: Path, settings: Stage = SETTINGS, **changes: Any) -> Any:
    lines: list[str] = changes.pop("lines", [])
    arguments = {"name": "knowledge", "key": "k", "seed": 1, "pad": 0, "vocabulary": 97}
    return train(
        model, make_plan(settings), settings, folder=folder, say=lines.append,
        **{**arguments, **changes},
    )  # fmt: skip


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss_falls_and_the_log_tells_it(
    tiny_model: Callable[..., Any], tmp_path: Path, dtype: str
) -> None:
    model = tiny_model()
    settings = SETTINGS.model_copy(update={"dtype": dtype, "epochs": 12.0})
    outcome = go(model, tmp_path, settings)
    assert outcome.last_loss < 0.7 * outcome.first_loss
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events] == list(range(1, outcome.steps + 1))
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_second", "seconds"} <= set(events[0])
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_frozen_weights_do_not_move(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    model = tiny_model()
    model.model.embed_tokens.requires_grad_(False)
    before = weights(model)
    go(model, tmp_path)
    after = weights(model)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    moved = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[moved], after[moved])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_run_stopped_anywhere_ends_byte_equal(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any, stop_at: int, dtype: str
) -> None:
    settings = SETTINGS.model_copy(update={"dtype": dtype})
    whole = tiny_model(attention_dropout=0.1)
    go(whole, tmp_path / "whole", settings)

    steps = 0
    real = Masters.publish

    def dies(self: Masters) -> None:
        nonlocal steps
        real(self)
        steps += 1
        if steps == stop_at + 1:
            raise RuntimeError("power cut")

    monkeypatch.setattr(Masters, "publish", dies)
    broken = tiny_model(attention_dropout=0.1)
    with pytest.raises(RuntimeError, match="power cut"):
        go(broken, tmp_path / "cut", settings)
    monkeypatch.setattr(Masters, "publish", real)
    resumed = tiny_model(attention_dropout=0.1)
    go(resumed, tmp_path / "cut", settings)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    logs = [
        [(e["step"], e["loss"], e["learning_rate"]) for e in map(json.loads, path.open())]
        for path in (tmp_path / "whole" / "log.jsonl", tmp_path / "cut" / "log.jsonl")
    ]
    assert logs[0] == logs[1]


def test_other_settings_never_continue_a_checkpoint(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    go(tiny_model(), tmp_path)
    lines: list[str] = []
    again = tiny_model()
    go(again, tmp_path, key="other", lines=lines)
    assert any("made with other settings" in line for line in lines)
    fresh = tiny_model()
    go(fresh, tmp_path / "fresh", key="other")
    assert all(torch.equal(t, fresh.state_dict()[n]) for n, t in weights(again).items())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    go(tiny_model(), tmp_path)
    before, newest = state.found(tmp_path / "state")
    file = newest / "masters.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    lines: list[str] = []
    masters = Masters(tiny_model(), torch.float32)
    at = state.restore(tmp_path / "state", masters, adamw(masters, SETTINGS), "k", lines.append)
    assert any("is damaged and is not used" in line for line in lines)
    assert at.step == int(before.name.split("-")[1])
    assert state.found(tmp_path / "state") == [before]


def test_checkpoints_of_other_settings_do_not_push_out_new_ones(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    go(tiny_model(), tmp_path)
    assert len(state.found(tmp_path / "state")) == state.KEEP
    real = Masters.publish
    steps = 0

    def dies(self: Masters) -> None:
        nonlocal steps
        real(self)
        steps += 1
        if steps == 3:
            raise RuntimeError("power cut")

    monkeypatch.setattr(Masters, "publish", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        go(tiny_model(), tmp_path, key="other")
    assert [p.name for p in state.found(tmp_path / "state")] == ["step-000002"]
    lines: list[str] = []
    monkeypatch.setattr(Masters, "publish", real)
    go(tiny_model(), tmp_path, key="other", lines=lines)
    assert any("continuing after step 2 of" in line for line in lines)


def test_a_checkpoint_without_its_manifest_is_made_again(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    whole = tiny_model()
    go(whole, tmp_path)
    (state.found(tmp_path / "state")[-1] / "manifest.json").unlink()
    lines: list[str] = []
    again = tiny_model()
    go(again, tmp_path, lines=lines)
    assert any("is damaged and is not used" in line for line in lines)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in weights(whole).items())


def test_first_signal_checkpoints_and_stops(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    real = Masters.publish
    sent = []

    def interrupting(self: Masters) -> None:
        real(self)
        if not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Masters, "publish", interrupting)
    with pytest.raises(Interrupted, match="stopped after step 1 of"):
        go(tiny_model(), tmp_path)
    assert [p.name for p in state.found(tmp_path / "state")] == ["step-000001"]


def test_full_disk_leaves_no_half_checkpoint(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    def full(tensors: Any, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(UserError, match="the disk is full"):
        go(tiny_model(), tmp_path)
    assert list((tmp_path / "state").iterdir()) == []


def test_a_loss_that_is_not_finite_stops_with_advice(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(UserError, match=r"not finite at step 1 .*lower knowledge.learning_rate"):
        go(model, tmp_path)


def test_only_the_newest_checkpoints_are_kept(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    go(tiny_model(), tmp_path)
    assert len(state.found(tmp_path / "state")) == state.KEEP


def test_nothing_trainable_is_an_error(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no parameter is trainable"):
        go(tiny_model().requires_grad_(False), tmp_path)


def test_schedule_warms_up_peaks_and_ends_at_its_share() -> None:
    settings = Stage(learning_rate=1.0 - 1e-9, warmup_share=0.1, final_share=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    linear = settings.model_copy(update={"schedule": "linear"})
    assert learning_rate(99, 100, linear) == pytest.approx(0.1)
    constant = settings.model_copy(update={"schedule": "constant"})
    assert learning_rate(99, 100, constant) == pytest.approx(1.0)


def test_masters_sum_gradients_in_fp32(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    masters = Masters(model, torch.bfloat16)
    weight = model.model.layers[0].mlp.up_proj.weight
    (weight.sum() * 1.0).backward()
    (weight.sum() * 2**-9).backward()  # lost if summed in bf16
    gradient = masters.master["model.layers.0.mlp.up_proj.weight"].grad
    assert gradient is not None
    assert weight.grad is None
    assert torch.all(gradient == 1 + 2**-9)


def test_clock() -> None:
    assert clock(65) == "1:05"
    assert clock(3725) == "1:02:05"
