"""The adapters a recipe may name. To add one: a file here, and a line in the table below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medexpert.model.adapters import lora

ADAPTERS: dict[str, Callable[[Any, Any, int], Any]] = {
    "lora": lora.add_lora,
}
"""`ADAPTERS[method](model, settings, seed)` wraps the model; only what it adds is trainable."""
