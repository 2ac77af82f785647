"""Compiling changes no result, is done where it pays, and says why where it is not."""

from __future__ import annotations

import copy
import shutil
import sys
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.test_objectives import random_batch

from medexpert.model.adapters import ADAPTERS
from medexpert.recipe_train import Lora, Stage
from medexpert.records import UserError
from medexpert.train import speed
from medexpert.train.objectives import Learner, chunked_softmax, row_softmax

LONG = {"tokens": 1e9, "flops": 1e9}


def test_auto_compiles_a_long_stage_only(tiny_model: Callable[..., Any]) -> None:
    learner = Learner(tiny_model(), 97)
    assert "do not repay" in speed.prepare(learner, Stage(), {"tokens": 1e5, "flops": 1e9})
    assert "several processes" in speed.prepare(learner, Stage(), {**LONG, "processes": 2})
    assert learner.width == 0
    if not speed.compiler_missing(torch.device("cpu")):
        assert speed.prepare(learner, Stage(), LONG).startswith("compile on")
        assert learner.width == Stage().sequence_length


@pytest.mark.parametrize("method", ["cpoly", "qlora"])
def test_adapters_that_cannot_be_compiled(tiny_model: Callable[..., Any], method: Any) -> None:
    learner = Learner(tiny_model(), 97)
    assert speed.prepare(learner, Stage(method=method), LONG).startswith("compile off: ")
    with pytest.raises(UserError, match="compile = on, but"):
        speed.prepare(learner, Stage(method=method, compile="on"), LONG)
    assert speed.prepare(learner, Stage(method=method, compile="off"), LONG).endswith("recipe")


def test_a_missing_compiler_is_told(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    learner = Learner(tiny_model(), 97)
    assert "there is no C++ compiler" in speed.prepare(learner, Stage(), LONG)
    with pytest.raises(UserError, match=r"there is no C\+\+ compiler"):
        speed.prepare(learner, Stage(compile="on"), LONG)


def test_on_a_gpu_triton_and_what_it_needs_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setitem(sys.modules, "triton", None)
    assert speed.compiler_missing(gpu) == "triton is not installed"
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "there is no C compiler" in speed.compiler_missing(gpu)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "gcc" else None)
    assert speed.compiler_missing(gpu) == ""
    (tmp_path / "Python.h").unlink()
    assert "Python.h" in speed.compiler_missing(gpu)


def test_both_softmaxes_agree() -> None:
    logits = torch.randn(300, 70, dtype=torch.float64) * 5
    targets = torch.randint(0, 70, (300,))
    found = []
    for softmax in (row_softmax, chunked_softmax):
        given = logits.clone()
        found.append((softmax(given, targets), given))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.slow
def test_the_matmul_rate_is_a_rate() -> None:
    assert 1e8 < speed.measured_matmul_rate("cpu", torch.float32) < 1e15


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    layer = speed.Dropout(0.3)
    given = torch.ones(1000, 501, requires_grad=True)
    torch.manual_seed(0)
    found = layer(given)
    found.sum().backward()
    assert given.grad is not None
    assert torch.equal(given.grad, found.detach())  # the same elements on the way back
    assert abs(float((found == 0).float().mean()) - 0.3) < 0.003
    assert abs(float(found.mean()) - 1) < 0.005
    torch.manual_seed(0)
    assert torch.equal(layer(given), found)
    assert not torch.equal(layer(given), found)
    assert torch.equal(layer.eval()(given), given)
    rows = (found.detach()[:, :500].reshape(-1, 4) == 0).float()  # the four of a number
    assert float((torch.corrcoef(rows.T) - torch.eye(4)).abs().max()) < 0.01


def gradients(learner: Learner, batch: Any) -> dict[str, torch.Tensor]:
    learner.zero_grad()
    torch.manual_seed(5)
    loss = learner(batch, 0.1)
    loss.backward()
    found = {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_compiled_equals_plain_autograd(
    tiny_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    method: Any,
) -> None:
    if speed.compiler_missing(torch.device("cpu")):
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("MEDEXPERT_CACHE", str(tmp_path))
    settings = Stage(method=method, compile="on", sequence_length=40, lora=Lora(dropout=0.0))

    def make() -> Learner:
        model = tiny_model()
        if method == "lora":
            model = ADAPTERS["lora"](model, settings, 1)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_()
        torch.manual_seed(0)
        return Learner(model, 97, settings).train()

    torch.manual_seed(3)
    batch = random_batch(2, 40)
    plain = make()
    compiled = copy.deepcopy(plain)
    compiled.head = plain.head
    assert speed.prepare(compiled, settings, {}).startswith("compile on")
    twin = copy.deepcopy(compiled)  # shares nothing with the model it was copied from
    wanted, found = gradients(plain, batch), gradients(compiled, batch)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=2e-4, atol=2e-5, msg=name)
    again = gradients(compiled, batch)
    assert all(torch.equal(again[name], found[name]) for name in found)
    with torch.no_grad():
        next(p for p in compiled.parameters() if p.requires_grad).add_(1)
    torch.testing.assert_close(gradients(twin, batch)["loss"], wanted["loss"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_dropout_is_the_same_on_the_way_back(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a fixed seed the gradient is the slope of the loss; other seeds drop other elements."""
    if speed.compiler_missing(torch.device("cpu")):
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("MEDEXPERT_CACHE", str(tmp_path))
    settings = Stage(method="lora", compile="on", sequence_length=40, lora=Lora(dropout=0.3))
    model = ADAPTERS["lora"](tiny_model(), settings, 1)
    learner = Learner(model, 97, settings).train()
    speed.prepare(learner, settings, {})
    batch = random_batch(2, 40)
    trained = {n: p for n, p in learner.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.normal_(std=0.1)
    found = gradients(learner, batch)
    again = gradients(learner, batch)
    assert all(torch.equal(again[name], found[name]) for name in found)
    torch.manual_seed(1)
    way = {name: torch.randn_like(parameter) for name, parameter in trained.items()}
    losses = []
    for size in (5e-4, -1e-3):
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.add_(way[name], alpha=size)
        losses.append(float(gradients(learner, batch)["loss"]))
    slope = (losses[0] - losses[1]) / 1e-3
    told = sum(float((found[name] * way[name]).sum()) for name in way)
    assert slope == pytest.approx(told, rel=0.03)
    torch.manual_seed(6)
    assert float(learner(batch, 0.1).detach()) != losses[1]
