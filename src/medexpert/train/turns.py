"""Whole models one after the other: of a machine's processes one holds a whole model at a time.

A model whose weights become shards is opened, looked at and sharded in a process's turn, so that a
machine needs memory for one whole model and the shards of the others, not for one a process. The
weights are the same bits as when all open at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from medexpert.records import UserError
from medexpert.train.parallel import World, barrier, from_first

Value = TypeVar("Value")


@contextmanager
def in_turn(world: World) -> Iterator[None]:
    """Run the block once the processes before this one on its machine have run theirs. Collective.

    The block itself must wait for no other process. All leave together.
    """
    turns = _turns(world)
    for _ in range(world.local_rank):
        barrier(world)
    yield
    for _ in range(turns - world.local_rank):
        barrier(world)


def by_first(world: World, make: Callable[[], Value]) -> Value | None:
    """What `make` makes on the first process, however long, None on the others. Collective.

    A UserError of the first process is raised on all.
    """
    made: Value | None = None
    fault: UserError | None = None
    if world.first:
        try:
            made = make()
        except UserError as error:
            fault = error
    fault = from_first(world, fault, world.patient)
    if fault is not None:
        raise fault
    return made


def _turns(world: World) -> int:
    """Processes of the machine that has most of them."""
    if world.size == 1:
        return 1
    most = torch.tensor([world.local_rank + 1])
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)
