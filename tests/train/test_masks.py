"""The prefix mask: against its written rule, against separate runs, on five architectures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medexpert.model.attention import check_prefix, prefix_mask, visible, windows
from medexpert.records import UserError
from medexpert.train.batches import IGNORE, Batch, Piece, collate
from medexpert.train.masks import attention_mask

ROWS = [[(7, 4), (5, 0)], [(6, 6)], [(3, 1), (4, 2), (2, 0)]]
"""(length, prefix) of the pieces of each row."""


def piece(length: int, prefix: int, seed: int = 0) -> Piece:
    ids = np.random.default_rng([seed, length, prefix]).integers(3, 97, length)
    return Piece(ids.astype(np.int32), np.full(length, IGNORE, np.int32), prefix=prefix)


def batch(rows: list[list[tuple[int, int]]] = ROWS) -> Batch:
    return collate([[piece(*size) for size in row] for row in rows], pad=0)


ARCHITECTURES = ("Llama", "Qwen3", "Gemma3", "Glm", "Glm4", "Mistral")


def tiny(name: str, implementation: str = "sdpa", **changes: Any) -> Any:
    import transformers

    library: Any = transformers
    kind = {"Gemma3": "Gemma3Text"}.get(name, name)
    settings: dict[str, Any] = {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    if name == "Gemma3":
        settings |= {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
    if name == "Mistral":
        settings["sliding_window"] = 4
    config = getattr(library, f"{kind}Config")(**{**settings, **changes})
    config._attn_implementation = implementation
    torch.manual_seed(0)
    model = getattr(library, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:  # large enough for differences to show
                weight.normal_(0, 0.15)
    return model


def run(model: Any, made: Batch, inputs: torch.Tensor | None = None) -> torch.Tensor:
    config = model.config
    mask = attention_mask(made, config._attn_implementation, config)
    with torch.no_grad():
        out = model(
            input_ids=made.inputs if inputs is None else inputs,
            position_ids=made.positions,
            attention_mask=mask,
            use_cache=False,
        )
    logits: torch.Tensor = out.logits
    return logits


def moved(model: Any, made: Batch, row: int, at: int) -> list[bool]:
    """Which logits of the row change when the token at `at` does."""
    before, inputs = run(model, made), made.inputs.clone()
    inputs[row, at] = (inputs[row, at] + 11) % 97
    difference = (run(model, made, inputs) - before)[row].abs().amax(-1)
    return [bool(d > 1e-5) for d in difference]


def test_the_mask_is_the_written_rule() -> None:
    made = batch()
    mask = attention_mask(made, "sdpa")
    rows, width = made.inputs.shape
    assert mask.shape == (rows, 1, width, width)
    assert mask.dtype == torch.bool
    for row in range(rows):
        for i in range(width):
            for j in range(width):
                same = made.items[row, i] == made.items[row, j]
                assert bool(mask[row, 0, i, j]) == bool(same and (made.prefix[row, j] or j <= i))


def test_a_window_bounds_both_sides() -> None:
    made = batch()
    plain, near = visible(made.items, made.prefix), visible(made.items, made.prefix, 3)
    place = torch.arange(plain.shape[-1])
    assert torch.equal(near, plain & ((place[:, None] - place).abs() < 3))
    assert not torch.equal(near, plain)


def test_there_is_no_mask_where_nothing_is_read_both_ways() -> None:
    assert attention_mask(batch([[(5, 0), (4, 0)], [(3, 0)]]), "sdpa") is None


def test_the_additive_mask_says_the_same() -> None:
    made = batch()
    seen, added = attention_mask(made, "sdpa"), attention_mask(made, "eager")
    assert added.dtype == torch.float32
    assert torch.equal(added == 0, seen)
    assert (added[~seen] == torch.finfo(torch.float32).min).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_eager_equals_sdpa(name: str) -> None:
    made = batch()
    first, second = tiny(name), tiny(name, "eager")
    second.load_state_dict(first.state_dict())
    assert torch.allclose(run(first, made), run(second, made), atol=1e-5)


@pytest.mark.parametrize("name", ["flash_attention_2", "paged|sdpa", "own"])
def test_other_implementations_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot read a prefix both ways"):
        attention_mask(batch(), name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_items_equal_separate_runs(name: str) -> None:
    model, made = tiny(name), batch()
    packed = run(model, made)
    for number, row in enumerate(ROWS):
        bounds = [0, *np.cumsum([length for length, _ in row]).tolist()]
        for (start, end), size in zip(pairwise(bounds), row, strict=True):
            alone = run(model, collate([[piece(*size)]], pad=0))
            assert torch.allclose(packed[number, start:end], alone[0], atol=1e-5)


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n not in ("Gemma3", "Mistral")])
def test_who_moves_whom(name: str) -> None:
    """An A token moves its whole item; token k of B moves what stands at k and behind."""
    model, made = tiny(name), batch()
    width = made.inputs.shape[1]
    first = [True] * 7 + [False] * (width - 7)
    for at in range(4):
        assert moved(model, made, 0, at) == first
    for at in range(4, 7):
        assert moved(model, made, 0, at) == [at <= i < 7 for i in range(width)]
    assert moved(model, made, 0, 8) == [8 <= i < 12 for i in range(width)]


def test_sliding_layers_keep_their_window() -> None:
    """Two layers of window 4 reach six tokens, not more; B stays causal."""
    model = tiny("Mistral")
    made = batch([[(20, 12)]])
    assert moved(model, made, 0, 9) == [3 <= i <= 15 for i in range(20)]
    assert moved(model, made, 0, 15) == [i >= 15 for i in range(20)]


def test_gemma_gets_a_mask_a_kind_of_layer() -> None:
    model, made = tiny("Gemma3"), batch([[(20, 12)]])
    mask = attention_mask(made, "sdpa", model.config)
    assert set(mask) == {"full_attention", "sliding_attention"}
    assert torch.equal(mask["full_attention"], visible(made.items, made.prefix))
    assert torch.equal(mask["sliding_attention"], visible(made.items, made.prefix, 4))
    assert moved(model, made, 0, 2) == [True] * 20
    assert moved(model, made, 0, 14) == [i >= 14 for i in range(20)]


def test_without_a_prefix_the_mask_is_the_models_own() -> None:
    """Gemma's windows by our mask equal the windows that transformers builds itself."""
    for name in ("Gemma3", "Mistral", "Llama"):
        model = tiny(name)
        ids = torch.arange(20)[None] + 3
        zeros = torch.zeros_like(ids)
        mask = prefix_mask(zeros, zeros.bool(), model.config, "sdpa")
        with torch.no_grad():
            ours = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            own = model(input_ids=ids, use_cache=False).logits
        assert torch.allclose(ours, own, atol=1e-5), name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_that_keeps_to_the_mask_passes_the_check(name: str) -> None:
    check_prefix(tiny(name))


def test_a_model_that_ignores_the_mask_is_refused(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    plain = model.forward

    def deaf(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    model.forward = deaf
    with pytest.raises(UserError, match="does not keep to such a mask"):
        check_prefix(model)


def test_other_kinds_of_layers_are_refused() -> None:
    config = tiny("Llama").config
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(UserError, match="linear_attention"):
        windows(config)


@pytest.mark.parametrize("window", [0, 3])
def test_the_block_mask_is_the_same_rule(window: int) -> None:
    """Built on the CPU, where it can be opened; using it needs a GPU."""
    made = batch()
    config = SimpleNamespace(sliding_window=window)
    blocks = attention_mask(made, "flex_attention", config)
    rows, width = made.inputs.shape
    index = torch.arange(width)
    for row in range(rows):
        found = blocks.mask_mod(torch.tensor(row), torch.tensor(0), index[:, None], index[None, :])
        assert torch.equal(found, visible(made.items, made.prefix, window)[row, 0])


@pytest.mark.gpu
def test_flex_equals_sdpa_on_a_gpu() -> None:
    made = batch([[(200, 120), (90, 0)], [(256, 10)]]).to(torch.device("cuda"))
    shape = {"hidden_size": 64, "head_dim": 16, "max_position_embeddings": 512}
    first, second = tiny("Llama", **shape).cuda(), tiny("Llama", "flex_attention", **shape).cuda()
    second.load_state_dict(first.state_dict())
    assert torch.allclose(run(first, made), run(second, made), atol=1e-3)
