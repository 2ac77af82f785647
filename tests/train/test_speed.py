"""Compiling changes no result, is done where it pays, and says why where it is not."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medexpert.model.adapters import ADAPTERS
from medexpert.recipe_train import Lora, Stage
from medexpert.records import UserError
from medexpert.train import speed
from medexpert.train.objectives import Learner, chunked_softmax, row_softmax
from tests.train.test_objectives import random_batch

LONG = {"tokens": 1e9, "flops": 1e9}


def test_auto_compiles_a_long_stage_only(tiny_model: Callable[..., Any]) -> None:
    learner = Learner(tiny_model(), 97)
    assert "do not repay" in speed.prepare(learner, Stage(), {"tokens": 1e5, "flops": 1e9})
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


def test_both_softmaxes_agree() -> None:
    logits = torch.randn(300, 70, dtype=torch.float64) * 5
    targets = torch.randint(0, 70, (300,))
    found = []
    for softmax in (row_softmax, chunked_softmax):
        given = logits.clone()
        found.append((softmax(given, targets), given))
    torch.testing.assert_close(found[0], found[1])


def test_the_matmul_rate_is_a_rate() -> None:
    assert 1e8 < speed.measured_matmul_rate("cpu", torch.float32) < 1e15


def gradients(learner: Learner, batch: Any) -> dict[str, torch.Tensor]:
    learner.zero_grad()
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
