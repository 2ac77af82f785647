"""`medexpert check`: problems found before an hour is spent, and estimates with their grounds."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.check import check, plan, stage_tokens
from medexpert.pipeline import Pipeline
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


def test_a_plan_needs_neither_sources_nor_weights(
    recipe: Callable[..., Path], base_model: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(base_model / "config.json", bare)
    said: list[str] = []
    settings = load(recipe(), [
        f"base.model='{bare}'", f"data.root='{bare}'", "data.instruct=[{source='medquad'}]",
        "instruct.max_tokens=0",
    ])  # fmt: skip
    stages = json.loads(plan(settings, said.append, as_json=True))["stages"]
    capped = {name for name in settings.stages() if settings.stage(name).max_tokens}
    assert "knowledge" in capped
    assert {stage["stage"] for stage in stages} == capped
    assert any("sources are missing" in line and "instruct" in line for line in said)
    uncapped = load(recipe(), [
        f"base.model='{bare}'", f"data.root='{bare}'", "data.instruct=[{source='medquad'}]",
        *(f"{name}.max_tokens=0" for name in settings.stages()),
    ])  # fmt: skip
    with pytest.raises(UserError, match="medquad"):
        plan(uncapped, said.append)


def test_tokens_follow_characters_epochs_and_cap() -> None:
    estimate = {"instruct": {"en": 430, "zh": 75}}
    assert stage_tokens("instruct", Stage(), estimate) == 200
    assert stage_tokens("instruct", Stage(epochs=2), estimate) == 400
    assert stage_tokens("instruct", Stage(epochs=2, max_tokens=300), estimate) == 300


def problems_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        check(load(path, overrides), print)
    return str(caught.value).splitlines()


CPOLY = ['adapt.method="cpoly"', "adapt.lora.rank=2"]


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ([*CPOLY, 'adapt.cpoly.merge="chat.qqa"'],
         r"adapt\.cpoly\.merge: unknown task 'chat\.qqa'.*did you mean 'chat\.qa'\?"),
        ([*CPOLY, 'adapt.cpoly.tasks={a=["trialgen"], b=["trialgem", "*.lm_evil"]}'],
         r"adapt\.cpoly\.tasks: no example belongs to task 'b'"),
        ([*CPOLY, 'adapt.cpoly.tasks={a=["trial*"], b=["*gen"]}'],
         r"adapt\.cpoly\.tasks: 'trialgen' belongs to two tasks, 'a' and 'b'"),
        (['knowledge.freeze=["model.layer.0.*"]'],
         r"knowledge\.freeze: no parameter of the model matches 'model\.layer\.0\.\*'"),
        (['knowledge.freeze=["*"]'], r"knowledge\.freeze = '\*' leaves nothing to train"),
        (['adapt.freeze=["*lora_C*"]'], r"adapt\.freeze: no parameter .* matches '\*lora_C\*'"),
        (["knowledge.meter.stop_general=0.1", "knowledge.meter.at=[0.5, 1.0]"],
         r"knowledge\.meter\.stop_general needs the start to compare with"),
    ],
)  # fmt: skip
def test_settings_that_cannot_train_are_told(
    recipe: Callable[..., Path], overrides: list[str], error: str
) -> None:
    (line,) = problems_of(recipe(), *overrides)
    assert re.search(error, line)


@pytest.mark.parametrize(
    "overrides",
    [
        [*CPOLY, 'adapt.cpoly.merge="pubmedqa.lm_eval"', 'adapt.freeze=["*.mlp.*.common_?"]'],
        [*CPOLY, 'adapt.cpoly.tasks={a=["trialgen"]}', 'adapt.cpoly.merge="a"'],
        ['adapt.freeze=["*.layers.0.*.lora_A.*"]', 'knowledge.freeze=["*embed_tokens*"]'],
        ['adapt.method="dora"', 'adapt.freeze=["*magnitude*"]', 'instruct.freeze=["lm_head.*"]'],
        ["knowledge.meter.stop_general=0.1", "knowledge.meter.at=[0.0, 1.0]"],
    ],
)
def test_settings_that_can_train_are_no_problem(
    recipe: Callable[..., Path], overrides: list[str]
) -> None:
    assert check(load(recipe(), overrides), print).endswith("no problem found")


def test_tasks_are_held_against_the_data_once_it_is_built(recipe: Callable[..., Path]) -> None:
    path, wrong = recipe(), [*CPOLY, 'adapt.cpoly.merge="chat.qa"']
    assert "no problem" in check(load(path, wrong), print)  # a template that the data might have
    built = Pipeline(load(path), lambda line: None)
    built.run([built.data_step()])
    (line,) = problems_of(path, *wrong)
    assert line.startswith("adapt.cpoly.merge: unknown task 'chat.qa'; allowed: pubmedqa.lm_eval")
    (line,) = problems_of(path, *CPOLY, 'adapt.cpoly.tasks={a=["trialgen"], b=["chat.*"]}')
    assert "no example belongs to task 'b' of cpoly.tasks" in line
    # Data of other settings does not count.
    assert "no problem" in check(load(path, [*wrong, "seed=1"]), print)


def test_a_tracker_that_is_not_installed(recipe: Callable[..., Path], monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    (line,) = problems_of(recipe(), "tracker=wandb")
    assert line.startswith("tracker: tracker = 'wandb' needs a package that is not installed")


def test_own_examples_that_are_all_bad(recipe: Callable[..., Path], tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    good = {"question": "Why?", "answer": "It is how the vessel wall answers."}
    row = {"id": "1", "source": "m", "kind": "qa", "template": "chat.qa", "fields": good}
    own.write_text('{"id": 1}\n{"question": "Why?"}\n')
    source = f'data.instruct=[{{source="own-examples", path="{own}"}}]'
    (line,) = problems_of(recipe(), source)
    assert "own.jsonl: 2 of 2 rows are bad" in line
    assert f"{own}:1: " in line
    own.write_text(json.dumps(row))
    assert "no problem" in check(load(recipe(), [source]), print)


@pytest.mark.parametrize("stage", ["instruct", "adapt"])
def test_rows_too_short_for_all_examples(recipe: Callable[..., Path], stage: str) -> None:
    (line,) = problems_of(recipe(), f"{stage}.sequence_length=16")
    told = (
        rf"{stage}\.sequence_length = 16: nothing is left .* of (\d+) examples: (\d+) longer than"
    )
    found = re.match(told, line)
    assert found is not None, line
    assert found.group(1) == found.group(2)


def test_rows_too_short_for_some_examples(recipe: Callable[..., Path], tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    rows = [
        {"id": str(n), "source": "m", "kind": "qa", "template": "chat.qa",
         "fields": {"question": "Why?", "answer": "It is how the wall answers. " * times}}
        for n, times in enumerate((1, 2, 80))
    ]  # fmt: skip
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [f'data.instruct=[{{source="own-examples", path="{own}"}}]',
                "instruct.sequence_length=128", "instruct.epochs=3"]  # fmt: skip
    told = check(load(recipe(), settings), print).splitlines()
    wanted = "of 3 examples that were tried: 1 longer than sequence_length (left out)"
    assert f"instruct.sequence_length = 128: {wanted}" in told
    (line,) = problems_of(recipe("p"), *settings, 'instruct.objective="preference"')
    assert line.endswith("nothing is left to train on of 3 examples: 3 no rejected answer")
