"""`medexpert check`: problems found before an hour is spent, and estimates with their grounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.check import check, plan, stage_tokens
from medexpert.recipe import load
from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train import cost, forecast


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch: Any) -> None:
    monkeypatch.setattr(forecast, "matmul_rate", lambda dtype, threads: 1e9)


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
    sizes = {"SC_PAGE_SIZE": 1 << 10, "SC_PHYS_PAGES": 1 << 10}
    monkeypatch.setattr(forecast.os, "sysconf", sizes.__getitem__)
    with pytest.raises(UserError, match=r"knowledge: about .* GiB of memory needed by a process"):
        check(load(recipe()), print)
    monkeypatch.setattr(cost, "disk_bytes", lambda *_: 1 << 60)
    with pytest.raises(UserError, match="GiB of disk needed"):
        check(load(recipe()), print)


def test_a_plan_tells_every_machine_and_what_is_assumed(recipe: Callable[..., Path]) -> None:
    text = plan(load(recipe()), print, dollars=2.0)
    for part in ("here", "1xH100", "8xH100", "64xH100", "assumed, not measured", "$ 2.00"):
        assert part in text
    stages = json.loads(plan(load(recipe()), print, as_json=True))["stages"]
    assert len(stages) == 3 * 4
    assert next(s for s in stages if s["stage"] == "knowledge")["tokens"] == 6000


def test_tokens_follow_characters_epochs_and_cap() -> None:
    estimate = {"instruct": {"en": 430, "zh": 75}}
    assert stage_tokens("instruct", Stage(), estimate) == 200
    assert stage_tokens("instruct", Stage(epochs=2), estimate) == 400
    assert stage_tokens("instruct", Stage(epochs=2, max_tokens=300), estimate) == 300
