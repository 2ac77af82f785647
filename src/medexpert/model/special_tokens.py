"""The five tokens of blank infilling: found in a tokenizer, or added to it and to the weights.

GLM's names, so that the GLM-4 models keep their own. A new token starts as the mean of all tokens,
which gives it an ordinary logit instead of a random one.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import torch

from medexpert.records import UserError

MULTIPLE = 64
"""The vocabulary is padded to a multiple of this: odd sizes make slow matrix products."""


@dataclass(frozen=True)
class InfillIds:
    """Token ids: blanks of words, of sentences, of the end; start and end of a blank's text."""

    mask: int
    smask: int
    gmask: int
    sop: int
    eop: int


NAMES = ("[MASK]", "[sMASK]", "[gMASK]", "<sop>", "<eop>")
"""In the order of the fields of InfillIds."""


def infill_ids(tokenizer: Any) -> InfillIds:
    """The ids of a tokenizer that has all five tokens. Raises UserError naming what is missing."""
    found = [_known(tokenizer, name) for name in NAMES]
    missing = [name for name, number in zip(NAMES, found, strict=True) if number is None]
    if missing:
        raise UserError(
            f"the tokenizer has no {', '.join(missing)}: the model was not made for blank infilling"
        )
    return InfillIds(*(int(number) for number in found if number is not None))


def _known(tokenizer: Any, name: str) -> int | None:
    """The id of a token that text of this name is read as, or None."""
    number: int | None = tokenizer.get_vocab().get(name)
    read = tokenizer(name, add_special_tokens=False, verbose=False)["input_ids"]
    return number if number is not None and read == [number] else None


def add_infill_tokens(model: Any, tokenizer: Any) -> InfillIds:
    """Give `tokenizer` and `model` (a plain transformers model) the tokens they lack, in place.

    Rows of new tokens, and rows that pad the vocabulary to a multiple of 64, become the mean of the
    rows in use, input and output alike; tied embeddings stay tied. A model whose vocabulary already
    has room is not made larger. Calling it again changes nothing.
    """
    from tokenizers import AddedToken

    if hasattr(model, "peft_config"):
        raise TypeError("add_infill_tokens takes a plain model: add the tokens before the adapter")
    used = len(tokenizer)
    missing = [name for name in NAMES if _known(tokenizer, name) is None]
    tokens = [AddedToken(name, special=True, normalized=False) for name in missing]
    tokenizer.add_tokens(tokens, special_tokens=True)
    ids = infill_ids(tokenizer)
    new = [number for number in astuple(ids) if number >= used]
    old = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > old:
        model.resize_token_embeddings(
            len(tokenizer), pad_to_multiple_of=MULTIPLE, mean_resizing=False
        )
        new = sorted({*new, *range(old, int(model.get_input_embeddings().weight.shape[0]))})
    if new:
        _set_to_mean(model, new, min(used, old))
    return ids


@torch.no_grad()
def _set_to_mean(model: Any, rows: list[int], used: int) -> None:
    """Rows of the input and output embeddings become the mean of the first `used` ones."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tensors = [inputs.weight]
    if outputs is not None and outputs.weight is not inputs.weight:
        tensors.append(outputs.weight)
    if outputs is not None and getattr(outputs, "bias", None) is not None:
        tensors.append(outputs.bias)
    for tensor in tensors:
        tensor[rows] = tensor[:used].float().mean(0).to(tensor.dtype)
