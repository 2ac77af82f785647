"""A few records of each source for the data card that stays with the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medexpert.data.filters import strings
from medexpert.recipe import Run

PER_SOURCE = 2
CHARACTERS = 600
LINES = 20_000


def samples(folder: Path, recipe: Run) -> list[dict[str, str]]:
    """The first records of each source in the order of learning, shortened."""
    found: list[dict[str, str]] = []
    for stage in recipe.stages():
        wanted = {source.source: PER_SOURCE for source in recipe.sources(stage)}
        with (folder / f"{stage}.jsonl").open("rb") as handle:
            for number, line in enumerate(handle):
                if number >= LINES or not any(wanted.values()):
                    break
                row: dict[str, Any] = json.loads(line)
                if wanted.get(row["source"], 0):
                    wanted[row["source"]] -= 1
                    found.append(_sample(stage, row))
    return found


def _sample(stage: str, row: dict[str, Any]) -> dict[str, str]:
    text = row["text"] if "text" in row else "\n".join(strings(row["fields"]))
    short = text if len(text) <= CHARACTERS else text[:CHARACTERS] + " ..."
    return {"stage": stage, "source": row["source"], "id": row["id"], "text": short}
