"""Where the tasks of a phase run: this process, this machine's cores, a Ray cluster, Slurm.

Beyond one machine datatrove's executors carry the same tasks (Penedo et al. 2024). The results are
the same bytes everywhere, because a task's output depends on the plan alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from medexpert.data.build.cluster import run_on_ray
from medexpert.data.build.phases import (
    PHASES,
    forget_errors,
    is_done,
    raise_error,
    records,
    run_task,
    task_count,
)
from medexpert.data.build.plan import Job, size_of
from medexpert.data.build.progress import progress
from medexpert.data.build.slurm import refuse_while_queued, run_on_slurm
from medexpert.data.build.store import Store
from medexpert.data.build.workers import Workers
from medexpert.records import UserError

Say = Callable[[str], None]
WORTH_PROCESSES = 4 << 20
"""Bytes of input below which starting processes costs more than they save."""
WORTH_COMPARING_APART = 20_000
"""Records below which their comparison is faster than handing it out."""


def run_phases(job: Job, store: Store, say: Say) -> None:
    """Run every phase to its end. Raises UserError for the first task that failed."""
    settings = job.recipe.data
    if settings.executor == "slurm":
        run_on_slurm(job, store, say)
        return
    most = max(task_count(job, phase) for phase in PHASES)
    with Workers(max(1, min(settings.workers or os.cpu_count() or 1, most))) as workers:
        for phase in PHASES:
            _run_phase(job, store, phase, workers, say)


def _run_phase(job: Job, store: Store, phase: str, workers: Workers, say: Say) -> None:
    total = task_count(job, phase)
    pending = [task for task in range(total) if not is_done(store, job, phase, task)]
    if not pending:
        return
    refuse_while_queued(store)  # submitted before the recipe was told to run elsewhere
    forget_errors(store, phase, pending)
    if len(pending) < total:
        say(f"data {phase}: {total - len(pending)} of {total} tasks were done before, skipped")
    with progress(store, phase, total, say):
        if job.recipe.data.executor == "ray":
            run_on_ray(job, store, phase, pending)
        else:
            _on_this_machine(job, store, phase, pending, workers)
    raise_error(store, phase, pending)
    lost = [task for task in pending if not is_done(store, job, phase, task)]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(pending)} tasks of phase {phase} did not finish; run the same "
            "command to continue",
            where=store.name(phase),
        )


def _on_this_machine(
    job: Job, store: Store, phase: str, pending: list[int], workers: Workers
) -> None:
    if _apart(job, store, phase, pending):
        for task in workers.run(run_task, job.work, phase, pending):
            raise_error(store, phase, [task])
        return
    for task in pending:
        run_task(job.work, phase, task)
        raise_error(store, phase, [task])


def _apart(job: Job, store: Store, phase: str, pending: list[int]) -> bool:
    """Whether processes of their own end these tasks sooner."""
    settings = job.recipe.data
    if len(pending) == 1 or (settings.workers or os.cpu_count() or 1) == 1:
        return False
    if phase != "clean":
        return records(job, store) >= WORTH_COMPARING_APART
    if settings.workers > 1:
        return True  # asked for
    size = 0
    for path in {part.path for shard in job.shards for part in shard.parts}:
        size += size_of(path)
        if size > WORTH_PROCESSES:
            return True
    return False
