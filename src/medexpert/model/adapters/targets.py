"""Which modules an adapter sits on: names matched the way peft matches, a typo is an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medexpert.records import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"


def candidates(model: PreTrainedModel) -> list[str]:
    """Last names of the linear layers that an adapter can sit on, the output layer left out."""
    return sorted({name.rsplit(".", 1)[-1] for name in linear_layers(model)})


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Whole names of the linear layers, the output layer left out, in the model's order."""
    import torch
    from transformers.pytorch_utils import Conv1D

    whole: Any = model
    output = whole.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not output
    ]


def matching(targets: str | Sequence[str], model: PreTrainedModel) -> list[str]:
    """Whole names of the modules that `targets` names: all linear layers, a regular expression, or
    a list of whole names or their ends after a dot. Raises UserError when one matches nothing.
    """
    if targets == ALL_LINEAR:
        return linear_layers(model)
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(targets, str):
        try:
            found = [name for name in names if re.fullmatch(targets, name)]
        except re.error as error:
            raise UserError(
                f"target_modules = {targets!r} is no regular expression: {error}"
            ) from None
        missing = [] if found else [targets]
    else:
        ends = tuple(f".{target}" for target in targets)
        found = [name for name in names if name in targets or name.endswith(ends)]
        missing = [t for t in targets if not any(n == t or n.endswith(f".{t}") for n in found)]
        missing = missing if targets else ["(an empty list)"]
    if missing:
        raise _no_match(missing, model)
    return found


def _no_match(missing: Sequence[str], model: PreTrainedModel) -> UserError:
    known = candidates(model)
    close = difflib.get_close_matches(missing[0], known, n=1, cutoff=0.5)
    return UserError(
        f"target_modules: no module of the model matches {', '.join(map(repr, missing))}",
        allowed=f"{ALL_LINEAR}, {', '.join(known)}",
        nearest=close[0] if close else "",
    )
