"""Recipe -> the data folder: one JSONL a stage, held-out documents, drops, card; manifest last.

The work is cut into shards by the plan and done by phases of tasks (see `phases`); this module
prepares them, assembles what they leave, and tells what was done.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from medexpert.data import filters
from medexpert.data.build.assemble import Stage, assemble
from medexpert.data.build.executor import run_phases
from medexpert.data.build.facts import build_facts, check_bad_rows, shares_line
from medexpert.data.build.phases import JOB
from medexpert.data.build.place import sole_builder, work_place
from medexpert.data.build.plan import Job, plan
from medexpert.data.build.samples import samples
from medexpert.data.build.slurm import refuse_while_queued
from medexpert.data.build.store import Store
from medexpert.data.build.use import source_list_problems
from medexpert.data.quarantine.prepare import prepare
from medexpert.manifest import MANIFEST, atomic, disk_errors, write_manifest, write_text
from medexpert.recipe import Run, StageName
from medexpert.records import UserError, unknown_name

Say = Callable[[str], None]
QUARANTINE = "quarantine.npz"
CHECKED = "quarantine.json"


def build(recipe: Run, folder: Path, *, key: str, progress: Say) -> dict[str, Any]:
    """Write `folder` (RUN/data) for the stages that are switched on; returns the manifest.

    Files: <stage>.jsonl, heldout.jsonl, drops.jsonl, card.md, card.html, manifest.json. A build
    that was stopped goes on with the tasks that are left. Raises UserError for any bad source, and
    for a file with too large a share of bad rows.
    """
    started = time.monotonic()
    problems = [*source_list_problems(recipe), *filter_problems(recipe)]
    if problems:
        raise UserError("\n".join(problems))
    place = work_place(recipe, folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with sole_builder(place, folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        manifest = _build(recipe, folder, Store(place), key, progress)
    progress(f"data: built in {time.monotonic() - started:,.0f} s")
    return manifest


def _build(recipe: Run, folder: Path, store: Store, key: str, progress: Say) -> dict[str, Any]:
    job, checked = _prepare(recipe, store, key, progress)
    run_phases(job, store, progress)
    check_bad_rows(job, store)
    stages: dict[StageName, Stage] = {}
    with ExitStack() as stack:
        drops = stack.enter_context(atomic(folder / "drops.jsonl"))
        heldout = stack.enter_context(atomic(folder / "heldout.jsonl"))
        for stage in recipe.stages():
            with atomic(folder / f"{stage}.jsonl") as out:
                stages[stage] = assemble(
                    job, store, stage, out=out, heldout=heldout, drops=drops, say=progress
                )
    facts = build_facts(job, store, stages, checked)
    for name, stage in facts["stages"].items():
        progress(shares_line(name, stage))
    _write_cards(folder, facts, samples(folder, recipe))
    names = [*(f"{stage}.jsonl" for stage in stages), "heldout.jsonl", "drops.jsonl"]
    names += ["card.md", "card.html"]
    manifest = write_manifest(folder, key=key, files=[folder / n for n in names], facts=facts)
    store.clear()
    return manifest


def filter_problems(recipe: Run) -> list[str]:
    """One line for each name in `data.filters.off` that is no reason to drop."""
    off = recipe.data.filters.off
    return [
        str(unknown_name("filter", name, filters.REASONS, where="data.filters.off"))
        for name in off
        if name not in filters.REASONS
    ]


def _prepare(recipe: Run, store: Store, key: str, say: Say) -> tuple[Job, dict[str, Any]]:
    """The job, taken up where one of the same key was left, and what the quarantine checks."""
    file = QUARANTINE if recipe.data.quarantine else ""
    job = Job(recipe, key, store.url, plan(recipe), file)
    left = store.read_json(JOB)
    if not isinstance(left, dict) or left.get("key") != key:
        refuse_while_queued(store)  # jobs of the build before this one would work in this folder
        store.clear()
        store.write_json(CHECKED, _quarantine(recipe, store) if file else {})
    # Written anew: where and with how many workers a build goes on may have changed.
    store.write(JOB, job.to_json().encode("utf-8"))
    for stage in recipe.stages():
        for source in recipe.sources(stage):
            if source.source == "local-text" and source.phi == "off":
                say("data: WARNING: local-text without phi: health information stays in the text")
    if not file:
        say("data: WARNING: no quarantine; benchmark items may be trained on")
    checked: dict[str, Any] = store.read_json(CHECKED)
    for name, facts in checked.items():
        if not facts["text"]:
            how = "by id only" if facts["checked"] else "not at all"
            say(f"data: benchmark {name} is kept out {how}: no copy of it under data.root")
    return job, checked


def _quarantine(recipe: Run, store: Store) -> dict[str, Any]:
    """Write the index into the store; what it holds."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / QUARANTINE
        facts = prepare(recipe.data.quarantine, recipe.data.root, str(file))
        store.write(QUARANTINE, file.read_bytes())
    return facts


def _write_cards(folder: Path, facts: dict[str, Any], chosen: list[Any]) -> None:
    from medexpert.data.card import render_html, render_markdown

    write_text(folder / "card.md", render_markdown(facts, chosen))  # type: ignore[arg-type]
    write_text(folder / "card.html", render_html(facts, chosen))  # type: ignore[arg-type]
