"""Where the tasks of a phase run: this process, this machine's cores, a Ray cluster, Slurm.

Beyond one machine datatrove's executors carry the same tasks (Penedo et al. 2024). The results are
the same bytes everywhere, because a task's output depends on the plan alone.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from medexpert.data.build.phases import PHASES, is_done, run_task, task_count
from medexpert.data.build.plan import Job, size_of
from medexpert.data.build.store import Store
from medexpert.records import UserError

Say = Callable[[str], None]
REPORT_SECONDS = 10.0
WORTH_PROCESSES = 4 << 20
"""Bytes of input below which starting processes costs more than they save."""


def run_phases(job: Job, store: Store, say: Say) -> None:
    """Run every phase to its end. Raises UserError for the first task that failed."""
    settings = job.recipe.data
    if settings.executor == "slurm":
        _submit(job, store, say)
        return
    for phase in PHASES:
        _run_phase(job, store, phase, say)


def _run_phase(job: Job, store: Store, phase: str, say: Say) -> None:
    total = task_count(job, phase)
    pending = [task for task in range(total) if not is_done(store, job, phase, task)]
    if not pending:
        return
    for task in pending:
        store.delete(f"{phase}/{task:05d}.error")
    if len(pending) < total:
        say(f"data {phase}: {total - len(pending)} of {total} tasks were done before, skipped")
    with _progress(store, phase, total, say):
        if job.recipe.data.executor == "ray":
            _on_ray(job, store, phase, pending)
        else:
            _on_this_machine(job, store, phase, pending)
    _raise_failures(job, store, phase, pending)


def _raise_failures(job: Job, store: Store, phase: str, tasks: list[int]) -> None:
    for task in tasks:
        error = store.read_json(f"{phase}/{task:05d}.error")
        if error is not None:
            raise UserError(
                error["what"], where=error["where"], allowed=error["allowed"],
                nearest=error["nearest"],
            )  # fmt: skip
    lost = [task for task in tasks if not is_done(store, job, phase, task)]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(tasks)} tasks of phase {phase} did not finish; run the same "
            "command to continue",
            where=store.name(phase),
        )


# -- one machine -----------------------------------------------------------------------------------


def _on_this_machine(job: Job, store: Store, phase: str, pending: list[int]) -> None:
    workers = min(job.recipe.data.workers or os.cpu_count() or 1, len(pending))
    if workers == 1 or not _worth_processes(job):
        for task in pending:
            run_task(job.work, phase, task)
            if store.exists(f"{phase}/{task:05d}.error"):
                return
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medexpert.data.build.phases"])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet)
    try:
        tasks = {pool.submit(run_task, job.work, phase, task): task for task in pending}
        for done in as_completed(tasks):
            done.result()
            if store.exists(f"{phase}/{tasks[done]:05d}.error"):
                break
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed (out of memory?): use fewer data.workers; "
            "run the same command to continue",
            where=store.name(phase),
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()


def _worth_processes(job: Job) -> bool:
    if job.recipe.data.workers > 1:
        return True  # asked for
    size = 0
    for path in {part.path for shard in job.shards for part in shard.parts}:
        size += size_of(path)
        if size > WORTH_PROCESSES:
            return True
    return False


def _quiet() -> None:
    """Ctrl-C reaches the parent, which ends its workers; a worker whose parent died ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# -- beyond one machine ----------------------------------------------------------------------------


class Task:
    """One phase as a step of a datatrove pipeline: rank r does the r-th pending task."""

    def __init__(self, work: str, phase: str, pending: list[int]) -> None:
        self.work, self.phase, self.pending = work, phase, pending

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        run_task(self.work, self.phase, self.pending[rank])


def _shared_work(job: Job) -> None:
    if "://" not in job.work and not os.path.isabs(job.work):
        raise UserError("data.work must be an absolute path or a URL that every node sees")


def _on_ray(job: Job, store: Store, phase: str, pending: list[int]) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            'executor "ray" needs Ray', allowed='pip install "medexpert[ray]"'
        ) from None
    with _quiet_datatrove():
        from datatrove.executor.ray import RayPipelineExecutor

        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        executor = RayPipelineExecutor(
            [Task(job.work, phase, pending)],
            tasks=len(pending),
            workers=job.recipe.data.workers or -1,
            logging_dir=store.name(f"logs/{phase}"),
            skip_completed=False,
            mem_per_cpu_gb=0.5,
        )
        executor.run()


def _submit(job: Job, store: Store, say: Say) -> None:
    """Submit the phases to Slurm, each after the one before it, and say how to go on.

    Raises UserError when they are not all done yet: the same command, run after the jobs, goes on.
    """
    pending = {
        phase: [t for t in range(task_count(job, phase)) if not is_done(store, job, phase, t)]
        for phase in PHASES
    }
    if not any(pending.values()):
        return
    for phase, tasks in pending.items():
        _raise_errors_of_last_time(store, phase, tasks)
    from medexpert.data.build.slurm import submit

    jobs = submit(job, store, pending)
    told = ", ".join(f"{phase} {name}" for phase, name in jobs.items())
    raise UserError(
        f"submitted to Slurm: {told}; when they are done, run the same command to finish the build",
        where=store.name("logs"),
    )


def _raise_errors_of_last_time(store: Store, phase: str, tasks: list[int]) -> None:
    """A task that ended in bad input is told once, then tried anew."""
    for task in tasks:
        name = f"{phase}/{task:05d}.error"
        error = store.read_json(name)
        if error is not None:
            store.delete(name)
            raise UserError(error["what"], where=error["where"], allowed=error["allowed"])


@contextmanager
def _quiet_datatrove() -> Iterator[None]:
    """Its log lines go to the log folder; ours are the only ones on the screen."""
    before = os.environ.get("LOGURU_LEVEL")
    os.environ["LOGURU_LEVEL"] = "ERROR"
    try:
        from loguru import logger

        logger.remove()
        yield
    finally:
        if before is None:
            del os.environ["LOGURU_LEVEL"]
        else:
            os.environ["LOGURU_LEVEL"] = before


@contextmanager
def _progress(store: Store, phase: str, total: int, say: Say) -> Iterator[None]:
    """Says every few seconds how many tasks are done, at which rate, and when the rest will be."""
    started, stop = time.monotonic(), threading.Event()
    before = store.count(phase, ".json")

    def watch() -> None:
        while not stop.wait(REPORT_SECONDS):
            done = store.count(phase, ".json")
            seconds = time.monotonic() - started
            rate = (done - before) / seconds
            left = f"{(total - done) / rate:,.0f} s left" if rate else "rate not known yet"
            say(f"data {phase}: {done:,} of {total:,} tasks, {rate:.2f} tasks/s, {left}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
