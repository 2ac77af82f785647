"""A broken file as the one source of a whole small build."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from checks import Outcome, check_message, require
from formats import Seed

from medexpert.data.build import build
from medexpert.data.card import unaccounted
from medexpert.data.catalogue import SOURCES
from medexpert.recipe import Run
from medexpert.records import UserError

LIMIT = 0.05


@cache
def source_of(reader: str) -> tuple[str, str] | None:
    """(stage, name) of a catalogue source that this reader reads, from any path."""
    for entry in SOURCES.values():
        if entry.reader == reader and not entry.builtin:
            return entry.stage, entry.name
    return None


def buildable(seed: Seed) -> bool:
    """Whether a build can read this file."""
    return seed.family == "reader" and source_of(seed.format) is not None


def recipe_for(seed: Seed, path: str) -> Run:
    """A recipe of this one source, without quarantine (its index is tested elsewhere)."""
    stage, name = source_of(seed.format) or ("", "")
    off = {s: {"enabled": False} for s in ("knowledge", "instruct", "adapt") if s != stage}
    data: dict[str, Any] = {stage: ({"source": name, "path": path},), "quarantine": ()}
    data |= {"allow_leaks": True, "workers": 1}
    return Run.model_validate({"name": "fuzz", "seed": 1, "data": data, **off})


def check_build(seed: Seed, path: str, out: Path, outcome: Outcome) -> None:
    """A build that ends has accounted for every row; a file of bad rows is always refused."""
    counts = outcome.counts
    total = counts["records"] + counts["drops"] + counts["faults"]
    bad = counts["faults"] > LIMIT * total
    try:
        facts = build(recipe_for(seed, path), out, key="k", progress=lambda line: None)
    except UserError as error:
        check_message(str(error), path)
        counts["builds_refused"] += 1
    else:
        counts["builds_done"] += 1
        require(outcome.kind != "refused", "a build took a file that its reader refuses")
        require(not bad, "a build took a file over the limit of bad rows")
        for stage in facts["stages"].values():
            for source in stage["sources"].values():
                require(unaccounted(source) == 0, "rows of a build are unaccounted")
                require(source["read"] == total, "a build read another number of rows")
    finally:
        shutil.rmtree(out, ignore_errors=True)
