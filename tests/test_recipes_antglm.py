"""The recipes of the paper's set-up: they load, they pass the check, their stages run.

Checked and run with a tiny random model of the same architecture and with the starter data; every
setting of the stages is the recipe's own, except where `SMALL` says otherwise (dry run).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert import check as checks
from medexpert.data.build.use import check_use
from medexpert.data.catalogue import find
from medexpert.recipe import Run, load
from medexpert.train import forecast

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"glm-4-9b": "Glm4", "qwen3-8b": "Qwen3"}
DATA = (
    "data.root=''",
    "data.quarantine=['pubmedqa']",
    "data.knowledge=[{source='starter-passages-en', heldout=6}, "
    "{source='starter-passages-zh', heldout=4}, "
    "{source='starter-general-en', role='replay', heldout=4}]",
    "data.instruct=[{source='starter-qa-en', limit=24}, {source='starter-reasoning-en', limit=8}, "
    "{source='starter-mcq-en', limit=16}, {source='starter-conversations-en', limit=4}]",
    "data.adapt=[{source='trialgen', limit=16}, {source='starter-mcq-en', limit=16}]",
    "evaluate.task=trialgen",
    "evaluate.limit=6",
    "evaluate.strategies=['direct']",
)
SMALL = (
    "threads=1",
    "processes=2",
    "knowledge.max_tokens=6000",
    "knowledge.sequence_length=256",
    "knowledge.rows_per_step=4",
    "instruct.epochs=1.0",
    "instruct.sequence_length=1024",
    "instruct.rows_per_step=4",
    "adapt.epochs=1.0",
    "adapt.sequence_length=1024",
    "adapt.rows_per_step=4",
    "adapt.meter.select=last",  # trialgen has no dev fold
)


def recipe_file(name: str) -> Path:
    return ROOT / "recipes" / "antglm-med" / f"{name}.toml"


@pytest.fixture
def tiny(tmp_path: Path, base_model: Path) -> Callable[[str], Path]:
    """A random two-layer model of a real architecture, with the tokenizer of `base_model`."""

    def make(kind: str) -> Path:
        import torch
        import transformers
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base_model)
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8,
            max_position_embeddings=4096, tie_word_embeddings=False,
            bos_token_id=1, eos_token_id=2, pad_token_id=2,
        )  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        assert type(model).__name__ == f"{kind}ForCausalLM"
        folder = tmp_path / kind
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_the_papers_set_up(name: str) -> None:
    run = load(recipe_file(name))
    assert run.processes == 8
    assert [run.stage(s).method for s in run.stages()] == ["full", "lora", "cpoly"]
    infill = run.knowledge.infill
    assert (1 - infill.total, infill.suffix, infill.words, infill.sentences, infill.anneal) == (
        pytest.approx(0.5), 0.3, 0.15, 0.05, 0.2,
    )  # fmt: skip
    assert run.knowledge.max_tokens == 15_390_000_000
    assert run.evaluate.task == "pubmedqa"
    assert (run.evaluate.protocol, run.evaluate.limit) == ("reasoning-required", 0)
    for stage in run.stages():
        rows = run.stage(stage).rows_per_step
        assert rows % run.processes == 0, "every process has the same number of rows"


@pytest.mark.parametrize("name", RECIPES)
def test_every_source_exists_and_fits_its_stage(name: str) -> None:
    run = load(recipe_file(name))
    languages = set()
    for stage in run.stages():
        for source in run.sources(stage):
            entry = find(source.source)
            check_use(stage, source, entry)
            languages.update(entry.lang.split(", "))
    assert {"en", "zh"} <= languages
    weights = [s.weight for s in run.data.knowledge if s.role == "train"]
    assert sum(weights) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "kind"), RECIPES.items())
def test_the_check_passes_with_the_same_architecture(
    name: str, kind: str, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(forecast, "matmul_rate", lambda dtype, threads: 1e12)
    overrides = [*DATA, f"base.model='{tiny(kind)}'", f"output='{tmp_path / 'run'}'"]
    run = load(recipe_file(name), overrides)
    assert stages_of(run) == stages_of(load(recipe_file(name)))
    text = checks.check(run, lambda line: None)
    assert text.endswith("no problem found")


def stages_of(run: Run) -> list[Any]:
    return [run.stage(name) for name in run.stages()]


def medexpert(*arguments: str, launcher: tuple[str, ...] = ()) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "medexpert", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), RECIPES.items())
def test_a_dry_run_of_all_stages_on_two_processes(
    name: str, kind: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    root = tmp_path / "run"
    settings = [*DATA, *SMALL, f"base.model='{tiny(kind)}'", f"output='{root}'"]
    given = [part for setting in settings for part in ("--set", setting)]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    medexpert("data", str(recipe_file(name)), *given)
    for stage in ("knowledge", "instruct", "adapt"):
        medexpert("train", stage, str(recipe_file(name)), *given, launcher=torchrun)
        facts = json.loads((root / stage / "manifest.json").read_text())
        assert facts["steps"] > 1
        assert facts["settings"]["method"] == load(recipe_file(name)).stage(stage).method  # type: ignore[arg-type]
        events = (root / stage / "log.jsonl").read_text().splitlines()
        losses = [e["loss"] for e in map(json.loads, events) if e["event"] == "step"]
        assert len(losses) == facts["steps"], "one process writes the log"
        assert all(0 < loss < 20 for loss in losses)
        assert (root / stage / "model" / "model.safetensors").is_file()
