"""How processes meet, and how Ctrl-C ends their waiting."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from medexpert.records import UserError
from medexpert.train import meeting
from medexpert.train.faults import Interrupted
from medexpert.train.meeting import open_world
from medexpert.train.parallel import World, agree, sum_over


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*meeting.LAUNCHER, *meeting.ADDRESS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "somewhere")  # some clusters set it for every job
    with open_world() as world:
        assert (world.rank, world.size, world.first) == (0, 1, True)
        assert sum_over(world, 1.5, 2) == [1.5, 2.0]
        assert agree(world, True)
        said: list[str] = []
        world.only_first(said.append)("here")
        World(1, 2, 1, world.device).only_first(said.append)("not here")
        assert said == ["here"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "x", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, "whole numbers are expected"),
        ({"RANK": "1", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, "RANK 1, LOCAL_RANK 0 of 1"),
    ],
)
def test_half_set_environment_is_an_error(
    given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*meeting.LAUNCHER, *meeting.ADDRESS):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message), open_world():
        pass


@pytest.mark.parametrize(
    ("error", "goodbye", "code"),
    [
        (None, True, None),
        (Interrupted("after step 3"), True, None),
        (UserError("out of memory"), False, 2),
        (OSError(5, "Input/output error"), False, 2),
        (torch.OutOfMemoryError("CUDA out of memory"), False, 2),
        (KeyboardInterrupt(), False, 130),
        (RuntimeError("a bug"), False, 1),
    ],
)
def test_on_gpus_an_error_does_not_wait_for_processes_that_wait_for_this_one(
    error: BaseException | None, goodbye: bool, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip((*meeting.LAUNCHER, *meeting.ADDRESS), "020xy", strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    asked: list[str] = []
    monkeypatch.setattr(dist, "init_process_group", lambda *a, **k: None)
    monkeypatch.setattr(dist, "new_group", lambda *a, **k: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: asked.append("goodbye"))
    left: list[int] = []
    monkeypatch.setattr(meeting.atexit, "register", lambda leave, code: left.append(code))
    with suppress(BaseException), open_world() as world:
        assert (world.size, world.device) == (2, torch.device("cuda", 0))
        if error is not None:
            raise error
    assert bool(asked) == goodbye
    assert left == ([] if code is None else [code])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def begun(work: str, rank: int, port: int, **more: str) -> subprocess.Popen[str]:
    """One of two processes, at work."""
    return subprocess.Popen(
        [sys.executable, "-c", work], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **more},
        # A worker of a parallel test run ignores the signal, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_ends_the_wait_for_a_process_that_never_comes(rank: int) -> None:
    work = "from medexpert.train.meeting import *; print(flush=True); open_world().__enter__()"
    child = begun(work, rank, free_port())
    try:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(3)  # it does wait
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 130, told
    said = [line for line in told.splitlines() if line.startswith("medexpert: ")]
    assert said == ["medexpert: stopped; run the same command to continue"][rank:]


LEFT_ALONE = """
import os
from medexpert.records import UserError
from medexpert.train.meeting import open_world
from medexpert.train.parallel import agree, barrier
try:
    with open_world() as world:
        barrier(world)
        if not world.first:
            os._exit(3)
        agree(world, True)
except UserError as error:
    print(error)
"""


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_process_that_is_killed_is_one_line_on_the_others() -> None:
    port = free_port()
    children = [begun(LEFT_ALONE, rank, port) for rank in (0, 1)]
    try:
        (told, errors), _ = (child.communicate(timeout=120) for child in children)
    finally:
        for child in children:
            child.kill()
    assert children[0].returncode == 0, errors
    assert told.startswith("process 0 of 2: another process has ended or does not answer (")
    assert "gloo" not in told
    assert "worker" not in told  # its advice to programmers


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_what_is_wrong_here_is_not_said_of_another_process() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = free_port()
        children = [
            begun(LEFT_ALONE, 0, taken.getsockname()[1]),
            *(begun(LEFT_ALONE, rank, port, GLOO_SOCKET_IFNAME="nowhere") for rank in (0, 1)),
        ]
        try:
            told = [child.communicate(timeout=120) for child in children]
        finally:
            for child in children:
                child.kill()
    for rank, (said, errors) in zip((0, 0, 1), told, strict=True):
        assert said.startswith(f"process {rank} of 2: it cannot be reached by the others ("), errors
    assert "address already in use" in told[0][0]
    assert "nowhere" in told[1][0]


def test_where_the_others_have_gone_no_mark_is_left_in_the_run_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def gone(*given: Any) -> None:
        assert len(list(tmp_path.iterdir())) == 1
        raise RuntimeError("gloo/ connection closed")

    monkeypatch.setattr(meeting, "by_first", lambda world, make: make())
    monkeypatch.setattr(meeting, "from_first", lambda world, value: value)
    monkeypatch.setattr(meeting, "sum_over", gone)
    with pytest.raises(RuntimeError, match="connection closed"):
        meeting.require_shared(World(0, 2, 0, torch.device("cpu")), tmp_path)
    assert not list(tmp_path.iterdir())
