"""Keep some parameters still while the others are trained."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from medexpert.records import UserError

if TYPE_CHECKING:
    from torch import nn


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Stop the parameters whose names match a pattern (`*`, `?`, `[...]`) from being trained.

    A pattern is held against the name as the model has it and as the model had it before an
    adapter was put on. Tied weights are one: either name freezes both. Returns the names that
    were frozen, those that were still already left out.

    Raises UserError for a pattern that matches nothing, with what is near, and when nothing is
    left to train.
    """
    named = list(model.named_parameters(remove_duplicate=False))
    held = set()
    for pattern in patterns:
        found = {
            id(parameter)
            for name, parameter in named
            if fnmatchcase(name, pattern) or fnmatchcase(_plain(name), pattern)
        }
        if not found:
            raise _no_match(pattern, [_plain(name) for name, _ in named])
        held |= found
    frozen = []
    for name, parameter in model.named_parameters():
        if id(parameter) in held and parameter.requires_grad:
            parameter.requires_grad_(False)
            frozen.append(name)
    if patterns and not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze = {', '.join(map(repr, patterns))} leaves nothing to train")
    return frozen


def _plain(name: str) -> str:
    """A name without what peft or C-Poly put around it."""
    name = re.sub(r"^(base_model\.model\.|inner\.)", "", name)
    return name.replace(".base_layer.", ".")


def _no_match(pattern: str, names: Sequence[str]) -> UserError:
    """The error of a pattern without a match; layers of one kind are named once, as `*`."""
    kinds = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
    close = difflib.get_close_matches(re.sub(r"\.\d+\.", ".*.", pattern), kinds, n=4, cutoff=0.4)
    return UserError(
        f"freeze: no parameter of the model matches {pattern!r}",
        allowed=", ".join(close or kinds[:8]) + ", ...",
        nearest=close[0] if close else "",
    )
