"""Several training processes: what torchrun told this one, and starting them for a recipe.

`medexpert run` with `processes = 8` starts torchrun for each stage; on several machines the user's
scheduler starts it (`launch/` holds examples). Evaluation and data stay in one process. By hand:

    python -m medexpert.launch --nproc-per-node 8 -m medexpert train knowledge RECIPE
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from medexpert.records import UserError

HELD = "MEDEXPERT_RUN_FOLDER_HELD"
"""Set for the processes started here: their run folder is locked by the one that started them."""
GRACE = 600
"""Seconds that the processes have after a signal; torchrun's own 30 are few for a checkpoint."""
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl(2)."""


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's number, 0 when there is only one."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if launched() else 1


def holds(root: Path) -> bool:
    """Whether the process that started this one holds the lock of this run folder."""
    return os.environ.get(HELD) == str(root.resolve())


def train(stage: str, root: Path, processes: int, kept: Sequence[int] = ()) -> None:
    """Train a stage of the recipe in `root/recipe.json` with torchrun on this machine.

    torchrun inherits the descriptors `kept`: the lock of the run folder is held on when only this
    process is killed. SIGINT and SIGTERM are passed on, and the processes are waited for while they
    write their checkpoint. Raises KeyboardInterrupt after such a signal, UserError when
    training failed: what went wrong was printed by the first process.
    """
    command = [
        sys.executable, "-m", "medexpert.launch", "--standalone",
        f"--nproc-per-node={processes}", "-m", "medexpert", "train", stage,
        str(root / "recipe.json"),
    ]  # fmt: skip
    held = {**os.environ, HELD: str(root.resolve())}
    # A group of its own: Ctrl-C of a terminal comes to this process alone, and is passed on once.
    child = subprocess.Popen(command, env=held, pass_fds=tuple(kept), process_group=0)
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
    if code:
        raise UserError(
            f"training with {processes} processes ended with code {code}; see above",
            where=str(root / stage),
        )


def end_with_torchrun() -> None:
    """Let the kernel kill this process when the torchrun that started it is killed (Linux).

    It would train on alone, in a session of its own, beside the run that is started next.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_parent(signal.SIGKILL)


def _end_with_parent(by: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, int(by), 0, 0, 0)


def _torchrun() -> None:
    """torchrun without its tracebacks: the training processes have told what happened.

    `python -m medexpert.launch` takes torchrun's own options.
    """
    if HELD in os.environ:  # the run that started it: when it is killed a checkpoint is written
        _end_with_parent(signal.SIGTERM)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE))
    level = os.environ.setdefault("LOGLEVEL", "ERROR")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    # Not every module of torchrun reads LOGLEVEL: one warns of each signal it passes on.
    logging.getLogger("torch.distributed.elastic").setLevel(level)

    def stop(number: int, frame: FrameType | None) -> None:
        raise SignalException("asked to stop", signal.Signals(number))

    # torchrun handles signals once the nodes have met. While it waits for them as process 1 of a
    # container, the kernel drops a signal without a handler: the pod would last its grace period.
    signal.signal(signal.SIGTERM, stop)
    try:
        main(sys.argv[1:])
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
    except KeyboardInterrupt:  # before it had started its processes
        sys.exit(128 + signal.SIGINT)
    except ChildFailedError:
        sys.exit(1)


if __name__ == "__main__":
    _torchrun()
