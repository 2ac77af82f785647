"""The real door under torchrun: any number of processes, one training.

Every process is started here and waited for here; one computing thread each.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import medexpert
from living import MARK, all_gone, living
from medexpert.model import base
from medexpert.pipeline import Pipeline
from medexpert.recipe import load

SETTINGS = [
    'knowledge.dtype="float32"', 'knowledge.compile="off"', "knowledge.max_tokens=3000",
    "knowledge.rows_per_step=4", "knowledge.checkpoint_every=1", "knowledge.checkpoints=4",
]  # fmt: skip


def sets(lines: list[str]) -> list[str]:
    return [part for line in lines for part in ("--set", line)]


class Door:
    """`medexpert` commands on one recipe, in folders of their own with the same data."""

    def __init__(self, recipe: Callable[..., Path], lines: list[str], stage: str) -> None:
        self.recipe, self.lines, self.stage = recipe, lines, stage
        self.mark = uuid.uuid4().hex

    def prepared(self, name: str) -> tuple[Path, Path]:
        """(recipe, run folder), its data built."""
        path = self.recipe(name)
        pipeline = Pipeline(load(path, self.lines), lambda line: None)
        if not (pipeline.root / "data" / "manifest.json").exists():
            pipeline.run([pipeline.data_step()])
        return path, pipeline.root

    def start(
        self, path: Path, processes: int, *more: str, launch: str = "torch.distributed.run"
    ) -> subprocess.Popen[str]:
        """`medexpert train` in so many processes, under torchrun where there are several."""
        launcher = [
            "-m", launch, "--standalone", f"--nproc-per-node={processes}",
        ] if processes > 1 else []  # fmt: skip
        command = [
            sys.executable, *launcher, "-m", "medexpert", "train", self.stage, str(path),
            *sets([*self.lines, *more]),
        ]  # fmt: skip
        return begun(command, self.mark)

    def train(self, name: str, processes: int, *more: str) -> Path:
        """The stage's folder, trained to its end."""
        path, root = self.prepared(name)
        child = self.start(path, processes, *more)
        _, told = child.communicate(timeout=300)
        assert child.returncode == 0, told
        return root / self.stage


def begun(command: list[str], mark: str, **more: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", MARK: mark, **more,
    }  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
        # A worker of a parallel test run ignores the signal, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def log(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == "step"]


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def same_training(one: Path, two: Path, *, within: float = 1e-5) -> None:
    """The same rows in the same steps, and losses and weights apart by rounding alone."""
    first, second = log(one), log(two)
    for name in ("step", "tokens", "loss_tokens", "learning_rate"):
        assert [row[name] for row in first] == [row[name] for row in second]
    losses = [[row["loss"] for row in rows] for rows in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=within)
    a, b = (base.load(f / "model", dtype=torch.float32)[0].state_dict() for f in (one, two))
    assert set(a) == set(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=within)


def reached(folder: Path, step: int, child: subprocess.Popen[str]) -> None:
    """Wait until so many steps are in a checkpoint."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        folders = (p.parent for p in folder.glob("state/step-*/manifest.json"))
        done = [int(p.name[5:]) for p in folders]
        if done and max(done) >= step:
            return
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not reached")


@pytest.mark.slow
def test_two_processes_train_what_one_does(recipe: Callable[..., Path]) -> None:
    door = Door(recipe, [*SETTINGS, "knowledge.max_tokens=1500"], "knowledge")
    two = door.train("two", 2)
    path, root = door.prepared("one")
    pipeline = Pipeline(load(path, door.lines), lambda line: None)
    pipeline.run([pipeline.stage_step("knowledge")])  # here: a third start would take as long
    one = root / "knowledge"
    assert (facts(one)["processes"], facts(two)["processes"]) == (1, 2)
    assert len(log(one)) >= 3
    same_training(one, two)
    assert all_gone(door.mark, 5)


@pytest.mark.slow
@pytest.mark.parametrize("then", [1, 4])
def test_killed_on_two_processes_it_goes_on_with_another_number(
    recipe: Callable[..., Path], then: int
) -> None:
    door = Door(recipe, SETTINGS, "knowledge")
    whole = door.train("whole", 1)
    total = len(log(whole))
    path, root = door.prepared("cut")
    child = door.start(path, 2)
    reached(root / "knowledge", total // 2, child)
    for process in living(door.mark):  # the launcher first or last: all die
        os.kill(process, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert not (root / "knowledge" / "manifest.json").exists()
    assert all_gone(door.mark, 5)

    child = door.start(path, then)
    _, told = child.communicate(timeout=300)
    assert child.returncode == 0, told
    at = int(told.split("continuing after step ")[1].split()[0])
    assert total // 2 <= at < total
    same_training(whole, root / "knowledge")
    assert facts(root / "knowledge")["processes"] == then


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ['adapt.method="lora"', "adapt.lora.dropout=0.0"],
        ['adapt.method="cpoly"', "adapt.cpoly.dropout=0.0"],
        ['adapt.method="lora"', "adapt.lora.dropout=0.0", 'adapt.sharding="replicate"'],
    ],
    ids=["lora", "cpoly", "replicated"],
)
def test_adapters_on_two_processes(recipe: Callable[..., Path], settings: list[str]) -> None:
    lines = [
        "knowledge.enabled=false", "instruct.enabled=false", 'adapt.dtype="float32"',
        'adapt.compile="off"', "adapt.rows_per_step=2", "adapt.learning_rate=1e-3",
    ]  # fmt: skip
    door = Door(recipe, [*lines, *settings], "adapt")
    one, two = door.train("one", 1), door.train("two", 2)
    same_training(one, two)
    assert facts(two)["tasks"] == facts(one)["tasks"]
    files = [
        {str(p.relative_to(f)) for p in f.rglob("*.safetensors")} for f in (one, two)
    ]  # fmt: skip
    assert files[0] == files[1]
    assert any(name.startswith("adapter/") for name in files[0])


def whole_run(recipe: Callable[..., Path], name: str) -> tuple[subprocess.Popen[str], Path, str]:
    """(`medexpert run` on two processes that train for long, its run folder, their mark)."""
    lines = [
        *SETTINGS, "processes=2", "instruct.enabled=false", "adapt.enabled=false",
        "evaluate.points=[]", "knowledge.max_tokens=0", "knowledge.epochs=40",
    ]  # fmt: skip
    path = recipe(name)
    root = Pipeline(load(path, lines), lambda line: None).root
    mark = uuid.uuid4().hex
    child = begun([sys.executable, "-m", "medexpert", "run", str(path), *sets(lines)], mark)
    reached(root / "knowledge", 2, child)
    return child, root, mark


def last_step_is_kept(root: Path) -> bool:
    newest = max(p.name for p in (root / "knowledge" / "state").glob("step-*"))
    return int(newest[5:]) == log(root / "knowledge")[-1]["step"]


@pytest.mark.slow
def test_ctrl_c_that_only_the_run_gets_stops_its_processes(recipe: Callable[..., Path]) -> None:
    child, root, mark = whole_run(recipe, "one")
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=240)
    assert child.returncode == 130, told
    assert all_gone(mark, 60)
    assert last_step_is_kept(root)
    assert log(root / "knowledge")[-1]["step"] < 40  # it did not train on to its end


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["run", "torchrun"])
def test_a_run_that_is_killed_leaves_no_process_behind(
    recipe: Callable[..., Path], killed: str
) -> None:
    child, root, mark = whole_run(recipe, killed)
    if killed == "run":
        child.kill()
        child.communicate()
        assert all_gone(mark, 120)
        assert last_step_is_kept(root)
    else:
        launcher = [
            pid for pid in living(mark)
            if b"medexpert.launch" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]  # fmt: skip
        os.kill(launcher[0], signal.SIGKILL)
        _, told = child.communicate(timeout=240)
        assert child.returncode == 2, told
        assert all_gone(mark, 60)
        assert "training with 2 processes ended with code -9" in told


@pytest.mark.slow
def test_a_recipe_starts_its_own_processes_and_stops_them(recipe: Callable[..., Path]) -> None:
    lines = [
        *SETTINGS, "processes=2", "instruct.enabled=false", "adapt.enabled=false",
        "evaluate.points=[]", "knowledge.max_tokens=0", "knowledge.epochs=40",
    ]  # fmt: skip
    path = recipe("self")
    root = Pipeline(load(path, lines), lambda line: None).root
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "medexpert", "run", str(path), *sets(lines)]
    child = begun(command, mark)
    reached(root / "knowledge", 2, child)
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=240)
    assert child.returncode == 130, told
    assert all_gone(mark, 5)
    assert "run the same command to continue" in told.splitlines()[-1], told
    assert "Traceback" not in told, told
    assert last_step_is_kept(root)

    short = [line for line in lines if "epochs" not in line and "max_tokens=0" not in line]
    shutil.rmtree(root / "knowledge" / "state")  # other settings are refused beside it
    child = begun([*command[:4], str(path), *sets(short)], mark)
    _, told = child.communicate(timeout=300)
    assert child.returncode == 0, told
    assert facts(root / "knowledge")["processes"] == 2


LONG = [*SETTINGS, "knowledge.max_tokens=0", "knowledge.epochs=40"]


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["medexpert.launch", "torch.distributed.run"])
def test_ctrl_c_of_a_run_started_by_hand(recipe: Callable[..., Path], launch: str) -> None:
    door = Door(recipe, LONG, "knowledge")
    path, root = door.prepared("hand")
    child = door.start(path, 2, launch=launch)
    reached(root / "knowledge", 2, child)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=240)
    assert all_gone(door.mark, 5)
    (line,) = [line for line in told.splitlines() if line.startswith("medexpert: ")]
    assert "knowledge stopped after step" in line
    assert line.endswith("run the same command to continue")
    assert "KeyboardInterrupt" not in told, told
    assert str(Path(medexpert.__file__).parent) not in told, told  # no line of our code
    if launch == "medexpert.launch":
        assert child.returncode == 130, told
        assert "Traceback" not in told, told
        assert "signal" not in told, told  # what torchrun itself would say of it


def _imports_torch(child: subprocess.Popen[str]) -> bool:
    """Whether it is past its own start: what it does now is a command's work."""
    return "libtorch_python" in Path(f"/proc/{child.pid}/maps").read_text()


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("step", [0, 2], ids=["opening", "training"])
def test_each_process_that_is_interrupted_ends_with_130(
    recipe: Callable[..., Path], step: int
) -> None:
    door = Door(recipe, LONG, "knowledge")
    path, root = door.prepared("each")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "medexpert", "train", "knowledge", str(path), *sets(LONG)]
    children = [
        begun(command, door.mark, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
              MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        for rank in range(2)
    ]  # fmt: skip
    try:
        if step:
            reached(root / "knowledge", step, children[0])
        else:
            until = time.monotonic() + 120
            while not all(_imports_torch(child) for child in children):
                assert time.monotonic() < until
                time.sleep(0.01)
        for child in children:
            child.send_signal(signal.SIGINT)
        told = [child.communicate(timeout=240)[1] for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [130, 130], told
    assert "medexpert: " not in told[1], told  # of several processes one speaks
    assert "Traceback" not in "".join(told), told
    assert told[0].splitlines()[-1].endswith("run the same command to continue")


@pytest.mark.slow
def test_an_error_in_the_processes_is_told_without_a_traceback(recipe: Callable[..., Path]) -> None:
    path = recipe("wrong")
    lines = [*SETTINGS, "processes=2", "knowledge.sequence_length=4096", "evaluate.points=[]"]
    mark = uuid.uuid4().hex
    child = begun([sys.executable, "-m", "medexpert", "run", str(path), *sets(lines)], mark)
    _, told = child.communicate(timeout=240)
    assert child.returncode == 2, told
    assert "knowledge.sequence_length is 4096, but the model reads at most 2048" in told
    assert "Traceback" not in told, told
    assert all_gone(mark, 5)
