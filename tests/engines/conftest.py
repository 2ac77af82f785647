"""A tiny random Llama and a byte-level tokenizer in which " yes", " no" are single tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_tokenizer(*, adds_bos: bool = False) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # Merges that build " yes" and " no" from bytes; " maybe" stays six tokens.
    merges = [("e", "s"), ("y", "es"), ("Ġ", "yes"), ("n", "o"), ("Ġ", "no"), ("a", "b")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*SPECIAL, *alphabet, *(a + b for a, b in merges)]
    inner = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if adds_bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    )


def enlarge(model: Any) -> Any:
    """The model with weights large enough for differences to show."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    return model


@pytest.fixture
def parts(tiny_model: Callable[..., Any]) -> Callable[..., SimpleNamespace]:
    """(model, tokenizer) whose weights are large enough for differences to show."""

    def make(*, adds_bos: bool = False, **changes: Any) -> SimpleNamespace:
        tokenizer = make_tokenizer(adds_bos=adds_bos)
        settings = {
            "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        }  # fmt: skip
        model = enlarge(tiny_model(**{**settings, **changes}))
        return SimpleNamespace(model=model, tokenizer=tokenizer)

    return make


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Any]) -> Path:
    """The same model as a folder, with values that float16 holds exactly."""
    import torch

    tokenizer = make_tokenizer()
    model = enlarge(
        tiny_model(
            vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=2,
            max_position_embeddings=1024,
        )
    )  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half().float())
    folder = tmp_path_factory.mktemp("model") / "small"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def open_openvino(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that opens `model_folder` with OpenVINO in float32; skips where it is absent."""
    pytest.importorskip("openvino_genai", reason="openvino-genai is not installed")
    from medexpert.engines.openvino import OpenVINOEngine

    cache = tmp_path_factory.mktemp("cache")

    def make(**options: Any) -> OpenVINOEngine:
        settings = {"dtype": "float32", "cache_gb": 0.01, "threads": 1, "cache": cache}
        return OpenVINOEngine.open(model_folder, **{**settings, **options})

    return make


@pytest.fixture
def engine(parts: Callable[..., SimpleNamespace]) -> Any:
    from medexpert.engines.local import LocalEngine

    made = parts()
    return LocalEngine(made.model, made.tokenizer, name="tiny", batch_tokens=64)
