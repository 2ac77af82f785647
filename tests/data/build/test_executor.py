"""Processes that end when they should, one pool, progress, and errors told whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from invented import prose
from living import MARK, all_gone, living
from medexpert.data.build import build, executor, phases, plan, workers
from medexpert.data.build.cluster import Task
from medexpert.data.build.plan import Job
from medexpert.data.build.progress import Meter
from medexpert.data.build.store import Store
from medexpert.recipe import Run
from medexpert.records import UserError, unknown_name

SLOW = """
import os, sys, time
from pathlib import Path
from medexpert.data.build import phases, plan
from medexpert.records import UserError
plan.SHARD_BYTES = 1000

def slow(job, store, task):
    if task == 0 and {fails}:
        time.sleep(0.5)
        raise UserError("this row is bad", where="rows.jsonl:7")
    Path({started!r}).write_text("")
    time.sleep(600)

phases.PHASES["clean"] = slow  # in the workers too: they load this file as their main module
if __name__ == "__main__":
    from medexpert.__main__ import main
    sys.exit(main(["data", "build", {recipe!r}]))
"""


@pytest.fixture
def slow_build(
    tmp_path: Path, write_rows: Callable[..., Path]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start(fails=False) -> a build whose cleaning tasks never end, once its workers run."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs /proc")
    for part in range(3):
        rows = [{"id": f"{part}-{i}", "text": prose(i, 6)} for i in range(8)]
        write_rows(f"own/{part}.jsonl", rows)
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f"name = 'r'\noutput = '{tmp_path / 'run'}'\n[data]\nquarantine = []\nworkers = 2\n"
        f"[[data.knowledge]]\nsource = 'local-text'\npath = '{tmp_path / 'own'}'\n"
        "[instruct]\nenabled = false\n[adapt]\nenabled = false\n"
    )

    def start(*, fails: bool = False) -> subprocess.Popen[str]:
        started, script = tmp_path / "started", tmp_path / "slow.py"
        script.write_text(SLOW.format(fails=fails, started=str(started), recipe=str(recipe)))
        process = subprocess.Popen(
            [sys.executable, str(script)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, MARK: str(tmp_path)},
            start_new_session=True,
            text=True,
        )
        end = time.monotonic() + 60
        while not started.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert started.exists()
        return process

    yield start
    for left in living(str(tmp_path)):
        os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("whole_terminal", [False, True])
def test_ctrl_c_ends_at_once(
    tmp_path: Path, slow_build: Callable[..., subprocess.Popen[str]], whole_terminal: bool
) -> None:
    process = slow_build()
    assert len(living(str(tmp_path))) >= 3  # the fork server and the workers as well
    began = time.monotonic()
    if whole_terminal:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 5  # a task takes ten minutes
    assert process.returncode == 130
    assert "run the same command to continue" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert all_gone(str(tmp_path), 3)


@pytest.mark.slow
def test_bad_input_in_one_task_does_not_wait_for_the_others(
    tmp_path: Path, slow_build: Callable[..., subprocess.Popen[str]]
) -> None:
    process = slow_build(fails=True)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said.strip().splitlines()[-1] == "medexpert: rows.jsonl:7: this row is bad"
    assert all_gone(str(tmp_path), 3)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_a_killed_build(
    tmp_path: Path, slow_build: Callable[..., subprocess.Popen[str]], how: signal.Signals
) -> None:
    process = slow_build()
    process.send_signal(how)
    process.communicate(timeout=30)
    assert all_gone(str(tmp_path), 5)


# -- one pool --------------------------------------------------------------------------------------


@pytest.fixture
def recipe(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run]
) -> Callable[..., Run]:
    for part in range(3):
        rows = [{"id": f"{part}-{i}", "text": prose(i, 6)} for i in range(12)]
        write_rows(f"own/{part}.jsonl", rows)
    own = {"source": "local-text", "path": str(tmp_path / "own")}
    return lambda **data: make_recipe(knowledge=[own], quarantine=[], **data)


@pytest.mark.parametrize("threshold", [0, 10**6])
def test_one_pool_for_all_phases_and_the_same_bytes(
    tmp_path: Path,
    recipe: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    threshold: int,
) -> None:
    monkeypatch.setattr(plan, "SHARD_BYTES", 1000)
    monkeypatch.setattr(executor, "WORTH_COMPARING_APART", threshold)
    given: list[str] = []
    pools: list[int] = []
    run, started = workers.Workers.run, workers._started

    def noted(self: Any, call: Any, work: str, phase: str, tasks: Any) -> Iterator[int]:
        given.append(phase)
        return run(self, call, work, phase, tasks)

    def counted(count: int) -> Any:
        pools.append(count)
        return started(count)

    monkeypatch.setattr(workers.Workers, "run", noted)
    monkeypatch.setattr(workers, "_started", counted)
    for name, count in (("one", 1), ("two", 2)):
        build(recipe(workers=count), tmp_path / name, key="k", progress=lambda line: None)
    assert pools == [2]
    assert given == (["clean"] if threshold else ["clean", "candidates", "verify"])
    for name in ("knowledge.jsonl", "drops.jsonl", "heldout.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# -- progress and errors ---------------------------------------------------------------------------


def test_progress_tells_tasks_rows_rate_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    store = Store(str(tmp_path))
    store.write_json("clean/00000.json", {"read": 999})  # of an earlier run: not in the rate
    meter = Meter(store, "clean", 8)
    meter._started -= 10
    assert meter.line() == "data clean: 1 of 8 tasks after 10 s"
    store.write_json("clean/00001.json", {"read": 3000})
    store.write_json("clean/00002.json", {"read": 2000})
    line = "data clean: 3 of 8 tasks, 5,000 rows (500 rows/s), 0.20 tasks/s, 25 s left"
    assert meter.line() == line
    store.write_json("verify/00000.json", {"pairs": 1})
    other = Meter(store, "verify", 2)
    other._started -= 10
    assert other.line() == "data verify: 1 of 2 tasks after 10 s"


def test_the_nearest_name_survives_the_way_from_a_task(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    error = unknown_name("reader", "jsonl", ["jsonl2", "csv"], where="x")
    for task in (2, 3):
        phases.leave_error(store, "clean", task, error)
    with pytest.raises(UserError, match="did you mean 'jsonl2'") as told:
        phases.raise_error(store, "clean", range(5))
    assert str(told.value) == str(error)
    phases.raise_error(store, "clean", range(5))  # told once


def test_a_shard_of_another_build_is_refused(tmp_path: Path, recipe: Callable[..., Run]) -> None:
    chosen = recipe()
    store = Store(str(tmp_path / "work"))
    job = Job(chosen, "mine", store.url, plan.plan(chosen), "")
    with pytest.raises(UserError, match=r"shard 0 of stage knowledge is not cleaned yet"):
        phases.shard_infos(job, store, "knowledge")
    for shard in job.shards:
        store.write_json(phases.marker("clean", shard.number), {"key": "other", "records": 1})
    with pytest.raises(UserError, match=r"shard 0 of stage knowledge is of another build"):
        phases.shard_infos(job, store, "knowledge")


def test_a_task_elsewhere_reads_relative_paths_as_the_command_did(
    tmp_path: Path, make_recipe: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "own").mkdir(parents=True)
    (tmp_path / "here" / "own" / "a.txt").write_text(prose(1, 6))
    store = Store(str(tmp_path / "work"))
    monkeypatch.chdir(tmp_path / "here")
    chosen = make_recipe(knowledge=[{"source": "local-text", "path": "own"}], quarantine=[])
    job = Job(chosen, "k", store.url, plan.plan(chosen), "")
    store.write(phases.JOB, job.to_json().encode())
    task = Task(store.url, "clean", [0])
    monkeypatch.chdir(tmp_path)
    task(None, rank=0)
    assert store.read_json(phases.marker("clean", 0))["records"] == 1
    task.folder = str(tmp_path / "absent")
    task(None, rank=0)
    with pytest.raises(UserError, match="a node cannot open the folder that the build was started"):
        phases.raise_error(store, "clean", [0])
