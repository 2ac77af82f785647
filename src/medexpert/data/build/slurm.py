"""The phases of a build as Slurm array jobs, through datatrove."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from medexpert.data.build.executor import Task, _quiet_datatrove, _shared_work
from medexpert.data.build.plan import Job
from medexpert.data.build.store import Store
from medexpert.records import UserError


def submit(job: Job, store: Store, pending: Mapping[str, list[int]]) -> dict[str, str]:
    """Submit each phase with tasks left, each to begin when the one before it has ended well.

    Returns phase -> job id. Raises UserError without `sbatch` or with a work folder that the nodes
    cannot see.
    """
    _shared_work(job)
    with _quiet_datatrove():
        from datatrove.executor.slurm import SlurmPipelineExecutor

        before: Any = None
        jobs: dict[str, str] = {}
        for phase, tasks in pending.items():
            if not tasks:
                continue
            executor = SlurmPipelineExecutor(
                [Task(job.work, phase, tasks)],
                tasks=len(tasks),
                logging_dir=store.name(f"logs/{phase}"),
                slurm_logs_folder=_logs(store, phase),
                job_name=f"medexpert-{phase}",
                skip_completed=False,
                depends=before,
                **_settings(job),
            )
            try:
                executor.launch_job()
            except FileNotFoundError:
                raise UserError(
                    "sbatch was not found: run this on a login node of the cluster",
                    where="data.executor",
                    allowed='executor = "local" or "ray" elsewhere',
                ) from None
            before = executor
            jobs[phase] = str(executor.job_id)
    return jobs


def _settings(job: Job) -> dict[str, Any]:
    slurm = job.recipe.data.slurm
    if not slurm.partition:
        raise UserError("data.slurm.partition is needed", where="data.executor")
    return {
        "time": slurm.time,
        "partition": slurm.partition,
        "cpus_per_task": slurm.cpus_per_task,
        "mem_per_cpu_gb": slurm.mem_per_cpu_gb,
        "workers": slurm.max_jobs,
        "env_command": slurm.activate or None,
        "qos": "",
        "sbatch_args": {"account": slurm.account} if slurm.account else {},
    }


def _logs(store: Store, phase: str) -> str:
    """Slurm writes its own output to a local path, even when the work folder is a URL."""
    if "://" not in store.url:
        return store.name(f"logs/{phase}/slurm")
    return os.path.abspath(f"slurm-logs/{phase}")
