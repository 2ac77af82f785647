"""The cost model against recorded and real runs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medexpert.recipe import STAGES, load
from medexpert.train import forecast
from medexpert.train.cost import PROCESS, Shape, shape_of
from medexpert.train.forecast import SHARE_HERE, Machine

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "results" / "pubmedqa-smollm2-135m-cpu"
RATE = {"bfloat16": 303e9, "float32": 106e9}
"""Matmul rate of the machine of that run (docs/log.md, Training speed)."""
THEN = {"full": 0.40, "adapter": 0.21}
"""Share of it that the loop of version 0.1 reached, not compiled."""
BENCHMARK = ROOT / "results" / "train-benchmark"


def smollm2() -> Shape:
    """SmolLM2-135M on the meta device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        return shape_of(LlamaForCausalLM(config))


def test_the_recorded_run_is_foretold_within_a_third() -> None:
    recipe = load(RECORDED / "recipe.json")
    machine = Machine("then", 1, 1, RATE, THEN, 1.0, 25e9, PROCESS)
    shape = smollm2()
    for name in STAGES:
        found = forecast.compare_stage(RECORDED / name, name, recipe.stage(name), shape, machine)
        assert abs(found["tokens_per_second_error"]) < 0.33, name
        kind = "full" if recipe.stage(name).method == "full" else "adapter"
        assert found["matmul_share"] == pytest.approx(THEN[kind], rel=0.25), name


@pytest.mark.parametrize(("kind", "system"), [("full", "ours-full"), ("adapter", "ours-lora")])
def test_the_share_of_a_cpu_is_the_benchmarks(kind: str, system: str) -> None:
    (file,) = BENCHMARK.glob("cpu-*.jsonl")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    shares = [
        row["flops"] * row["tokens_per_step"] * len(row["seconds"]) / sum(row["seconds"])
        / statistics.mean(row["matmul"])
        for row in rows if row.get("system") == system
    ]  # fmt: skip
    assert len(shares) >= 5
    assert SHARE_HERE[kind] == pytest.approx(statistics.median(shares), rel=0.1)


@pytest.mark.slow
def test_the_command_compares_a_finished_run(trained: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medexpert.train.forecast", str(trained)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"knowledge"}
    assert found["knowledge"]["tokens_error"] == 0
    # A model of some thousand weights is all overhead: only the process itself weighs.
    assert abs(found["knowledge"]["memory_error"]) < 0.5


@pytest.fixture
def trained(recipe: object, tmp_path: Path) -> Path:
    """A run folder with its first stage trained, by the command line."""
    path = recipe()  # type: ignore[operator]
    for verb in (["data"], ["train", "knowledge"]):
        done = subprocess.run(
            [sys.executable, "-m", "medexpert", *verb, str(path)],
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return tmp_path / "run"
