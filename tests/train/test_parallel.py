"""Several processes give what one gives: losses, norms, weights, checkpoints of any count.

Run as a script this file is one world of processes: `test_parallel.py RANKS FOLDER CASE ...`; it
writes what rank 0 saw to FOLDER/CASE.json. The tests compare that with one process, run here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worlds
from medexpert.model.adapters.lora import add_lora
from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train import parallel
from medexpert.train.batches import IGNORE, Batch, Piece, collate
from medexpert.train.objectives import Learner
from medexpert.train.optim import Weights, adamw
from medexpert.train.parallel import World, agree, barrier, hold, sum_over
from medexpert.train.state import Checkpointer, Progress

ALONE = World(0, 1, 0, torch.device("cpu"))
STEPS, HALF, ROWS, LENGTH, VOCABULARY = 4, 2, 6, 20, 97
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "replicate": {"sharding": "replicate"},
    "untied": {},
    "recompute": {"recompute": True},
    "frozen": {},
    "lora": {"method": "lora", "lora": {"rank": 2, "dropout": 0.0}},
    "lora_replicate": {
        "method": "lora", "sharding": "replicate", "lora": {"rank": 2, "dropout": 0.0}
    },
}  # fmt: skip
FAST = ("full", "replicate", "lora")


def settings(case: str) -> Stage:
    return Stage(dtype="float32", learning_rate=1e-2, clip=0.5, **CASES[case])


def learner(case: str) -> Learner:
    """A random Llama of a few thousand weights; 97 rows of embeddings split unevenly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            tie_word_embeddings=case != "untied",
        )
    )  # fmt: skip
    if case == "frozen":
        model.get_input_embeddings().requires_grad_(False)
        model.model.layers[0].requires_grad_(False)
        model.model.layers[1].mlp.up_proj.requires_grad_(False)
    if case.startswith("lora"):
        model = add_lora(model, settings(case).lora, 0)
    return Learner(model, VOCABULARY).train()


def rows(step: int) -> list[Piece]:
    """Rows of one step, with unlike numbers of targets."""
    rng = np.random.default_rng(step)
    pieces = []
    for number in range(ROWS):
        ids = rng.integers(0, VOCABULARY, LENGTH + 1).astype(np.int32)
        targets = ids[1:].copy()
        targets[: 3 * number] = IGNORE
        pieces.append(Piece(ids[:-1], targets))
    return pieces


def dealt(step: int, world: World) -> list[Batch]:
    """This process's rows; a row without targets where it has one fewer than the others."""
    pieces = rows(step)[world.rank :: world.size]
    idle = Piece(rows(step)[0].inputs, np.full(LENGTH, IGNORE, dtype=np.int32))
    pieces += [idle] * (-(-ROWS // world.size) - len(pieces))
    return [collate([[piece]], 0) for piece in pieces]


class Training:
    """A training of `case` that can stop and go on; `seen` is [loss, gradient norm] a step."""

    def __init__(self, case: str, world: World, folder: Path) -> None:
        self.world, self.stage = world, settings(case)
        self.learner = learner(case)
        self.weights: Weights = hold(self.learner, self.stage, world)
        self.optimizer = adamw(self.weights, self.stage)
        self.checkpoints = Checkpointer(folder, "key", self.weights, self.optimizer, world)
        self.at = Progress()
        self.seen: list[list[float]] = []

    def step(self) -> None:
        total = sum(int((piece.targets != IGNORE).sum()) for piece in rows(self.at.step))
        mine = 0.0
        for batch in dealt(self.at.step, self.world):
            loss = self.learner(batch, 1.0 / total)
            loss.backward()
            mine += float(loss.detach())
        norm = self.weights.clip(self.stage.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.weights.publish()
        self.at.step += 1
        self.seen.append([*sum_over(self.world, mine), norm])

    def to(self, step: int) -> Training:
        while self.at.step < step:
            self.step()
        return self


def plain_logits(training: Training) -> float:
    with training.weights.whole() as model, torch.no_grad():
        ids = torch.arange(8)[None]
        return float(model(input_ids=ids, use_cache=False).logits.double().square().sum())


def one_world(case: str, world: World, folder: Path) -> dict[str, Any]:
    """What a world of processes finds about `case`; everything it writes is in `folder`."""
    own = folder / f"{case}-by-{world.size}"
    training = Training(case, world, own).to(HALF)
    training.checkpoints.save(training.at)
    training.to(STEPS)
    training.checkpoints.wait()
    weights = training.weights.gather()
    logits = plain_logits(training)
    again = Training(case, world, own)
    again.at = again.checkpoints.restore()
    again.to(STEPS)
    same = again.weights.gather()
    found: dict[str, Any] = {
        "holder": type(training.weights).__name__,
        "seen": training.seen,
        "resumed": again.seen,
        "same_bits": all(torch.equal(same[name], weights[name]) for name in weights),
        "weights": {name: tensor.double().sum().item() for name, tensor in weights.items()},
        "logits": logits,
        "agreed": [agree(world, world.rank == world.size - 1), agree(world, False)],
    }
    for written in sorted(folder.glob(f"{case}-by-*")):  # by other numbers of processes
        if written != own:
            other = Training(case, world, written)
            other.at = other.checkpoints.restore()
            assert other.at.step == HALF
            found["from by-" + written.name.split("-")[-1]] = other.to(STEPS).seen
    released = training.weights.release()
    if released is not None:
        with torch.no_grad():
            out: Any = released(input_ids=torch.arange(8)[None], use_cache=False)
        found["released"] = float(out.logits.double().square().sum())
    barrier(world)
    return found


def _seen(world: World, folder: Path, cases: list[str]) -> None:
    for case in cases:
        found = one_world(case, world, folder)
        if world.first:
            (folder / f"{case}.json").write_text(json.dumps(found))


def launch(size: int, folder: Path, *cases: str) -> dict[str, Any]:
    """Run `cases` in a world of `size` processes; what rank 0 saw of each."""
    worlds.launch(__file__, str(size), str(folder), *cases)
    return {case: json.loads((folder / f"{case}.json").read_text()) for case in cases}


def alone(case: str, folder: Path) -> Training:
    """One process, with a checkpoint written half-way for the others to continue."""
    training = Training(case, ALONE, folder / f"{case}-by-1").to(HALF)
    training.checkpoints.save(training.at)
    training.to(STEPS)
    training.checkpoints.wait()
    return training


def compare(case: str, one: Training, found: dict[str, Any]) -> None:
    close = {"rel": 2e-6, "abs": 1e-7}
    for mine, theirs in zip(one.seen, found["seen"], strict=True):
        assert theirs == pytest.approx(mine, **close)
    assert found["same_bits"]
    assert found["resumed"] == found["seen"][HALF:]
    sums = {name: t.double().sum().item() for name, t in one.weights.gather().items()}
    assert found["weights"] == pytest.approx(sums, rel=1e-5, abs=1e-5)
    assert found["logits"] == pytest.approx(plain_logits(one), rel=1e-5)
    assert found["released"] == pytest.approx(found["logits"], rel=1e-6)
    assert found["agreed"] == [True, False]
    for name, seen in found.items():
        if name.startswith("from by"):
            for mine, theirs in zip(one.seen[HALF:], seen, strict=True):
                assert theirs == pytest.approx(mine, **close)


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    ones = {case: alone(case, tmp_path) for case in FAST}
    found = launch(2, tmp_path, *FAST)
    for case in FAST:
        assert "from by-1" in found[case]
        compare(case, ones[case], found[case])
    assert {case: found[case]["holder"] for case in FAST} == {
        "full": "Sharded", "replicate": "Masters", "lora": "Adapted"
    }  # fmt: skip
    # And back: one process continues what two have written.
    for case in FAST:
        back = Training(case, ALONE, tmp_path / f"{case}-by-2")
        back.at = back.checkpoints.restore()
        for mine, theirs in zip(back.to(STEPS).seen, ones[case].seen[HALF:], strict=True):
            assert mine == pytest.approx(theirs, rel=2e-6, abs=1e-7)


@pytest.mark.slow
def test_four_processes_and_back_to_two(tmp_path: Path) -> None:
    cases = list(CASES)
    ones = {case: alone(case, tmp_path) for case in cases}
    for size, others in ((2, ["from by-1"]), (4, ["from by-1", "from by-2"]), (2, ["from by-4"])):
        found = launch(size, tmp_path, *cases)
        for case in cases:
            assert set(others) <= set(found[case])
            compare(case, ones[case], found[case])


def test_recompute_changes_nothing(tmp_path: Path) -> None:
    plain = Training("full", ALONE, tmp_path).to(HALF)
    again = Training("recompute", ALONE, tmp_path).to(HALF)
    assert plain.seen == again.seen
    assert all(torch.equal(t, again.weights.master[n]) for n, t in plain.weights.master.items())


def test_recompute_keeps_dropout_and_context() -> None:
    """The second forward draws the same dropout and sees the context variables of the first."""
    import contextvars

    task = contextvars.ContextVar("task", default=0)
    read: list[int] = []

    class Layer(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            read.append(task.get())
            return torch.nn.functional.dropout(super().forward(x), 0.5)

    torch.manual_seed(0)
    model: Any = torch.nn.Module()
    model.layers = torch.nn.ModuleList([Layer(8, 8)])
    x = torch.randn(4, 8)

    def gradient() -> torch.Tensor:
        torch.manual_seed(1)
        token = task.set(7)
        out = model.layers[0](x)
        task.reset(token)
        model.layers[0].weight.grad = None
        out.sum().backward()
        found: torch.Tensor = model.layers[0].weight.grad
        return found

    kept = gradient()
    parallel.recompute(model, keep_context=True)
    assert torch.equal(gradient(), kept)
    assert read == [7, 7, 7]  # once kept; there and back when made again


def test_nothing_trainable_is_an_error() -> None:
    still = learner("full").requires_grad_(False)
    with pytest.raises(UserError, match="no parameter is trainable"):
        hold(still, settings("full"), ALONE)


def test_a_twin_is_plain_tied_and_empty_between_uses() -> None:
    model: Any = learner("full").model.eval()
    twin = parallel.Twin(model)
    assert all(p.is_meta for p in twin.model.parameters())
    filled: Any = twin.fill({name: p.detach() for name, p in model.named_parameters()})
    assert filled.lm_head.weight is filled.model.embed_tokens.weight
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(filled(input_ids=ids).logits, model(input_ids=ids).logits)
    twin.clear()
    assert all(p.is_meta for p in twin.model.parameters())


if __name__ == "__main__":
    torch.set_num_threads(1)
    learner("lora")  # transformers and peft are loaded once, before there are many processes
    worlds.run(int(sys.argv[1]), _seen, Path(sys.argv[2]), sys.argv[3:])
