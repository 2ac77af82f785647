"""Shared fixtures: tiny random models, a recipe for them, and the real data where present."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import tiny
from tiny import RECIPE

ROOT = Path(__file__).resolve().parents[1]
# No deadline: how long an example takes says more of the machine's load than of the code.
hypothesis.settings.register_profile("medexpert", deadline=None)
hypothesis.settings.load_profile("medexpert")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real published data: MEDEXPERT_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("MEDEXPERT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "stage3" / "pubmedqa" / "ori_pqal.json").is_file():
        pytest.skip(f"no real data at {folder} (set MEDEXPERT_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """A function that makes a random Llama of a few thousand weights (CPU, fp32, sdpa)."""

    def make(seed: int = 0, **changes: Any) -> Any:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        settings: dict[str, Any] = {
            "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        }  # fmt: skip
        return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()

    return make


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a byte-level tokenizer trained on the starter data."""
    return tiny.base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def recipe(tmp_path: Path, base_model: Path) -> Callable[..., Path]:
    """A function that writes the tiny recipe with its run folder at tmp_path/NAME."""

    def write(name: str = "run", text: str = RECIPE) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(text.format(run=tmp_path / name, base=base_model))
        return path

    return write
