from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medexpert.model.adapters import ADAPTERS, begin_step, routing_facts, tasks
from medexpert.model.adapters.cpoly import CPolyConfig, CPolyModel
from medexpert.model.adapters.cpoly.layer import Active, CPolyLinear, Routing, skill_weights
from medexpert.model.adapters.lora import add_lora
from medexpert.recipe_train import CPoly, Lora, Stage
from medexpert.records import UserError

Make = Callable[..., Any]


def config(**changes: Any) -> CPolyConfig:
    given: dict[str, Any] = {
        "tasks": ("a", "b", "c"), "rank": 2, "alpha": 4, "common": 3, "private": 1,
        "target_modules": ("q_proj",),
    }  # fmt: skip
    return CPolyConfig(**{**given, **changes})


def layer(seed: int = 0, inputs: int = 5, outputs: int = 4, **changes: Any) -> CPolyLinear:
    """One layer in eval mode with every tensor random."""
    made = CPolyLinear(nn.Linear(inputs, outputs), config(**changes), Routing(), 0, seed)
    generator = torch.Generator().manual_seed(seed)
    for tensor in made.tensors().values():
        tensor.data = torch.randn(tensor.shape, generator=generator)
    return made.eval()


def by_hand(made: CPolyLinear, x: Any, task: int) -> Any:
    """The formula of the module's docstring, skill by skill, in float64; x (M, I)."""
    c = made.config
    common = [torch.sigmoid(z.double()) for z in (made.logits_common[task] if c.common else [])]
    private = [z.double() for z in (made.logits_private[task] if c.private else [])]
    if c.norm == "joint":
        every = [*common, *map(torch.sigmoid, private)]
        weights = [w / sum(every) for w in every]
    else:
        weights = [*(w / sum(common) for w in common), *(1 + z for z in private)]
    low = [*(made.common_a if c.common else []), *(made.private_a[task] if c.private else [])]
    high = [*(made.common_b if c.common else []), *(made.private_b[task] if c.private else [])]
    base = made.base_layer
    y = x.double() @ base.weight.double().T + base.bias.double()
    for w, a, b in zip(weights, low, high, strict=True):
        y = y + w * (c.alpha / c.rank) * (x.double() @ a.double().T) @ b.double().T
    return y


shapes = st.tuples(st.integers(0, 3), st.integers(0, 2)).filter(lambda ab: sum(ab) > 0)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 3), st.sampled_from(["joint", "separate"]), st.integers(0, 99))
def test_it_is_the_formula_for_one_task_and_for_a_task_a_row(
    skills: tuple[int, int], rank: int, norm: Any, seed: int
) -> None:
    made = layer(seed, common=skills[0], private=skills[1], rank=rank, norm=norm)
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed))
    for task in range(3):
        with made.routing.hold(Active(task)):
            got, flat = made(x), made(x[0])
        torch.testing.assert_close(got.double(), by_hand(made, x, task), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(flat, got[0], rtol=1e-5, atol=1e-5)
    rows = [2, 0, 0, 1]
    with made.routing.hold(Active(None, torch.tensor(rows))):
        mixed, two_d = made(x), made(x[:, 0])
    wanted = torch.stack([by_hand(made, x[n], t) for n, t in enumerate(rows)])
    torch.testing.assert_close(mixed.double(), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(two_d, mixed[:, 0], rtol=1e-5, atol=1e-5)


def test_it_starts_as_identity_for_every_task(skilled: Make, tiny: Any, tokens: Any) -> None:
    before = tiny.logits(tiny.make_model(), tokens)
    wrapped = skilled(noise=0)
    for task in range(3):
        with tasks(wrapped, task):
            assert torch.equal(tiny.logits(wrapped, tokens), before)
    with tasks(wrapped, torch.tensor([0, 2])):
        twice = tiny.logits(wrapped, tokens.repeat(2, 1))
    torch.testing.assert_close(twice, before.expand(2, -1, -1))


def test_starting_values() -> None:
    made = CPolyLinear(nn.Linear(64, 8), config(rank=8), Routing(), 0, seed=1)
    found = made.tensors()
    assert {n: tuple(t.shape) for n, t in found.items()} == {
        "common_a": (3, 8, 64), "common_b": (3, 8, 8), "private_a": (3, 1, 8, 64),
        "private_b": (3, 1, 8, 8), "logits_common": (3, 3), "logits_private": (3, 1),
    }  # fmt: skip
    assert not made.common_b.any()
    assert not made.private_b.any()
    reference = torch.empty(8, 64)
    nn.init.kaiming_uniform_(reference, a=5**0.5)
    for name in ("common_a", "private_a"):
        assert found[name].abs().max() <= 1 / 8
        assert abs(float(found[name].detach().std()) - float(reference.std())) < 0.01
    logits = torch.cat([made.logits_common, made.logits_private], dim=1)
    assert 0 < logits.abs().max() <= 1e-3


def test_only_skills_and_logits_learn_under_names_the_optimiser_knows(skilled: Make) -> None:
    wrapped = skilled()
    names = [n for n, p in wrapped.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 7 * 6  # two blocks, seven linear layers, six tensors
    assert sum(".logits_" in name for name in names) == 2 * 7 * 2
    assert "inner.model.layers.0.self_attn.q_proj.private_b" in names
    assert not any("noise" in name for name in wrapped.state_dict())


def poly(base: nn.Linear, skills: int, n_tasks: int, rank: int) -> Any:
    from peft import PolyConfig
    from peft.tuners.poly.layer import Linear

    settings = PolyConfig(r=rank, n_tasks=n_tasks, n_skills=skills, n_splits=1, init_weights=False)
    return Linear(base, "default", settings).eval()


def copy_into(made: CPolyLinear, reference: Any) -> None:
    made.common_a.data = reference.poly_lora_A["default"][0].mT.clone()
    made.common_b.data = reference.poly_lora_B["default"][0].mT.clone()
    made.logits_common.data = reference.poly_router["default"].module_logits.clone()


@pytest.mark.parametrize("skills", [1, 4])
def test_without_private_skills_it_is_pefts_poly_where_the_forms_coincide(skills: int) -> None:
    """One skill, or one skill a task: summing factors and summing products are then the same."""
    torch.manual_seed(0)
    reference = poly(nn.Linear(6, 5), skills, n_tasks=3, rank=2)
    if skills > 1:
        chosen = torch.tensor([2, 0, 3])
        reference.poly_router["default"].module_logits.data = (
            nn.functional.one_hot(chosen, skills) * 80.0 - 40.0
        )
    made = layer(inputs=6, outputs=5, common=skills, private=0, rank=2, alpha=1)
    made.base_layer.load_state_dict(reference.base_layer.state_dict())
    copy_into(made, reference)
    x, ids = torch.randn(3, 4, 6), torch.tensor([0, 1, 2])
    wanted = reference(x, task_ids=ids)
    with made.routing.hold(Active(None, ids)):
        torch.testing.assert_close(made(x), wanted)
    for task in range(3):
        with made.routing.hold(Active(task)):
            torch.testing.assert_close(made(x[task]), wanted[task])


def test_with_soft_routing_products_are_summed_and_not_factors() -> None:
    torch.manual_seed(0)
    reference = poly(nn.Linear(6, 5), 4, n_tasks=3, rank=2)
    made = layer(inputs=6, outputs=5, common=4, private=0, rank=2, alpha=1)
    made.base_layer.load_state_dict(reference.base_layer.state_dict())
    copy_into(made, reference)
    x = torch.randn(1, 4, 6)
    with made.routing.hold(Active(0)):
        got = made(x)
    assert (got - reference(x, task_ids=torch.tensor([0]))).abs().max() > 1e-2
    torch.testing.assert_close(got[0].double(), by_hand(made, x[0], 0), rtol=1e-5, atol=1e-5)


def test_private_skills_alone_are_independent_loras(tiny: Any, tokens: Any, skilled: Make) -> None:
    wrapped = skilled(common=0, private=1, rank=4, alpha=8)
    for task in range(3):
        one = add_lora(tiny.make_model(), Lora(rank=4, alpha=8, dropout=0.0), seed=0)
        for name, skill in wrapped.layers().items():
            lora: Any = one.base_model.model.get_submodule(name)
            lora.lora_A["default"].weight.data = skill.private_a[task, 0]
            lora.lora_B["default"].weight.data = skill.private_b[task, 0]
        with tasks(wrapped, task):
            got = tiny.logits(wrapped, tokens)
        torch.testing.assert_close(got, tiny.logits(one.eval(), tokens), rtol=0, atol=1e-5)


def test_the_sample_is_a_relaxed_bernoulli() -> None:
    """Half of the samples above 1/2 at z = 0; sigmoid(z) of them above 1/2 elsewhere."""
    made = CPolyLinear(
        nn.Linear(2, 2), config(tasks=tuple(map(str, range(4000))), common=2), Routing(), 0, 0
    )
    made.draw(3)
    for z in (0.0, 1.5):
        ones = (z + made.noise).sigmoid() > 0.5
        assert abs(float(ones.float().mean()) - float(torch.tensor(z).sigmoid())) < 0.02
    weights = skill_weights(made.config, made.logits_common, made.logits_private, made.noise)
    sampled = torch.sigmoid(made.logits_common + made.noise)
    whole = torch.cat([sampled, torch.sigmoid(made.logits_private)], dim=1)
    torch.testing.assert_close(weights, whole / whole.sum(-1, keepdim=True))


def test_weights_stay_finite_at_logits_far_out() -> None:
    far = torch.tensor([-300.0, -200.0])
    weights = skill_weights(config(common=2, private=0), far, None)
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0]))


def test_generating_works_below(skilled: Make, tokens: Any) -> None:
    wrapped = skilled()
    with tasks(wrapped, "choice"):
        one = wrapped.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=2)
    merged = wrapped.unwrap("choice")
    other = merged.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=2)
    assert torch.equal(one, other)


def test_it_compiles_whole(skilled: Make) -> None:
    made = layer()
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    x = torch.randn(2, 3, 5)
    actives = [Active(0), Active(1), Active(None, torch.tensor([2, 0])), Active(0)]
    for active in actives:
        with made.routing.hold(active):
            torch.testing.assert_close(compiled(x), made(x))


def test_targets_are_matched_like_pefts(skilled: Make, tiny: Any) -> None:
    wrapped = skilled(target_modules=("v_proj", "layers.1.self_attn.q_proj"))
    assert list(wrapped.layers()) == [
        "model.layers.0.self_attn.v_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
    ]
    assert len(skilled(target_modules=r".*\.0\..*proj").layers()) == 7
    assert "lm_head" not in skilled().layers()
    with pytest.raises(UserError, match=r"matches 'qproj'; allowed: all-linear, .*'q_proj'"):
        skilled(target_modules=("qproj",))
    with pytest.raises(UserError, match="mlp is a LlamaMLP, and C-Poly sits on"):
        skilled(target_modules=("mlp",))
    with pytest.raises(ValueError, match="carries C-Poly skills already"):
        CPolyModel(wrapped.inner, config(), 0)


def test_conv1d_is_refused_clearly() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=11, n_positions=8))
    with pytest.raises(UserError, match=r"attn\.c_attn is a Conv1D, and C-Poly sits on"):
        CPolyModel(model, config(target_modules="all-linear"), 0)
    assert all(p.requires_grad for p in model.parameters())


def test_the_table_makes_it_from_the_stage(tiny: Any) -> None:
    stage = Stage(method="cpoly", cpoly=CPoly(rank=4, alpha=8, common=2, private=2, dropout=0.1))
    made = ADAPTERS["cpoly"](tiny.make_model(), stage, 5, tasks=("x", "y"))
    assert (made.cpoly.tasks, made.cpoly.rank, made.cpoly.skills) == (("x", "y"), 4, 4)
    assert made.cpoly.target_modules == (
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    )  # fmt: skip
    same = ADAPTERS["cpoly"](tiny.make_model(), stage, 5, tasks=("x", "y"))
    other = ADAPTERS["cpoly"](tiny.make_model(), stage, 6, tasks=("x", "y"))
    pairs = zip(made.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    name = "inner.model.layers.1.mlp.up_proj.common_a"
    assert not torch.equal(made.state_dict()[name], other.state_dict()[name])
    with pytest.raises(UserError, match="cpoly: C-Poly needs at least one task"):
        ADAPTERS["cpoly"](tiny.make_model(), stage, 5)
    with pytest.raises(UserError, match="task names must differ and not be empty: x, x"):
        ADAPTERS["cpoly"](tiny.make_model(), stage, 5, tasks=("x", "x"))


def test_a_new_task_starts_from_what_the_others_share(
    skilled: Make, tiny: Any, tokens: Any
) -> None:
    wrapped = skilled()
    before = []
    for task in range(3):
        with tasks(wrapped, task):
            before.append(tiny.logits(wrapped, tokens))
    old = {n: {k: v.clone() for k, v in m.tensors().items()} for n, m in wrapped.layers().items()}
    wrapped.add_task("dialogue", seed=4)
    for name, made in wrapped.layers().items():
        for kind in ("logits_common", "logits_private"):
            torch.testing.assert_close(getattr(made, kind)[3], old[name][kind].mean(0))
        assert not made.private_b[3].any()
        assert made.private_a[3].any()
        assert not torch.equal(made.private_a[3], made.private_a[2])
    for task, wanted in enumerate(before):
        with tasks(wrapped, task):
            assert torch.equal(tiny.logits(wrapped, tokens), wanted)
    wrapped.train()
    begin_step(wrapped, 1)
    with tasks(wrapped, "dialogue"):
        wrapped(tokens).logits.mean().backward()
    assert next(iter(wrapped.layers().values())).private_b.grad[3].any()
    with pytest.raises(UserError, match="there is a task 'dialogue' already"):
        wrapped.add_task("dialogue")


def test_routing_facts(skilled: Make) -> None:
    wrapped = skilled(noise=0)
    found = routing_facts(wrapped)
    assert set(found["entropy"]) == {"direct", "verify", "choice"}
    assert all(value > 0.9999 for value in found["entropy"].values())
    # Four weights of 1/4, three of them shared: 3/16 over 4/16.
    assert found["similarity"]["direct|verify"] == pytest.approx(0.75, abs=1e-3)
    with torch.no_grad():
        for made in wrapped.layers().values():
            made.logits_common[0] = torch.tensor([40.0, -40.0, -40.0])
            made.logits_private[0] = -40.0
            made.logits_common[1] = torch.tensor([-40.0, 40.0, -40.0])
            made.logits_private[1] = -40.0
    found = routing_facts(wrapped)
    assert found["entropy"]["direct"] < 1e-6
    assert found["similarity"]["direct|verify"] < 1e-6
