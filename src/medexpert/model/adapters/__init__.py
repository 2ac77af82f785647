"""The adapters a recipe may name. To add one: a file here, and a line in the table below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medexpert.model.adapters import lora


@dataclass(frozen=True)
class Adapter:
    """`add(model, settings, seed)` wraps a model; `merge(wrapped)` gives the plain model back."""

    name: str
    add: Callable[[Any, Any, int], Any]
    merge: Callable[[Any], Any]


ADAPTERS: dict[str, Adapter] = {
    "lora": Adapter("lora", lora.add_lora, lora.merge_lora),
}
