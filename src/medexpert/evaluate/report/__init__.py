"""A run folder -> report.md and one self-contained report.html. Reads only files of that folder."""

from __future__ import annotations

from pathlib import Path

from medexpert.evaluate.report import cases, contrasts, making, scores, sureness
from medexpert.evaluate.report.blocks import Note, Section
from medexpert.evaluate.report.facts import RunFacts, read_run
from medexpert.evaluate.report.page import html_page, markdown_page
from medexpert.manifest import write_text


def write(run_folder: Path, examples: bool = True) -> tuple[Path, Path]:
    """Write RUN/report/report.md and report.html; returns their paths.

    Without `examples` no text of the benchmark, nor a model's answer in words, is in the report, so
    that it can be published where the data may not. A partial run gives a report that says what is
    missing. Raises UserError when the folder does not exist or holds nothing to report.
    """
    facts = read_run(run_folder)
    sections = _sections(facts, examples)
    name = str(facts.recipe.get("name") or run_folder.resolve().name)
    base = facts.recipe.get("base", {}).get("model", "unknown base")
    title = f"{name}: run report"
    subtitle = f"Base {base} · recipe {facts.recipe_hash or 'unknown'}"
    footer = "Made by medexpert from the files of the run folder. Not for clinical use."
    markdown = run_folder / "report" / "report.md"
    page = run_folder / "report" / "report.html"
    write_text(markdown, markdown_page(title, subtitle, sections, footer))
    write_text(page, html_page(title, subtitle, sections, footer))
    return markdown, page


def summary(run_folder: Path) -> str:
    """The main table of the report as plain text, for the terminal."""
    facts = read_run(run_folder)
    lines = [scores.headline_text(facts)] if facts.results else ["no evaluation has finished yet"]
    lines += [f"missing: {sentence}" for sentence in facts.missing]
    return "\n".join(lines)


def _sections(facts: RunFacts, examples: bool) -> list[Section]:
    sections: list[Section | None] = [scores.headline(facts)]
    if facts.results:
        sections += [
            scores.stage_by_stage(facts),
            contrasts.significance(facts),
            scores.confusion(facts),
            sureness.calibration(facts),
            sureness.costs(facts),
        ]
    else:
        note = Note("info", "No evaluation has finished yet.")
        sections.append(Section("Stage by stage", "stages", [note]))
    sections += [making.forgetting(facts), making.training(facts), making.data_flow(facts)]
    if facts.results:
        sections.append(cases.example_answers(facts) if examples else cases.left_out())
    sections.append(making.provenance(facts))
    return [section for section in sections if section is not None]
