"""The same bytes with one worker, four, on Ray, on Slurm, on another store, after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invented import prose
from living import MARK, all_gone
from medexpert.data.build import build, plan
from medexpert.data.build.phases import run_task
from medexpert.recipe import Run
from medexpert.records import UserError

FILES = ("knowledge.jsonl", "heldout.jsonl", "drops.jsonl")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shards from little data."""
    monkeypatch.setattr(plan, "SHARD_BYTES", 20_000)


@pytest.fixture
def source(write_rows: Callable[..., Path]) -> dict[str, Any]:
    """Four files with exact and near copies in other files."""
    rows = [{"id": f"d{i}", "text": prose(i, 12)} for i in range(160)]
    rows += [{"id": f"copy{i}", "text": prose(i, 12)} for i in range(0, 160, 10)]
    rows += [
        {"id": f"near{i}", "text": prose(i, 12).replace("followed", "watched", 1)}
        for i in range(1, 160, 10)
    ]
    for part in range(4):
        write_rows(f"many/part-{part}.jsonl", rows[part::4])
    return {"source": "local-text", "path": str(write_rows("many/x.jsonl", rows[:1]).parent)}


def made(recipe: Run, folder: Path) -> dict[str, bytes]:
    build(recipe, folder, key="k", progress=lambda line: None)
    return {name: (folder / name).read_bytes() for name in FILES}


def recipe_of(make: Callable[..., Run], source: dict[str, Any], **data: Any) -> Run:
    return make(knowledge=[{**source, "heldout": 5}], **data)


def test_one_worker_and_four_write_the_same_bytes(
    tmp_path: Path, source: dict[str, Any], make_recipe: Callable[..., Run], small_shards: None
) -> None:
    one = made(recipe_of(make_recipe, source, workers=1), tmp_path / "one")
    four = made(recipe_of(make_recipe, source, workers=4), tmp_path / "four")
    assert one == four
    reasons = [json.loads(line)["reason"] for line in one["drops.jsonl"].splitlines()]
    assert reasons.count("duplicate") == 17  # 16 planted, and the row that is in two files
    assert reasons.count("near_duplicate") >= 14
    assert len(plan.plan(recipe_of(make_recipe, source))) > 4


def test_intermediate_shards_on_another_store(
    tmp_path: Path, source: dict[str, Any], make_recipe: Callable[..., Run]
) -> None:
    here = made(recipe_of(make_recipe, source, workers=1), tmp_path / "here")
    there = recipe_of(make_recipe, source, workers=1, work="memory://work")
    assert made(there, tmp_path / "there") == here


def test_input_from_a_url(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run]
) -> None:
    import fsspec

    rows = [{"id": f"d{i}", "text": prose(i, 4)} for i in range(20)]
    path = write_rows("general.jsonl", rows)
    with fsspec.open("memory://corpus/general.jsonl", "wb") as handle:
        handle.write(path.read_bytes())
    outputs = []
    for place in (str(path), "memory://corpus/general.jsonl"):
        recipe = make_recipe(knowledge=[{"source": "general-en", "path": place}], workers=1)
        outputs.append(made(recipe, tmp_path / str(len(outputs))))
    assert outputs[0] == outputs[1]


def test_delivered_to_a_url(
    tmp_path: Path, source: dict[str, Any], make_recipe: Callable[..., Run]
) -> None:
    import fsspec

    from medexpert.data.build.deliver import deliver

    made(recipe_of(make_recipe, source), tmp_path / "out")
    deliver(tmp_path / "out", "memory://delivered", say=lambda line: None)
    system, root = fsspec.core.url_to_fs("memory://delivered")
    assert (
        system.cat_file(f"{root}/knowledge.jsonl")
        == (tmp_path / "out" / "knowledge.jsonl").read_bytes()
    )
    assert system.exists(f"{root}/manifest.json")


def test_slurm_launch_file_and_its_tasks(
    tmp_path: Path,
    source: dict[str, Any],
    make_recipe: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    small_shards: None,
) -> None:
    """A stand-in `sbatch` keeps what it is given; its array tasks, run here, finish the build."""
    calls = tmp_path / "calls"
    calls.mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f'#!/bin/bash\nn=$(ls {calls} | wc -l)\nprintf "%s\\n" "$@" > {calls}/$n.txt\n'
        f'for last; do :; done\ncp "$last" {calls}/$n.slurm\necho "Submitted batch job 10$n"\n'
    )
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    slurm = {"partition": "cpu", "account": "lab", "activate": "source env/bin/activate"}
    recipe = recipe_of(make_recipe, source, executor="slurm", slurm=slurm)
    with pytest.raises(UserError, match=r"submitted to Slurm: clean .* run the same command"):
        made(recipe, tmp_path / "out")
    scripts = sorted(calls.glob("*.slurm"))
    assert len(scripts) >= 3
    text = scripts[0].read_text()
    assert subprocess.run(["bash", "-n", str(scripts[0])]).returncode == 0
    shards = len(plan.plan(recipe))
    assert re.search(rf"#SBATCH --array=0-{shards - 1}\b", text)
    for line in ("--partition=cpu", "--account=lab", "source env/bin/activate"):
        assert line in text
    assert "launch_pickled_pipeline" in text
    assert any("--dependency=afterok" in file.read_text() for file in calls.glob("*.txt"))
    # What each node would do, task by task.
    work = str(tmp_path / "out" / ".work")
    for phase in ("clean", "candidates", "verify"):
        for task in range(shards if phase == "clean" else 16):
            run_task(work, phase, task)
    assert made(recipe, tmp_path / "out") == made(
        recipe_of(make_recipe, source, workers=1), tmp_path / "here"
    )


def test_slurm_says_what_it_needs(
    tmp_path: Path,
    source: dict[str, Any],
    make_recipe: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match=r"data\.slurm\.partition is needed"):
        made(recipe_of(make_recipe, source, executor="slurm"), tmp_path / "a")
    monkeypatch.setenv("PATH", str(tmp_path))
    recipe = recipe_of(make_recipe, source, executor="slurm", slurm={"partition": "cpu"})
    with pytest.raises(UserError, match=r"sbatch was not found: run this on a login node"):
        made(recipe, tmp_path / "b")


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_local_ray_cluster_writes_the_same_bytes(
    tmp_path: Path, source: dict[str, Any], make_recipe: Callable[..., Run], small_shards: None
) -> None:
    ray = pytest.importorskip("ray")
    here = made(recipe_of(make_recipe, source, workers=1), tmp_path / "here")
    try:
        there = recipe_of(make_recipe, source, executor="ray", workers=4)
        assert made(there, tmp_path / "there") == here
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.6, 1.5, 2.5])
def test_killed_at_any_time_and_run_again(
    tmp_path: Path, source: dict[str, Any], write_rows: Callable[..., Path], seconds: float
) -> None:
    """kill -9 of the whole process, then the same command: the bytes of an unbroken build."""
    rows = [{"id": f"e{i}", "text": prose(i, 60)} for i in range(900)]
    for part in range(3):
        write_rows(f"many/more-{part}.jsonl", rows[part::3])
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "name = 'r'\n[data]\nworkers = 2\n[[data.knowledge]]\nsource = 'local-text'\n"
        f"path = '{source['path']}'\n[instruct]\nenabled = false\n[adapt]\nenabled = false\n"
    )

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _RUN, str(recipe), str(tmp_path / out)]
        marked = {**os.environ, MARK: str(tmp_path)}
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=quiet, env=marked)

    assert start("whole").wait(120) == 0
    broken = start("broken")
    time.sleep(seconds)
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    assert all_gone(str(tmp_path), 5)
    assert start("broken").wait(120) == 0
    for name in FILES:
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


_RUN = """
import sys
from pathlib import Path
from medexpert.data.build import build, plan
from medexpert.recipe import load
plan.SHARD_BYTES = 200_000
if __name__ == "__main__":
    build(load(Path(sys.argv[1])), Path(sys.argv[2]), key="k", progress=print)
"""
