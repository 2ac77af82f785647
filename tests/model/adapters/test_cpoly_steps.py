"""C-Poly in training: the tasks of a batch, the sample of a step, activations made again."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from medexpert.model.adapters import begin_step, routing_facts, tasks
from medexpert.records import UserError

Make = Callable[..., Any]


def test_a_private_skill_learns_from_its_own_task_alone(skilled: Make, tokens: Any) -> None:
    wrapped = skilled().train()
    begin_step(wrapped, 5)
    with tasks(wrapped, "verify"):
        wrapped(tokens).logits.square().mean().backward()
    for made in wrapped.layers().values():
        for name in ("private_a", "private_b", "logits_private", "logits_common"):
            gradient = getattr(made, name).grad
            assert not gradient[[0, 2]].any()
            assert gradient[1].any()
        assert made.common_a.grad.any()
        assert made.common_b.grad.any()


def test_rows_of_several_tasks_have_the_gradients_of_the_tasks_alone(
    skilled: Make, tokens: Any
) -> None:
    rows = torch.cat([tokens, tokens.flip(1), tokens.roll(2, 1)])
    ids = [1, 1, 0]
    mixed, alone = skilled().train(), skilled().train()
    for model in (mixed, alone):
        begin_step(model, 8)
    with tasks(mixed, torch.tensor(ids)):
        mixed(rows).logits.square().sum().backward()
    for row, task in zip(rows, ids, strict=True):
        with tasks(alone, task):
            alone(row[None]).logits.square().sum().backward()
    for (name, one), (_, other) in zip(
        mixed.named_parameters(), alone.named_parameters(), strict=True
    ):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3, msg=name)


def test_evaluation_is_deterministic_and_takes_no_sample(
    skilled: Make, tiny: Any, tokens: Any
) -> None:
    wrapped = skilled(dropout=0.3)
    with tasks(wrapped, 0):
        first = tiny.logits(wrapped, tokens)
        begin_step(wrapped, 1)
        assert torch.equal(tiny.logits(wrapped, tokens), first)
        torch.manual_seed(4)
        assert torch.equal(tiny.logits(wrapped, tokens), first)


def test_one_sample_a_step_a_layer_and_a_task(skilled: Make, tiny: Any, tokens: Any) -> None:
    wrapped = skilled().train()
    begin_step(wrapped, 1)
    noise = {name: made.noise.clone() for name, made in wrapped.layers().items()}
    with tasks(wrapped, 0):
        first, again = tiny.logits(wrapped, tokens), tiny.logits(wrapped, tokens)
    assert torch.equal(first, again)
    every = torch.cat([value.flatten() for value in noise.values()])
    assert len(every.unique()) == len(every)
    begin_step(wrapped, 2)
    with tasks(wrapped, 0):
        assert not torch.equal(tiny.logits(wrapped, tokens), first)
    torch.manual_seed(77)
    begin_step(wrapped, 1)
    assert all(torch.equal(made.noise, noise[n]) for n, made in wrapped.layers().items())


def test_without_gumbel_training_is_the_plain_sigmoid(
    skilled: Make, tiny: Any, tokens: Any
) -> None:
    wrapped = skilled(gumbel=False)
    with tasks(wrapped, 1):
        calm = tiny.logits(wrapped, tokens)
        wrapped.train()
        assert torch.equal(tiny.logits(wrapped, tokens), calm)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("ids", [1, (2, 0)])
def test_activations_made_again_use_the_same_sample_and_tasks(
    skilled: Make, tokens: Any, reentrant: bool, ids: Any
) -> None:
    """Backward runs outside the context, and in another thread as on a GPU."""
    rows = tokens if ids == 1 else tokens.repeat(2, 1)
    kept, again = skilled().train(), skilled().train()
    again.inner.gradient_checkpointing_enable({"use_reentrant": reentrant})
    again.inner.enable_input_require_grads()
    for model in (kept, again):
        begin_step(model, 6)
        for scale in (1.0, 3.0):  # two micro-batches of one step
            with tasks(model, ids if scale == 1.0 else 0):
                loss = (model(rows, use_cache=False).logits * scale).square().mean()
            thread = threading.Thread(target=loss.backward)
            thread.start()
            thread.join()
    checked = 0
    for (name, one), (_, other) in zip(
        kept.named_parameters(), again.named_parameters(), strict=True
    ):
        if one.requires_grad:
            assert torch.equal(one.grad, other.grad), name
            checked += 1
    assert checked == 84


def test_activations_of_two_tasks_at_once_cannot_be_made_again(skilled: Make, tokens: Any) -> None:
    wrapped = skilled().train()
    wrapped.inner.gradient_checkpointing_enable({"use_reentrant": False})
    begin_step(wrapped, 6)
    losses = []
    for task in (0, 1, 1):
        with tasks(wrapped, task):
            losses.append(wrapped(tokens, use_cache=False).logits.mean())
    with pytest.raises(RuntimeError, match="run backward after each forward"):
        sum(losses).backward()


def test_a_batch_without_tasks_or_a_sample_is_an_error(skilled: Make, tokens: Any) -> None:
    wrapped = skilled()
    with pytest.raises(RuntimeError, match=r"call the model inside `with tasks\(model, ids\):`"):
        wrapped(tokens)
    wrapped.train()
    with tasks(wrapped, 0), pytest.raises(RuntimeError, match="call begin_step"):
        wrapped(tokens)


def test_tasks_are_checked_when_they_are_set(skilled: Make, tokens: Any) -> None:
    wrapped = skilled()
    for wrong in (3, -1, torch.tensor([0, 3])):
        with pytest.raises(UserError, match=r"no task -?\d; allowed: 0 to 2 \(direct, verify"):
            wrapped.task(wrong)
    with pytest.raises(UserError, match=r"unknown task 'verfy'.*did you mean 'verify'"):
        wrapped.task("verfy")
    with pytest.raises(UserError, match="no task is given"):
        wrapped.task([])
    with tasks(wrapped, [0, 1]), pytest.raises(RuntimeError, match="got 3 rows for 2 tasks"):
        wrapped(tokens.repeat(3, 1))


def test_contexts_nest_and_end(skilled: Make) -> None:
    wrapped = skilled()
    with tasks(wrapped, "direct"):
        with tasks(wrapped, ["verify", "choice"]):
            assert wrapped.routing.current().key == (1, 2)
        assert wrapped.routing.current().task == 0
    assert wrapped.routing.active is None


def test_two_threads_with_other_tasks_are_refused(skilled: Make) -> None:
    wrapped = skilled()
    caught: list[str] = []

    def enter() -> None:
        try:
            with tasks(wrapped, 1):
                caught.append("entered")
        except RuntimeError as error:
            caught.append(str(error))

    with tasks(wrapped, 0):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert caught == ["another thread is computing for other tasks with this model"]


def test_models_without_skills_do_not_notice(model: Any, tiny: Any, tokens: Any) -> None:
    begin_step(model, 1)
    with tasks(model, torch.tensor([7])):
        assert tiny.logits(model, tokens).shape[0] == 1
    assert routing_facts(model) == {}


def test_bf16_and_a_wrapped_model(skilled: Make, tiny: Any, tokens: Any) -> None:
    from medexpert.model.base import cast_weights

    wrapped = skilled(noise=0.02)
    with tasks(wrapped, 0):
        fine = tiny.logits(wrapped, tokens)
    cast_weights(wrapped, torch.bfloat16)
    assert wrapped.config.dtype == torch.bfloat16
    root = nn.ModuleDict({"model": wrapped})
    with tasks(root, torch.zeros(1, dtype=torch.long)):
        coarse = tiny.logits(wrapped, tokens)
    assert coarse.dtype == torch.bfloat16
    assert float((coarse.float() - fine).norm() / fine.norm()) < 0.05
    begin_step(root, 2)
    with tasks(root, torch.tensor([0, 1])):
        wrapped.train()(tokens.repeat(2, 1)).logits.float().mean().backward()


def test_a_copy_has_its_own_routing(skilled: Make, tiny: Any, tokens: Any) -> None:
    wrapped = skilled()
    twin = copy.deepcopy(wrapped)
    with tasks(twin, "verify"), tasks(wrapped, "direct"):
        other, one = tiny.logits(twin, tokens), tiny.logits(wrapped, tokens)
    assert not torch.allclose(other, one, atol=1e-3)
    with tasks(wrapped, "verify"):
        assert torch.equal(tiny.logits(wrapped, tokens), other)


def test_a_plain_step_learns(skilled: Make, tokens: Any) -> None:
    wrapped = skilled(noise=0).train()
    optimiser = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(12):
        begin_step(wrapped, step)
        with tasks(wrapped, step % 3):
            loss = wrapped(tokens, labels=tokens).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5
