"""Shared fixtures: tiny random models, and the real data where it is present."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real published data: MEDEXPERT_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("MEDEXPERT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "stage3" / "pubmedqa" / "ori_pqal.json").is_file():
        pytest.skip(f"no real data at {folder} (set MEDEXPERT_DATA)")
    return folder


@pytest.fixture
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
