"""Tasks on other machines: what datatrove's executors carry there, and Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from medexpert.data.build.phases import leave_error, run_task
from medexpert.data.build.plan import Job
from medexpert.data.build.store import Store
from medexpert.records import UserError


class Task:
    """One phase as a step of a datatrove pipeline: rank r does the r-th pending task.

    It works in the folder of the command that sent it, so that the recipe's relative paths mean
    the same files, and are written the same, wherever it runs.
    """

    def __init__(self, work: str, phase: str, pending: list[int]) -> None:
        self.work, self.phase, self.pending = work, phase, pending
        self.folder = os.getcwd()

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        task = self.pending[rank]
        try:
            os.chdir(self.folder)
        except OSError as error:
            fault = UserError(
                f"a node cannot open the folder that the build was started in ({error.strerror})",
                where=self.folder,
            )
            leave_error(Store(self.work), self.phase, task, fault)
            return
        run_task(self.work, self.phase, task)


@contextmanager
def quiet_datatrove() -> Iterator[None]:
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


def run_on_ray(job: Job, store: Store, phase: str, pending: list[int]) -> None:
    """Do tasks on the Ray cluster that is there, or one started here. Raises UserError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            'executor "ray" needs Ray', allowed='pip install "medexpert[ray]"'
        ) from None
    with quiet_datatrove():
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
