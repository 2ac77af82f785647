"""A tiny random Llama and a byte-level tokenizer in which " yes", " no" are single tokens."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.fixture
def parts(tiny_model: Callable[..., Any]) -> Callable[..., SimpleNamespace]:
    """(model, tokenizer) whose weights are large enough for differences to show."""

    def make(*, adds_bos: bool = False, **changes: Any) -> SimpleNamespace:
        import torch

        tokenizer = make_tokenizer(adds_bos=adds_bos)
        settings = {
            "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        }  # fmt: skip
        model = tiny_model(**{**settings, **changes})
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(7)
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(0, 0.3)
        return SimpleNamespace(model=model, tokenizer=tokenizer)

    return make


@pytest.fixture
def engine(parts: Callable[..., SimpleNamespace]) -> Any:
    from medexpert.engines.local import LocalEngine

    made = parts()
    return LocalEngine(made.model, made.tokenizer, name="tiny", batch_tokens=64)
