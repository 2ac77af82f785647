"""Which source may serve which stage, with which settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from medexpert.data import catalogue
from medexpert.data.catalogue import SourceEntry
from medexpert.recipe import Run, StageName
from medexpert.recipe_data import Source
from medexpert.records import UserError, unknown_name


def _abstract_formats() -> Iterable[str]:
    from medexpert.data.readers.abstracts import ABSTRACT_READERS

    return ABSTRACT_READERS


BUILDERS: dict[str, Callable[[], Iterable[str]]] = {
    "pqa_builder": _abstract_formats,
    "evidence_builder": lambda: ("evidence_inference", "evidence_tables"),
}
"""Reader of a builder's entry -> readers of the sources that it can build from."""


def source_list_problems(recipe: Run) -> list[str]:
    """One line for each stage without a source and each source that a stage names twice."""
    problems = []
    for stage in recipe.stages():
        names = [source.source for source in recipe.sources(stage)]
        if not names:
            problems.append(f"data.{stage}: the stage is switched on, but no source is listed")
        problems += [
            f"data.{stage}: source {name!r} is listed twice"
            for name in sorted(set(names))
            if names.count(name) > 1
        ]
    return problems


def check_use(stage: StageName, source: Source, entry: SourceEntry) -> None:
    """Raises UserError when a source cannot serve this stage or its settings do not fit it."""
    where = f"data.{stage} source {entry.name!r}"
    if (entry.stage == "knowledge") != (stage == "knowledge"):
        fits = "knowledge" if entry.stage == "knowledge" else "instruct, adapt"
        raise UserError("this source does not fit this stage", where=where, allowed=fits)
    if entry.reader == "pubmedqa" and stage != "adapt":
        raise UserError("PubMedQA's items are for one stage", where=where, allowed="adapt")
    if entry.reader == "trialgen" and not source.limit:
        raise UserError("limit = number of items to generate is needed", where=where)
    if source.heldout and stage != "knowledge":
        raise UserError("heldout is for documents", where=where, allowed="stage knowledge")
    if source.fold and entry.reader != "pubmedqa":
        raise UserError("fold is for source 'pubmedqa'", where=where)
    if source.label_ratio and entry.reader not in BUILDERS:
        raise UserError("label_ratio is for builders", where=where, allowed=", ".join(BUILDERS))
    if 0 < source.label_ratio < 1:
        raise UserError(
            f"label_ratio = {source.label_ratio:g}", where=where, allowed="0 (any) or 1 and more"
        )
    _check_builder(source, entry, where)


def _check_builder(source: Source, entry: SourceEntry, where: str) -> None:
    allowed = BUILDERS.get(entry.reader)
    if allowed is None:
        if source.of:
            raise UserError("of is for builders", where=where, allowed=", ".join(BUILDERS))
        return
    fits = sorted(e.name for e in catalogue.SOURCES.values() if e.reader in allowed())
    if not source.of:
        raise UserError(
            "of = names of the sources to build from is needed",
            where=where,
            allowed=", ".join(fits),
        )
    if len(set(source.of)) < len(source.of):
        raise UserError("of names a source twice", where=where, allowed=", ".join(fits))
    if len(source.of) > 1 and (source.path or source.limit):
        raise UserError("path and limit go with one name in of", where=where)
    for name in source.of:
        if name not in fits:
            raise unknown_name("source to build from", name, fits, where=where)
