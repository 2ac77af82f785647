"""A world of processes on this machine, for a test file that is also run as a script."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medexpert.train.meeting import open_world


def launch(script: str, *words: str) -> None:
    """Run a test file as a script: processes are not forked from one that runs tests."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script, *words],
        capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def run(size: int, work: Callable[..., None], *given: Any) -> None:
    """`work(world, *given)` in each of `size` processes, forked from this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _process, (size, port, work, given), size, start_method="fork"
    )


def _process(
    rank: int, size: int, port: int, work: Callable[..., None], given: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    with open_world() as world:
        work(world, *given)
