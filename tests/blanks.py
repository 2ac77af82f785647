"""Blank infilling with ids of its own and an encoder of words."""

from __future__ import annotations

from typing import Any

import numpy as np

from medexpert.model.special_tokens import InfillIds
from medexpert.recipe_train import Infill
from medexpert.train.infill import Infilling

IDS = InfillIds(mask=9001, smask=9002, gmask=9003, sop=9004, eop=9005)
BLANK = {"words": IDS.mask, "sentences": IDS.smask, "suffix": IDS.gmask}
EOS = 8999


def infilling(seed: int = 0, **mix: Any) -> Infilling:
    def ends(text: str) -> Any:
        return np.array([word.endswith(".") for word in text.split()])

    return Infilling(Infill(**mix), IDS, seed, ends, np.arange(100, 120, dtype=np.int32))


class Words:
    """An encoder of white-space-separated words; the ids rise, so that blanks can be filled."""

    def start(self, text: str) -> list[int]:
        return list(range(len(text.split())))

    more = start


def text(size: int, sentence: int = 9) -> str:
    return " ".join(f"w{n}." if n % sentence == sentence - 1 else f"w{n}" for n in range(size))
