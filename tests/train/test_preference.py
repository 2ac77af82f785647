"""The preference loss against plain sums, the reference behind it, and that a model learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.recipe_train import Preference
from medexpert.records import UserError
from medexpert.train import preference
from medexpert.train.batches import IGNORE, Batch, Piece, collate
from medexpert.train.preference import (
    PreferenceObjective,
    item_logprobs,
    pair_losses,
    reference_logprobs,
)
from medexpert.train.rows import Plan

WEIGHTS = Preference(beta=0.3, likelihood=0.2)


def item(prompt: list[int], answer: list[int]) -> Piece:
    whole = np.asarray([*prompt, *answer], dtype=np.int32)
    targets = np.where(np.arange(1, len(whole)) >= len(prompt), whole[1:], IGNORE)
    return Piece(whole[:-1], targets.astype(np.int32))


def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> Piece:
    one, two = item(prompt, chosen), item(prompt, rejected)
    return Piece(
        np.concatenate([one.inputs, two.inputs]), np.concatenate([one.targets, two.targets]),
        breaks=(len(one),),
    )  # fmt: skip


PAIRS = [
    ([3, 4, 5], [6, 7], [8]), ([9, 3], [10], [11, 12, 13]), ([20, 21, 22, 23], [24, 25], [26, 2]),
    ([40], [41, 42, 43], [44]),
]  # fmt: skip


def answer_logprob(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """log pi(answer | prompt) from a run of its own: logit minus log-sum-exp, token by token."""
    whole = torch.tensor([prompt + answer])
    logits = model(input_ids=whole, use_cache=False).logits[0]
    total = torch.zeros((), dtype=logits.dtype)
    for place in range(len(prompt), len(prompt) + len(answer)):
        scores = logits[place - 1]
        total = total + scores[whole[0, place]] - torch.log(torch.exp(scores).sum())
    return total


def plain_loss(
    model: Any, reference: Any, pairs: list[tuple[list[int], list[int], list[int]]]
) -> torch.Tensor:
    """The sum over pairs, written out from the paper: 1 / (1 + exp(-z)) by hand."""
    total = torch.zeros((), dtype=next(model.parameters()).dtype)
    for prompt, chosen, rejected in pairs:
        with torch.no_grad():
            was_c = answer_logprob(reference, prompt, chosen)
            was_r = answer_logprob(reference, prompt, rejected)
        now_c = answer_logprob(model, prompt, chosen)
        now_r = answer_logprob(model, prompt, rejected)
        z = WEIGHTS.beta * ((now_c - now_r) - (was_c - was_r))
        total = total + torch.log(1 + torch.exp(-z)) - WEIGHTS.likelihood * now_c / len(chosen)
    return total


def with_reference(model: Any, made: list[Piece], folder: Path, **changes: Any) -> list[Piece]:
    asked: dict[str, Any] = {"key": "k", "capacity": 24, "micro_rows": 2, "pad": 0}
    return list(
        reference_logprobs(model, made, path=folder / "reference.jsonl", **{**asked, **changes})
    )


def test_loss_and_gradient_are_the_papers(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    policy, reference = tiny_model(seed=1), tiny_model(seed=2)
    made = with_reference(reference, [pair(*p) for p in PAIRS], tmp_path)
    batch = collate([made[:2], made[2:]], pad=0)
    assert batch.padding > 0
    loss = PreferenceObjective(WEIGHTS)(policy, batch, 0.5)
    loss.backward()
    found = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    expected = plain_loss(policy, reference, PAIRS)
    expected.backward()
    torch.testing.assert_close(loss, 0.5 * expected, rtol=1e-5, atol=1e-5)
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(found[name], 0.5 * parameter.grad, rtol=1e-4, atol=1e-5)
    assert max(float(g.abs().max()) for g in found.values()) > 1e-3


def test_gradient_is_the_slope_of_the_loss(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    policy = tiny_model(seed=1).double()
    made = with_reference(tiny_model(seed=2), [pair(*p) for p in PAIRS], tmp_path)
    batch = collate([made], pad=0)
    weight = policy.model.layers[0].mlp.up_proj.weight
    pair_losses(policy, batch, WEIGHTS)[0].sum().backward()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).double()
    values = []
    for step in (1e-3, -2e-3):  # its norms compute in fp32 whatever the weights are
        with torch.no_grad():
            weight += step * direction
            values.append(float(pair_losses(policy, batch, WEIGHTS)[0].sum()))
    slope = (values[0] - values[1]) / 2e-3
    assert slope == pytest.approx(float((weight.grad * direction).sum()), rel=2e-3)


def test_a_model_that_is_its_reference_starts_at_ln_2(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    model = tiny_model(seed=1)
    batch = collate([with_reference(model, [pair(*p) for p in PAIRS], tmp_path)], pad=0)
    objective = PreferenceObjective(Preference(beta=0.3, likelihood=0.0))
    assert objective.last_facts == {}
    loss = objective(model, batch, 1 / objective.units(batch))
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-6)
    facts = objective.last_facts
    assert facts["pairs"] == len(PAIRS)
    assert facts["margin"] == pytest.approx(0, abs=1e-6)


def test_facts_tell_margin_and_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed(model: Any, batch: Batch) -> torch.Tensor:
        return torch.tensor([-1.0, -2.0, -3.0, -1.0, -5.0, -1.0])

    monkeypatch.setattr(preference, "target_logprobs", fixed)
    made = [
        replace(pair([3, 4], [6, 7], [8]), reference=(-4.0, -2.0)),  # gains 1 and -1: won
        replace(pair([3], [6], [8, 9]), reference=(-1.0, -6.0)),  # gains 0 and 0: a tie
    ]
    objective = PreferenceObjective(Preference(beta=0.5, likelihood=0.0))
    loss = objective(torch.nn.Linear(1, 1), collate([made], pad=0))
    assert objective.last_facts == {"pairs": 2, "margin": 0.5, "accuracy": 0.5}
    objective(torch.nn.Linear(1, 1), collate([made], pad=0))
    assert objective.take_facts(lambda tally: 2 * tally) == {
        "pairs": 8, "margin": 0.5, "accuracy": 0.5
    }  # fmt: skip
    assert objective.last_facts == {}
    expected = math.log(1 + math.exp(-1.0)) + math.log(2)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)


tokens = st.lists(st.integers(3, 90), min_size=1, max_size=6)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pairs=st.lists(st.tuples(tokens, tokens, tokens), min_size=1, max_size=5),
    rows=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_packed_pairs_are_separate_pairs(
    tiny_model: Callable[..., Any],
    pairs: list[tuple[list[int], list[int], list[int]]],
    rows: int,
    seed: int,
) -> None:
    policy = tiny_model(seed=1)
    rng = np.random.default_rng(seed)
    made = [
        replace(pair(*p), reference=tuple(map(float, rng.normal(-9, 2, 2).astype(np.float32))))
        for p in pairs
    ]
    with torch.no_grad():
        alone = [pair_losses(policy, collate([[p]], pad=0), WEIGHTS)[0] for p in made]
        layout = [made[n::rows] for n in range(rows) if made[n::rows]]
        together, margins = pair_losses(policy, collate(layout, pad=0), WEIGHTS)
    wanted = [loss for n in range(rows) for loss in alone[n::rows]]
    torch.testing.assert_close(together, torch.cat(wanted), rtol=1e-4, atol=1e-5)
    assert margins.shape == (len(pairs),)


def test_prompts_read_both_ways_change_both_answers(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(seed=1)
    made = replace(pair(*PAIRS[0]), reference=(-1.0, -2.0))
    both = replace(made, prefix=len(PAIRS[0][0]))
    with torch.no_grad():
        causal, _ = item_logprobs(model, collate([[made]], pad=0))
        packed, _ = item_logprobs(model, collate([[both, both]], pad=0))
        alone = []
        for answer in PAIRS[0][1:]:
            one = replace(item(PAIRS[0][0], answer), prefix=len(PAIRS[0][0]))
            alone += item_logprobs(model, collate([[one]], pad=0))[0].tolist()
    torch.testing.assert_close(packed, torch.tensor(alone * 2), rtol=1e-5, atol=1e-5)
    assert (packed[:2] - causal).abs().min() > 1e-3


def test_pieces_without_a_reference_are_refused(tiny_model: Callable[..., Any]) -> None:
    batch = collate([[pair(*PAIRS[0])]], pad=0)
    assert PreferenceObjective.units(batch) == 0
    with pytest.raises(ValueError, match="without reference log-probabilities"):
        pair_losses(tiny_model(), batch, WEIGHTS)


def test_padding_alone_is_no_pair_and_keeps_the_graph(tiny_model: Callable[..., Any]) -> None:
    policy = tiny_model()
    row = np.full(4, 5, dtype=np.int32)
    batch = collate([[Piece(row, np.full(4, IGNORE, dtype=np.int32))]], pad=0)
    objective = PreferenceObjective(WEIGHTS)
    loss = objective(policy, batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(float(p.grad.abs().max()) == 0 for p in policy.parameters())
    assert objective.take_facts() == {}


def test_a_plan_counts_pairs_and_keeps_them_whole(tmp_path: Path) -> None:
    made = [replace(pair(*p), reference=(-1.0, -2.0)) for p in PAIRS]
    plan = Plan(
        made, capacity=24, epochs=2, max_tokens=0, rows_per_step=1, seed=0, shuffle=True,
        unit="piece",
    )  # fmt: skip
    for step in range(plan.steps):
        batches = plan.batches(step, 2, pad=0)
        assert plan.units(step) == sum(map(PreferenceObjective.units, batches))
        assert all(PreferenceObjective.units(batch) > 0 for batch in batches)
    assert sum(map(plan.units, range(plan.steps))) == 2 * len(PAIRS)


def test_a_tiny_model_learns_to_prefer(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = tiny_model(seed=3)
    made = with_reference(policy, [pair(*p) for p in PAIRS], tmp_path)
    batch = collate([made], pad=0)
    objective = PreferenceObjective(Preference(beta=0.1, likelihood=0.1))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = objective(policy, batch, 1 / len(PAIRS))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    objective.take_facts()
    with torch.no_grad():
        objective(policy, batch)
    assert objective.last_facts["accuracy"] == 1.0
    assert objective.last_facts["margin"] > 0.3
    with torch.no_grad():
        for (prompt, chosen, _), piece in zip(PAIRS, made, strict=True):
            assert float(answer_logprob(policy, prompt, chosen)) > piece.reference[0]


# -- the reference -----------------------------------------------------------------------------


def test_reference_is_each_answers_own_logprob(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    model = tiny_model(seed=2).train()
    made = [pair(*p) for p in PAIRS]
    found = with_reference(model, made, tmp_path)
    assert model.training
    for piece, before, (prompt, chosen, rejected) in zip(found, made, PAIRS, strict=True):
        assert piece.inputs is before.inputs
        expected = [float(answer_logprob(model, prompt, a).detach()) for a in (chosen, rejected)]
        assert piece.reference == pytest.approx(expected, rel=1e-5)
        assert all(p.grad is None for p in model.parameters())


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the windows that are really computed from here on."""
    sizes: list[int] = []
    real = preference._window_logprobs

    def spy(model: Any, window: list[Piece], *rest: Any) -> list[list[float]]:
        sizes.append(len(window))
        return real(model, window, *rest)

    monkeypatch.setattr(preference, "_window_logprobs", spy)
    monkeypatch.setattr(preference, "WINDOW", 2)
    return sizes


def test_a_resumed_run_reads_what_was_computed(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(monkeypatch)
    model, made = tiny_model(seed=2), [pair(*p) for p in [*PAIRS, PAIRS[1]]]
    first = with_reference(model, made, tmp_path)
    assert sizes == [2, 2, 1]
    again = with_reference(model, made, tmp_path)
    assert sizes == [2, 2, 1]
    assert [p.reference for p in again] == [p.reference for p in first]
    path = tmp_path / "reference.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 30])  # killed while the second line was written
    assert [p.reference for p in with_reference(model, made, tmp_path)] == [
        p.reference for p in first
    ]
    assert sizes == [2, 2, 1, 2, 1]
    assert path.read_bytes() == whole


def test_another_model_or_other_pairs_are_computed_anew(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(monkeypatch)
    made = [pair(*p) for p in PAIRS]
    with_reference(tiny_model(seed=2), made, tmp_path)
    other = with_reference(tiny_model(seed=3), made, tmp_path, key="other")
    assert sizes == [2, 2, 2, 2]
    changed = [*made[:2], pair([50], [51], [52]), made[3]]
    mixed = with_reference(tiny_model(seed=3), changed, tmp_path, key="other")
    assert sizes[4:] == [2]  # the first window is still good
    assert [p.reference for p in mixed[:2]] == [p.reference for p in other[:2]]
    assert mixed[2].reference != other[2].reference


def test_a_reference_that_is_not_finite_stops_the_run(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(UserError, match="log-probability that is not finite"):
        with_reference(model, [pair(*PAIRS[0])], tmp_path)
