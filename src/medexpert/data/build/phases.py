"""The phases of a build and what one task of each does. A task is done when its marker is there.

clean (a task a shard) -> candidates (a stage and band each) -> verify (a share of a stage's pairs
each). Tasks of a phase need nothing of each other, so they run in any order, on any machine, and
after a kill only those without a marker run again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from medexpert.data import dedup
from medexpert.data.build.clean import clean_shard
from medexpert.data.build.plan import Job
from medexpert.data.build.shards import LINE, Index, Lines, ShardInfo
from medexpert.data.build.store import Store
from medexpert.data.minhash import BANDS
from medexpert.recipe import StageName
from medexpert.records import UserError

JOB = "job.json"
SLICES = 16
"""Tasks that share the verification of one stage's pairs."""


def marker(phase: str, task: int) -> str:
    """The file that says that a task is done."""
    return f"{phase}/{task:05d}.json"


def is_done(store: Store, job: Job, phase: str, task: int) -> bool:
    """Whether a task has left its marker, for exactly this job."""
    left = store.read_json(marker(phase, task))
    return isinstance(left, dict) and left.get("key") == job.key


def task_count(job: Job, phase: str) -> int:
    """How many tasks a phase has; known before any runs."""
    stages = len(job.recipe.stages()) if job.recipe.data.near_duplicates else 0
    return {"clean": len(job.shards), "candidates": stages * BANDS, "verify": stages * SLICES}[
        phase
    ]


def run_task(work: str, phase: str, task: int) -> None:
    """Do one task unless it is done. A UserError is left as a file for whoever waits."""
    store = Store(work)
    job = _job(work, store.read(JOB))
    if is_done(store, job, phase, task):
        return
    try:
        PHASES[phase](job, store, task)
    except UserError as error:
        leave_error(store, phase, task, error)


def leave_error(store: Store, phase: str, task: int, error: UserError) -> None:
    """Keep a task's UserError for whoever waits for it."""
    told = {"what": error.what, "where": error.where, "allowed": error.allowed}
    store.write_json(_error(phase, task), {**told, "nearest": error.nearest})


def raise_error(store: Store, phase: str, tasks: Sequence[int]) -> None:
    """Raise the first UserError that one of the tasks left; none of them is left to tell again."""
    for task in tasks:
        told = store.read_json(_error(phase, task))
        if told is not None:
            forget_errors(store, phase, tasks)
            raise UserError(**told)


def forget_errors(store: Store, phase: str, tasks: Sequence[int]) -> None:
    """Remove what the tasks of an earlier run left."""
    for task in tasks:
        store.delete(_error(phase, task))


def _error(phase: str, task: int) -> str:
    return f"{phase}/{task:05d}.error"


@lru_cache(maxsize=2)
def _job(work: str, text: bytes) -> Job:
    return Job.from_json(text)


def shard_infos(job: Job, store: Store, stage: StageName) -> list[ShardInfo]:
    """The finished shards of a stage, in order.

    Raises UserError for a shard that is not finished, or was by another build in this place.
    """
    found = []
    for shard in job.of_stage(stage):
        name = marker("clean", shard.number)
        facts = store.read_json(name)
        if not isinstance(facts, dict) or facts.get("key") != job.key:
            why = "is of another build" if isinstance(facts, dict) else "is not cleaned yet"
            raise UserError(
                f"shard {shard.number} of stage {stage} {why}; run the same command to continue",
                where=store.name(name),
            )
        found.append(ShardInfo(shard.number, shard.source, facts))
    return found


def records(job: Job, store: Store) -> int:
    """Records that the finished cleaning tasks of all stages keep."""
    stages = job.recipe.stages()
    return sum(info.facts["records"] for stage in stages for info in shard_infos(job, store, stage))


def _clean(job: Job, store: Store, task: int) -> None:
    clean_shard(job, store, job.shards[task])


def _candidates(job: Job, store: Store, task: int) -> None:
    stage, band = job.recipe.stages()[task // BANDS], task % BANDS
    index = Index(
        store, shard_infos(job, store, stage), ("exact", "prefer", "detail", f"band{band}")
    )
    pairs, capped = dedup.candidates(index, band)
    _save(store, f"candidates/{stage}-{band:02d}.npy", pairs)
    store.write_json(
        marker("candidates", task), {"key": job.key, "pairs": len(pairs), "capped": capped}
    )


def _verify(job: Job, store: Store, task: int) -> None:
    stage, part = job.recipe.stages()[task // SLICES], task % SLICES
    found = [load(store, f"candidates/{stage}-{band:02d}.npy") for band in range(BANDS)]
    pairs = dedup.unique(np.concatenate(found))
    start, end = len(pairs) * part // SLICES, len(pairs) * (part + 1) // SLICES
    spared: dict[str, int] = {}
    confirmed = apart = pairs[:0]
    if end > start:
        index = Index(store, shard_infos(job, store, stage), ("first", "lines", *LINE))
        lines = Lines(store)
        verifier = dedup.Verifier(
            index,
            lines,
            jaccard=job.recipe.data.jaccard,
            numbers_must_agree=job.recipe.data.numbers_must_agree,
        )
        confirmed = verifier.confirm(pairs[start:end])
        lines.close()
        spared = dict(verifier.spared)
        apart = np.array(verifier.apart, dtype=np.int64).reshape(-1, 2)
    _save(store, f"verify/{stage}-{part:02d}.npy", confirmed)
    _save(store, f"verify/{stage}-{part:02d}.apart.npy", apart)
    facts = {"pairs": end - start, "confirmed": len(confirmed), "spared": spared}
    store.write_json(marker("verify", task), {"key": job.key, **facts})


def _save(store: Store, name: str, pairs: dedup.Pairs) -> None:
    target = io.BytesIO()
    np.save(target, pairs, allow_pickle=False)
    store.write(name, target.getvalue())


def load(store: Store, name: str) -> dedup.Pairs:
    """Pairs of a task."""
    pairs: dedup.Pairs = np.load(io.BytesIO(store.read(name)), allow_pickle=False)
    return pairs


PHASES: dict[str, Callable[[Job, Store, int], None]] = {
    "clean": _clean,
    "candidates": _candidates,
    "verify": _verify,
}
