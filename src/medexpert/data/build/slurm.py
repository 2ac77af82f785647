"""The phases of a build as Slurm array jobs, through datatrove.

Slurm's job ids stay in the work folder (`slurm.json`), so that a command that is run again while
the jobs wait submits nothing twice.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from medexpert.data.build.cluster import Task, quiet_datatrove
from medexpert.data.build.phases import PHASES, forget_errors, is_done, raise_error, task_count
from medexpert.data.build.plan import Job
from medexpert.data.build.store import Store
from medexpert.records import UserError

JOBS = "slurm.json"
NEVER = "DependencyNeverSatisfied"
"""Slurm's reason for a job that waits for one that failed."""


def run_on_slurm(job: Job, store: Store, say: Callable[[str], None]) -> None:
    """Submit the tasks that are left, each phase after the one before it, and say how to go on.

    Returns when all tasks are done; else raises UserError: the same command, run after the jobs,
    goes on.
    """
    pending = {
        phase: [t for t in range(task_count(job, phase)) if not is_done(store, job, phase, t)]
        for phase in PHASES
    }
    if not any(pending.values()):
        return
    refuse_while_queued(store)
    try:
        for phase, tasks in pending.items():
            raise_error(store, phase, tasks)
    finally:  # told once, then tried anew; what later phases left followed from it
        for phase, tasks in pending.items():
            forget_errors(store, phase, tasks)
    done = sum(task_count(job, phase) - len(tasks) for phase, tasks in pending.items())
    if done:
        say(f"data: {done} tasks were done before, skipped")
    jobs = submit(job, store, pending)
    raise UserError(
        f"submitted to Slurm: {_told(jobs)}; when they are done, run the same command to finish "
        "the build",
        where=store.name("logs"),
    )


def submit(job: Job, store: Store, pending: Mapping[str, list[int]]) -> dict[str, str]:
    """Submit each phase with tasks left, each to begin when the one before it has ended well.

    Returns phase -> job id. Raises UserError without `sbatch` or when it refuses.
    """
    with quiet_datatrove():
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
            except subprocess.CalledProcessError as error:
                raise UserError(
                    f"sbatch refused the job of phase {phase} (exit status {error.returncode}); "
                    "what it said is above",
                    where="data.slurm",
                ) from None
            finally:  # an array may be submitted though what follows it was refused
                if executor.job_id:
                    jobs[phase] = str(executor.job_id)
                    store.write_json(JOBS, jobs)
            before = executor
    return jobs


def refuse_while_queued(store: Store) -> None:
    """Raise UserError while jobs submitted from this work folder wait or run."""
    jobs = store.read_json(JOBS)
    if not isinstance(jobs, dict) or not jobs:
        return
    lines = _queue(store, jobs)
    listed = {
        phase: name
        for phase, name in jobs.items()
        if any(line.split()[0].partition("_")[0] == name for line in lines)
    }
    if not listed:
        return
    if all(NEVER in line for line in lines):
        raise UserError(
            f"jobs that wait for one that failed: {_told(listed)}; run "
            f"`scancel {' '.join(listed.values())}`, then the same command",
            where=store.name("logs"),
        )
    raise UserError(
        f"still waiting/running: {_told(listed)}; when they are done, run the same command to "
        "finish the build",
        where=store.name("logs"),
    )


def _queue(store: Store, jobs: Mapping[str, str]) -> list[str]:
    """A line for each of the jobs (or its array tasks) that Slurm still holds: id, state, why."""
    command = ["squeue", "-h", "-j", ",".join(jobs.values()), "-o", "%F %T %r"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise UserError(
            f"squeue was not found, so whether these jobs still wait is not known: {_told(jobs)}",
            where=store.name(JOBS),
            allowed="run this on a login node, or delete this file once the jobs are gone",
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError("squeue gave no answer in 120 s; try again", where="squeue") from None
    # Slurm forgets old jobs; asked for one alone, that is an error.
    if asked.returncode and "invalid job id" not in asked.stderr.lower():
        said = " ".join(asked.stderr.split()) or f"exit status {asked.returncode}"
        raise UserError(f"squeue failed: {said}", where=store.name(JOBS))
    return [line for line in asked.stdout.splitlines() if line.strip()]


def _told(jobs: Mapping[str, str]) -> str:
    return ", ".join(f"{phase} {name}" for phase, name in jobs.items())


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
