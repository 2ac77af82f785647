"""Slurm jobs are submitted once; what they left is told, and what they did not do goes again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invented import prose
from medexpert.data.build import build
from medexpert.data.build.phases import leave_error, run_task
from medexpert.data.build.store import Store
from medexpert.recipe import Run
from medexpert.records import UserError


class Cluster:
    """Stand-ins for `sbatch` and `squeue`; `queue` is what squeue prints."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.calls, self.queue = folder / "bin", folder / "calls", folder / "queue"
        self.bin.mkdir(parents=True)
        self.calls.mkdir()
        self.queue.write_text("")
        self.put("sbatch", f'n=$(ls {self.calls} | wc -l)\ntouch {self.calls}/$n\necho "job 10$n"')
        self.put("squeue", f"cat {self.queue}")

    def put(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{script}\n")
        (self.bin / name).chmod(0o755)

    def submitted(self) -> int:
        return len(list(self.calls.iterdir()))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path / "cluster")
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    return made


@pytest.fixture
def run(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run]
) -> Callable[..., Any]:
    rows = [{"id": f"d{i}", "text": prose(i, 6)} for i in range(12)]
    own = {"source": "local-text", "path": str(write_rows("own/rows.jsonl", rows))}
    settings = {"executor": "slurm", "slurm": {"partition": "cpu"}, "quarantine": []}

    def start(key: str = "k", **data: Any) -> Any:
        recipe = make_recipe(knowledge=[own], **{**settings, **data})
        return build(recipe, tmp_path / "out", key=key, progress=lambda line: None)

    return start


def test_waiting_jobs_are_not_submitted_again(
    tmp_path: Path, cluster: Cluster, run: Callable[..., Any]
) -> None:
    with pytest.raises(UserError, match=r"submitted to Slurm: clean (\d+), candidates (\d+)"):
        run()
    store = Store(str(tmp_path / "out" / ".work"))
    jobs, before = store.read_json("slurm.json"), cluster.submitted()
    assert list(jobs) == ["clean", "candidates", "verify"]
    cluster.queue.write_text(f"{jobs['clean']} RUNNING None\n{jobs['verify']} PENDING Dependency\n")
    told = rf"still waiting/running: clean {jobs['clean']}, verify {jobs['verify']};"
    with pytest.raises(UserError, match=told):
        run()
    with pytest.raises(UserError, match=told):  # an edited recipe: the jobs work in this folder
        run(key="another")
    with pytest.raises(UserError, match=told):
        run(executor="local")
    cluster.queue.write_text(f"{jobs['verify']} PENDING DependencyNeverSatisfied\n")
    with pytest.raises(UserError, match=rf"run `scancel {jobs['verify']}`, then the same command"):
        run()
    assert cluster.submitted() == before
    # Gone, with one phase done: the rest goes again.
    cluster.put("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    run_task(store.url, "clean", 0)
    with pytest.raises(UserError, match=r"submitted to Slurm: candidates \d+, verify \d+;"):
        run()
    assert list(store.read_json("slurm.json")) == ["candidates", "verify"]
    for phase in ("candidates", "verify"):
        for task in range(16):
            run_task(store.url, phase, task)
    assert run()["key"] == "k"
    assert not (tmp_path / "out" / ".work").exists()


def test_squeue_missing_or_failing(
    tmp_path: Path, cluster: Cluster, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="submitted to Slurm"):
        run()
    cluster.put("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match="squeue failed: Unable to contact slurm controller"):
        run()
    os.remove(cluster.bin / "squeue")
    monkeypatch.setenv("PATH", str(cluster.bin))
    with pytest.raises(UserError, match=r"slurm\.json: squeue was not found.*delete this file"):
        run()


def test_sbatch_that_refuses(cluster: Cluster, run: Callable[..., Any]) -> None:
    cluster.put("sbatch", "exit 3")
    with pytest.raises(UserError, match=r"sbatch refused the job of phase clean \(exit status 3"):
        run()


def test_bad_input_in_a_job_is_told_once_with_what_followed(
    tmp_path: Path, cluster: Cluster, run: Callable[..., Any]
) -> None:
    with pytest.raises(UserError, match="submitted to Slurm"):
        run()
    store = Store(str(tmp_path / "out" / ".work"))
    leave_error(store, "clean", 0, UserError("bad", where="x", nearest="good"))
    run_task(store.url, "candidates", 3)  # has nothing to read
    with pytest.raises(UserError, match=r"x: bad; did you mean 'good'\?"):
        run()
    with pytest.raises(UserError, match="submitted to Slurm: clean"):
        run()
