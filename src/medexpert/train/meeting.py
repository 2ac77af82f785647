"""Processes meet: each reads what torchrun told it, and waits for the others."""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from medexpert import manifest, signals
from medexpert.model.base import default_device
from medexpert.records import UserError
from medexpert.train.faults import Interrupted, out_of_memory
from medexpert.train.parallel import World, from_first, sum_over
from medexpert.train.turns import by_first

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
ANSWER = timedelta(minutes=30)
"""How long a process is waited for where all work alike: one that is lost keeps no others idle."""
PATIENCE = timedelta(hours=12)
"""How long it is waited for where it works alone: the first one may tokenise a large corpus."""
GRACE = 1.0
"""Seconds in which Python itself may answer Ctrl-C."""
OWN = ("gloo/transport/tcp/device.cc", "server socket has failed")
"""In what torch says of a network or a port that this process asked for in vain."""


@contextmanager
def open_world() -> Iterator[World]:
    """Join the processes that torchrun started: gloo on CPUs, NCCL on GPUs; alone without torchrun.

    Raises UserError when torchrun's variables are set in part, or do not fit this machine, and
    when another process has gone. On GPUs of several processes one that leaves by an error is ended
    when Python ends, without a goodbye.
    """
    given = {name: os.environ[name] for name in LAUNCHER if os.environ.get(name)}
    if not given:
        yield World(0, 1, 0, default_device())
        return
    rank, size, local_rank = _read_environment()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank} of this machine has no GPU of its own: "
                f"{torch.cuda.device_count()} are here",
                where="torchrun --nproc-per-node",
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, local_rank, device)
        return
    # gloo beside NCCL: small sums of numbers on the CPU do not wait for the GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _others_named(rank, size), _interruptible():
        dist.init_process_group(backend, timeout=ANSWER)
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        with _others_named(rank, size):
            yield World(rank, size, local_rank, device, patient)
    except BaseException as error:
        # An interruption is one of all processes. After another error they may wait in a sum for
        # this one, and NCCL, asked to end, would wait for them.
        if device.type == "cuda" and not isinstance(error, Interrupted):
            atexit.register(_leave, _exit_code(error))
        else:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _exit_code(error: BaseException) -> int:
    """The door's, see `__main__.main`; 1 for what it does not catch."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    told = isinstance(error, (UserError, OSError, MemoryError))
    return 2 if told or (isinstance(error, RuntimeError) and out_of_memory(error)) else 1


def _leave(code: int) -> None:
    """End the process here: Python's own end would ask NCCL as well."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # a closed pipe is no reason to stay
        os._exit(code)


def require_shared(world: World, folder: Path) -> None:
    """Raise UserError on every process unless all see what the first one writes into `folder`.

    Collective. Else hours of tokenising would pass before the others miss the tokens.
    """
    if world.size == 1:
        return

    def leave() -> Path:
        with manifest.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".seen-", dir=folder)
        os.close(handle)
        return Path(name)

    mark = by_first(world, leave)
    try:
        # A new name: what a network file system remembers of old ones does not count.
        name = from_first(world, mark.name if mark else "")
        unseen = int(sum_over(world, not (folder / name).exists())[0])
    finally:
        if mark:
            mark.unlink(missing_ok=True)
    if unseen:
        raise UserError(
            f"{unseen} of {world.size} processes do not see here what the first one writes",
            where=str(folder),
            allowed="a run folder on storage that all machines share",
        )


@contextmanager
def _others_named(rank: int, size: int) -> Iterator[None]:
    """One line instead of a traceback on each of many processes when one of them has gone."""
    try:
        yield
    except RuntimeError as error:
        met = isinstance(error, (dist.DistNetworkError, dist.DistStoreError))
        if not met and "gloo/" not in str(error):
            raise
        why = str(error).partition("\n")[0].rpartition("] ")[2]
        if any(part in str(error) for part in OWN):
            raise UserError(
                f"it cannot be reached by the others ({why})",
                where=f"process {rank} of {size}",
                allowed="a network and a port of this machine: GLOO_SOCKET_IFNAME, MASTER_PORT",
            ) from error
        raise UserError(
            f"another process has ended or does not answer ({why.partition('. ')[0]}): see what "
            "that one said; the same command continues from the last checkpoint",
            where=f"process {rank} of {size}",
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT ends the process with code 130 although the block cannot be left; nothing is lost.

    A block that is left within `GRACE` seconds of the signal ends as usual, by KeyboardInterrupt.
    Outside the main thread, where signals are the caller's, nothing changes.
    """

    def listen(reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] != signal.SIGINT:
                continue
            if not select.select([reader], [], [], GRACE)[0]:
                if os.environ["RANK"] == "0":  # of several processes one speaks
                    os.write(2, b"\nmedexpert: stopped; run the same command to continue\n")
                os._exit(130)

    with signals.heard(listen):
        yield


def _read_environment() -> tuple[int, int, int]:
    names = [*LAUNCHER, *ADDRESS]
    if os.environ.get("WORLD_SIZE") == "1":
        names = list(LAUNCHER)
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"the environment names several processes, but {', '.join(missing)} is not set",
            where="environment",
            allowed="start with torchrun, or unset " + ", ".join(LAUNCHER),
        )
    try:
        rank, size, local_rank = (int(os.environ[name]) for name in LAUNCHER)
    except ValueError:
        found = ", ".join(f"{name}={os.environ[name]!r}" for name in LAUNCHER)
        raise UserError(f"whole numbers are expected: {found}", where="environment") from None
    if not 0 <= rank < size or not 0 <= local_rank < size:
        raise UserError(f"RANK {rank}, LOCAL_RANK {local_rank} of {size}", where="environment")
    return rank, size, local_rank
