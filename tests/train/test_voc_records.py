"""Both files of `data construct voc` are what the stages train on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert import manifest
from medexpert.construct_verbs import construct
from medexpert.engines.scripted import ScriptedEngine
from medexpert.recipe import load
from medexpert.train.stage import run_stage

CHOICES = ("ferin", "velorin", "talin", "borin")


def says(prompt: str) -> str:
    """A wrong verdict where C stands first, so that there are pairs of checks."""
    if "Suppose that the answer below" in prompt:
        letter = prompt.rsplit("\nAnswer: ", 1)[1][0]
        return f" The text of this item has enough that speaks for {letter} here."
    first = prompt.split("at most one is right.\n[")[1][0]
    verdict = "D" if first == "C" else "B"
    return f" What is said for {verdict} holds up.\nFinal answer: {verdict}"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    rows = [
        {"id": f"m{k}", "question": f"Which drug thins blood {k}?", "choices": CHOICES, "answer": 1}
        for k in range(6)
    ]
    source = tmp_path / "questions.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "data" / "voc.jsonl"
    construct("voc", [source], out, engine=ScriptedEngine(says), say=lambda _: None)
    files = [out, tmp_path / "data" / "voc.pairs.jsonl"]
    facts = {"quarantined": True, "quarantine": {"pubmedqa": {}}}
    manifest.write_manifest(tmp_path / "data", key="d", files=files, facts=facts)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("file", "settings", "items"),
    [("voc.jsonl", [], 48), ("voc.pairs.jsonl", ['objective="preference"'], 12)],
)
def test_a_stage_trains_on_them(
    recipe: Callable[..., Path], base_model: Path, made: Path, tmp_path: Path, file: str,
    settings: list[str], items: int,
) -> None:  # fmt: skip
    given = ["epochs=1", "sequence_length=1024", "max_tokens=0", 'compile="off"', *settings]
    entry: dict[str, Any] = run_stage(
        load(recipe(), [f"instruct.{line}" for line in given]), "instruct", parent=base_model,
        data=made / file, folder=tmp_path / "out", key="k", say=lambda _: None,
    )  # fmt: skip
    assert (entry["items"], entry["dropped"]) == (items, {})
    assert entry["last_loss"] > 0
