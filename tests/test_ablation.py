"""An ablation on a tiny model: shares what is equal, resumes after kill -9, one tested table."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medexpert import ablation_verb, check, manifest
from medexpert.__main__ import main
from medexpert.ablation_verb import Ablated, Variant, ablate, adopt
from medexpert.pipeline import Pipeline
from medexpert.recipe import STAGES, load
from medexpert.records import UserError
from medexpert.train import forecast
from tiny import RECIPE

AXES = """
[ablation]
design = "each"
[ablation.axes.stages]
all = {{}}
no-knowledge = {{ "knowledge.enabled" = false }}
[ablation.axes.adapter]
lora = {{}}
full = {{ "adapt.method" = "full" }}
[ablation.axes.prompting]
direct = {{}}
voc = {{ "evaluate.strategies" = ["voc"] }}
"""
REFERENCE = "all+lora+direct"


def write(recipe: Callable[..., Path], name: str = "run", extra: str = "") -> Path:
    return recipe(name, RECIPE + 'points = ["adapt"]\n' + AXES + extra)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_equal_stages_are_trained_once_and_everything_is_tested(
    recipe: Callable[..., Path],
) -> None:
    path, lines = write(recipe), list[str]()
    told = ablate(path, [], dry_run=False, say=lines.append).text
    root = path.with_suffix("") / "ablation"
    trained = [line for line in lines if line in {f"{s}: started" for s in
               ("knowledge", "instruct", "adapt")}]  # fmt: skip
    # reference 3; without knowledge 2 more; another adapter 1 more; another prompting none
    assert len(trained) == 6, trained
    assert any(f"instruct: taken from {root / REFERENCE / 'seed-2312'}" == x for x in lines)
    table = json.loads((root / "ablation.json").read_text())["lines"]
    assert [line["variant"] for line in table] == [
        REFERENCE, "no-knowledge+lora+direct", "all+full+direct", "all+lora+voc",
    ]  # fmt: skip
    assert all(line["accuracy"]["n"] == 6 for line in table)
    assert table[0]["difference"] is None
    assert all(line["holm"] >= line["difference"]["p"] for line in table[1:])
    assert "Holm over the 3 comparisons" in told
    assert "exact McNemar" in told
    for name in ("accuracy.svg", "differences.svg", "ablation.md"):
        assert (root / name).stat().st_size > 300
    whole = manifest.sha256_file(root / REFERENCE / "seed-2312/adapt/model/model.safetensors")
    same = manifest.sha256_file(root / "all+lora+voc/seed-2312/adapt/model/model.safetensors")
    assert whole == same
    lines.clear()
    assert ablate(path, [], dry_run=False, say=lines.append) == Ablated(told)
    assert not [line for line in lines if "started" in line or "taken" in line]
    plan = ablate(path, [], dry_run=True, say=lines.append).text.splitlines()
    assert all(": 0 to run, " in line for line in plan[-4:]), plan


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_minus_nine_and_the_same_table(recipe: Callable[..., Path]) -> None:
    whole = ablate(write(recipe, "whole"), [], dry_run=False, say=lambda line: None).text
    path = write(recipe, "cut")
    for moment in ("instruct 1/", "evaluate adapt direct: started", "variant 3 of 4", "taken from"):
        kill_at(path, moment)
    cut = ablate(path, [], dry_run=False, say=lambda line: None).text

    def scores(text: str) -> list[list[str]]:
        return [line.split()[:12] for line in text.splitlines()[1:5]]

    assert scores(cut) == scores(whole)
    assert not list(path.with_suffix("").rglob("*.adopting"))


def kill_at(path: Path, moment: str) -> None:
    """Start `medexpert ablate`, and SIGKILL it when a progress line says `moment`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "medexpert", "ablate", str(path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    reached = False
    for line in process.stderr:
        if moment in line:
            os.kill(process.pid, signal.SIGKILL)
            reached = True
            break
    process.stderr.close()
    process.wait()
    assert reached, moment


@pytest.mark.slow
def test_a_variant_that_fails_is_told_and_the_others_go_on(recipe: Callable[..., Path]) -> None:
    extra = '[ablation.axes.base]\nours = {{}}\nnone = {{ "base.model" = "/no/such/model" }}\n'
    path, lines = write(recipe, extra=extra), list[str]()
    done = ablate(path, [], dry_run=False, say=lines.append)
    assert any(line.startswith("FAILED all+lora+direct+none seed 2312") for line in lines)
    assert "missing: all+lora+direct+none direct" in done.text
    assert "Holm over the 3 comparisons" in done.text
    assert done.failed == ("all+lora+direct+none seed 2312",)


def test_a_failure_of_any_kind_is_told_and_the_exit_code_is_1(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(variant: Variant, donors: object, say: object) -> None:
        if variant.name == "all+full+direct":
            raise RuntimeError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(ablation_verb, "run", broken)
    path = write(recipe)
    assert main(["ablate", str(path)]) == 1
    told = capsys.readouterr()
    why = "RuntimeError: DefaultCPUAllocator: not enough memory"
    assert f"FAILED all+full+direct seed 2312: {why}" in told.err
    assert f"missing: all+full+direct direct: all+full+direct seed 2312 failed: {why}" in told.out
    error = path.with_suffix("") / "ablation" / "all+full+direct" / "seed-2312" / "error.txt"
    assert "Traceback" in error.read_text()
    monkeypatch.setattr(ablation_verb, "run", lambda variant, donors, say: None)
    assert main(["ablate", str(path)]) == 0
    assert not error.exists()


def test_a_build_is_taken_over_whole_or_not_at_all(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    first = Pipeline(load(recipe("one")), print)
    first.run([first.data_step()])
    second = Pipeline(load(recipe("two")), print)
    step = second.data_step()
    lines: list[str] = []
    assert adopt(step, second.root, [second.root, first.root], lines.append)
    assert step.complete()
    assert lines == [f"data: taken from {first.root}"]
    other = Pipeline(load(recipe("three"), ["seed=1"]), print)
    assert not adopt(other.data_step(), other.root, [first.root], lines.append)
    (first.root / "data" / "adapt.jsonl").write_text("")  # a damaged donor is no donor
    (second.root / "data" / "manifest.json").unlink()
    assert not adopt(step, second.root, [first.root], lines.append)


def test_a_recipe_without_axes_says_so(recipe: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"no \[ablation.axes\] in this recipe; allowed"):
        ablate(recipe(), [], dry_run=True, say=print)


def test_a_plan_runs_nothing_and_tells_the_hours_of_training(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "matmul_rate", lambda dtype, threads: 1e8)
    path = write(recipe)
    lines = ablate(path, [], dry_run=True, say=print).text.splitlines()
    assert lines[-4] == "data: 1 to run, 0 complete, 3 as in another"
    assert lines[-2:] == [
        "evaluations: 7 to run, 0 complete, 1 as in another; hours of 7 not estimated",
        "reports: 4 to run, 0 complete, 0 as in another",
    ]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines if " seed 2312 " in line]
    hours = {(row[0], row[1]): float(row[2]) for row in rows if row[1] in STAGES and len(row) == 4}
    assert len(hours) == 6
    plan = json.loads(check.plan(load(path), print, as_json=True))["stages"]
    here = {stage["stage"]: stage["hours"] for stage in plan if stage["machine"] == "here"}
    for stage, told in here.items():
        assert hours[f"{REFERENCE} seed 2312", stage] == pytest.approx(told, abs=0.005)
    total = re.search(r"6 to run, .*; about ([\d.]+) h of training on this machine$", lines[-3])
    assert total is not None
    assert float(total.group(1)) == pytest.approx(sum(hours.values()), abs=0.05)
    assert not path.with_suffix("").exists()


def test_hours_that_cannot_be_told_are_said_once(recipe: Callable[..., Path]) -> None:
    said: list[str] = []
    text = ablate(
        write(recipe), ["base.model='/no/such/model'"], dry_run=True, say=said.append
    ).text
    assert "5 as in another; hours of 6 not estimated" in text
    (line,) = said
    assert line.startswith("hours of training are not estimated: base.model: ")


def test_a_variant_whose_training_cannot_be_reckoned_does_not_end_the_plan(
    recipe: Callable[..., Path],
) -> None:
    axes = """
[ablation]
[ablation.axes.where]
all = {{}}
nowhere = {{ "adapt.lora.target_modules" = ["no_such_layer"] }}
"""
    said: list[str] = []
    path = recipe("run", RECIPE + 'points = ["adapt"]\n' + axes)
    text = ablate(path, [], dry_run=True, say=said.append).text
    assert "; hours of 1 not estimated" in text
    (line,) = said
    assert line.startswith("hours of training are not estimated: target_modules = ")
