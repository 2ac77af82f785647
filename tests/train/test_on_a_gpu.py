"""Stages and questions on a simulated GPU: nothing that lies beside it is mixed in.

With `-m gpu` the same on a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medexpert import manifest
from medexpert.engines.local import LocalEngine
from medexpert.model import base
from medexpert.recipe import load
from medexpert.records import Example, to_json
from medexpert.train.stage import run_stage
from simulated_gpu import simulated_gpu


def test_tensors_of_two_places_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated_gpu(monkeypatch) as on_gpu:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert (here.device.type, there.device.type) == ("cpu", "cuda")
        assert on_gpu(there * 2 + torch.tensor(1.0))
        with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
            here + there
        assert not on_gpu(there.cpu())
        layer = torch.nn.Linear(3, 2).to("cuda")
        layer(there).sum().backward()
        assert layer.weight.grad is not None
        assert on_gpu(layer.weight.grad)
        with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
            layer(here)
    assert torch.ones(1).device.type == "cpu"


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[torch.Tensor], bool]]:
    """What tells whether a tensor is on it."""
    if request.param == "real":
        yield lambda tensor: tensor.is_cuda
    else:
        with simulated_gpu(monkeypatch) as on_gpu:
            yield on_gpu


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dozen questions, each with an answer that is not wanted."""
    path = tmp_path / "adapt.jsonl"
    fields = {
        "question": "Does it help?", "contexts": ["It helped nine of ten."], "answer": "yes",
        "rejected": "no",
    }  # fmt: skip
    rows = [Example(str(n), "s", "task", "pubmedqa.lm_eval", fields) for n in range(12)]
    path.write_text("".join(to_json(row) + "\n" for row in rows))
    facts = {"quarantined": True, "quarantine": {"pubmedqa": {}}}
    manifest.write_manifest(tmp_path, key="d", files=[path], facts=facts)
    return path


SETTINGS: dict[str, list[str]] = {
    "full": ['adapt.method="full"'],
    "lora": [
        'adapt.method="lora"',
        "adapt.micro_rows=2",
        "adapt.rows_per_step=2",
        "adapt.epochs=3",
    ],
    "dora": ['adapt.method="dora"'],
    "cpoly": ['adapt.method="cpoly"'],
    "prefix": ['adapt.attention="prefix"', 'adapt.method="full"', 'adapt.freeze=["*.layers.0.*"]'],
    "pairs": ['adapt.objective="preference"'],
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_stage(
    kind: str, recipe: Callable[..., Path], base_model: Path, data: Path, tmp_path: Path,
    gpu: Callable[[torch.Tensor], bool],
) -> None:  # fmt: skip
    lines = [
        "adapt.epochs=1", "adapt.sequence_length=256", "adapt.checkpoint_every=2", *SETTINGS[kind],
        'adapt.meter.select="accuracy"',
    ]  # fmt: skip
    seen: list[Any] = []

    def dev(model: Any, tokenizer: Any) -> dict[str, float]:
        engine = LocalEngine(model, tokenizer)
        found = engine.choice_logprobs(["Does it help? Answer:"], [" yes", " no"])
        seen.append((engine.facts()["device"], len(found[0])))
        return {"accuracy": 0.5, "macro_f1": 0.5, "log_loss": 1.0}

    folder = tmp_path / "run" / "adapt"
    facts = run_stage(
        load(recipe(), lines), "adapt", parent=base_model, data=data, folder=folder, key="k",
        say=lambda _: None, dev=dev,
    )  # fmt: skip
    assert gpu(next(LocalEngine.open(folder / "model").model.parameters()))
    assert facts["steps"] > 1
    assert {place for place, _ in seen} == {"cuda"}


def opened(folder: Path, reading: str, device: str | None = None) -> LocalEngine:
    model, tokenizer = base.load(folder, dtype=torch.float32, device=device)
    return LocalEngine(model, tokenizer, lineage={"attention": reading})


@pytest.mark.parametrize("reading", ["causal", "prefix"])
def test_questions(reading: str, base_model: Path, gpu: Callable[[torch.Tensor], bool]) -> None:
    choices = [" yes", " no", " maybe it does"]
    prompts = ["Does it help? Answer:", "It helped nine of ten. " * 8 + "Does it? Answer:"]
    prompts.append(prompts[1].replace("Does", "Did"))
    engine, reference = opened(base_model, reading), opened(base_model, reading, "cpu")
    assert gpu(next(engine.model.parameters()))
    assert engine.facts()["device"] == "cuda"
    assert engine.facts()["sharing"].startswith("exact")
    scored = [torch.tensor(e.choice_logprobs(prompts, choices)) for e in (engine, reference)]
    torch.testing.assert_close(*scored, rtol=0, atol=1e-3)
    written = [[c.text for c in e.complete(prompts, max_tokens=6)] for e in (engine, reference)]
    assert written[0] == written[1]
    drawn = [
        engine.complete(asked, max_tokens=6, temperature=0.8, top_p=0.9, seed=3)
        for asked in (prompts, prompts[1:], prompts)
    ]
    assert drawn[0] == drawn[2]
    assert drawn[0][1:] == drawn[1]  # whatever is asked beside
    assert [t.tokens for t in engine.text_logprobs(prompts)] == [
        t.tokens for t in reference.text_logprobs(prompts)
    ]
