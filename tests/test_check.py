"""`medexpert check`: problems found before an hour is spent, and estimates with their grounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert import check as checks
from medexpert.check import check, memory_bytes, stage_tokens
from medexpert.recipe import load
from medexpert.recipe_train import Stage
from medexpert.records import UserError

SHAPE = {
    "parameters": 1000, "linear_in_plus_out": 50, "layers": 0, "hidden": 0, "vocabulary": 0,
    "context_length": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch: Any) -> None:
    monkeypatch.setattr(checks, "matmul_rate", lambda dtype, threads: 1e9)


def test_a_good_recipe_is_told_with_its_cost_and_what_that_rests_on(
    recipe: Callable[..., Path],
) -> None:
    text = check(load(recipe()), print)
    for part in (
        "valid", "no problem found", "tokens rest on", "characters a token", "time rests on",
        "matmul rate measured just now: 1 GFLOP/s", "not counted: ",
    ):  # fmt: skip
        assert part in text
    tokens = {line.split()[0]: line.split()[2] for line in text.splitlines()[3:7]}
    assert tokens["knowledge"] == "6000"
    assert int(tokens["evaluate"]) > 6 * 4 * 100


def test_all_problems_at_once(recipe: Callable[..., Path]) -> None:
    bad = load(
        recipe(),
        ["evaluate.strategies=['vok']", "evaluate.task=pubmedq", "data.quarantine=['pubmed']",
         "base.model=smollm2-135m-instuct"],
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        check(bad, print)
    lines = str(caught.value)
    for name in ("'voc'", "'pubmedqa'", "'smollm2-135m-instruct'"):
        assert f"did you mean {name}?" in lines
    assert len(lines.splitlines()) == 4


def test_rows_memory_and_disk_that_the_machine_or_model_lacks(
    recipe: Callable[..., Path], monkeypatch: Any
) -> None:
    with pytest.raises(UserError, match=r"adapt.sequence_length is 4096, but .* at most 2048"):
        check(load(recipe(), ["adapt.sequence_length=4096"]), print)
    monkeypatch.setattr(checks, "_machine_memory", lambda: 1 << 20)
    with pytest.raises(UserError, match=r"knowledge: about .* GiB of memory needed, this machine"):
        check(load(recipe()), print)
    monkeypatch.setattr(checks, "disk_bytes", lambda *_: 1 << 60)
    with pytest.raises(UserError, match="GiB of disk needed"):
        check(load(recipe()), print)


def test_memory_counts_every_copy_of_a_trained_weight() -> None:
    assert memory_bytes(Stage(sequence_length=16), SHAPE) == 18_000
    assert memory_bytes(Stage(sequence_length=16, dtype="float32"), SHAPE) == 20_000
    lora = Stage(sequence_length=16, method="lora")
    assert memory_bytes(lora, SHAPE) == 16 * 50 * 18 + 4000


def test_tokens_follow_characters_epochs_and_cap() -> None:
    estimate = {"instruct": {"en": 430, "zh": 75}}
    assert stage_tokens("instruct", Stage(), estimate) == 200
    assert stage_tokens("instruct", Stage(epochs=2), estimate) == 400
    assert stage_tokens("instruct", Stage(epochs=2, max_tokens=300), estimate) == 300
