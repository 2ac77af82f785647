"""What a stage measures on its way is asked as the finished stage will be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medexpert import instruments
from medexpert.evaluate import while_training
from medexpert.model import base
from medexpert.pipeline import Pipeline
from medexpert.recipe import load


@pytest.mark.parametrize("attention", ["causal", "prefix"])
def test_the_dev_fold_is_read_as_the_stage_trains(
    recipe: Callable[..., Path], base_model: Path, monkeypatch: pytest.MonkeyPatch, attention: str
) -> None:
    lines = [f'adapt.attention="{attention}"', 'adapt.meter.select="log_loss"']
    pipeline = Pipeline(load(recipe(), lines), lambda line: None)
    opened: list[Any] = []
    monkeypatch.setattr(
        while_training, "dev_meter", lambda engine, *rest, **more: opened.append(engine)
    )
    instruments.of_stage(pipeline, "adapt")
    engine = opened[0](*base.load(base_model, dtype=torch.float32))
    assert engine.reading.prefix is (attention == "prefix")
