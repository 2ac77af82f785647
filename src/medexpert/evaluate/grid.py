"""Many tasks x strategies x seeds for one model: what to ask, cell by cell, and one closing table.

Each cell is an evaluation folder of its own, TASK/STRATEGY/seed-N, resumable and skipped when it is
complete. A cell that fails is told, and the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert import manifest
from medexpert.evaluate import against, resume, run, seeds
from medexpert.evaluate.against import Against
from medexpert.evaluate.folders import folder_of
from medexpert.evaluate.groups import group_score
from medexpert.evaluate.resume import read_predictions
from medexpert.evaluate.sampling import of_limit, sample
from medexpert.evaluate.tables import markdown_table, plain_table
from medexpert.evaluate.tasks import GROUPS, Task
from medexpert.prompt import strategies
from medexpert.prompt.needs import check_needs
from medexpert.records import Question, UserError, digest

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

Say = Callable[[str], None]
COLUMNS = (
    "task", "protocol", "strategy", "seed", ">n", ">accuracy %", ">95 %", ">unparsed", ">refused",
    ">calls", ">prompt tokens", ">prefilled", ">decoded", ">seconds",
)  # fmt: skip
UNDER = (
    "Accuracy with its Wilson interval; of several seeds the mean over questions of their mean "
    "over seeds, with a bootstrap interval over both; of a group of tasks all questions together, "
    "and the mean over tasks. Calls, tokens and seconds are a question."
)
ERROR = "error.txt"


@dataclass(frozen=True)
class Settings:
    """What holds for every cell. `protocol` "" is the first of each task's own."""

    data: Path
    out: Path
    split: str = "test"
    protocol: str = ""
    limit: int = 0


@dataclass(frozen=True)
class Cell:
    """One evaluation of the grid; `made_from` is its key but for the model, `fault` why it cannot
    be asked of any."""

    task: Task
    protocol: str
    strategy: str
    seed: int
    folder: Path
    made_from: tuple[Any, ...]
    fault: UserError | None = None

    @property
    def name(self) -> str:
        return f"{self.task.name} {self.strategy} seed {self.seed}"

    def key(self, model: Sequence[str]) -> str:
        """`model` is what tells one opened model from another: dtype and digest of the weights."""
        return digest([*self.made_from, *model])


@dataclass(frozen=True)
class Outcome:
    """A cell and its result, or why it has none."""

    cell: Cell
    result: Mapping[str, Any] | None
    error: str = ""


def plan(
    tasks: Sequence[Task],
    names: Sequence[str],
    seed_list: Sequence[int],
    settings: Settings,
    *,
    flat: bool = False,
) -> list[Cell]:
    """The cells, tasks outside, seeds inside. `flat` puts the only cell into `settings.out` itself.

    A strategy that no seed changes is asked with the first seed alone. Reads every task's
    questions. Raises UserError for an unknown strategy, option, protocol or split, data that is
    not there, and names given twice: all before any model is opened. A cell whose strategy needs
    what its task has not (solved examples, a context) has a `fault`, see :func:`tell_faults`.
    """
    for what, given in (("strategy", names), ("seed", seed_list)):
        if not given or len(set(given)) < len(given):
            raise UserError(f"{what} list {', '.join(map(str, given)) or 'is empty'}",
                            allowed="one or more, each once")  # fmt: skip
    made = {name: strategies.get(name, where="--strategies") for name in names}
    cells = []
    for task in tasks:
        protocol = settings.protocol or task.protocols[0]
        task.check_protocol(protocol)
        asked, solved = run.inputs(task, settings.data, settings.split)
        inputs = run.digest_of(asked, solved)
        asked = sample(asked, settings.limit)
        solved = run.not_asked(solved, asked)
        for name in names:
            fault = _fault(made[name], asked, protocol, solved)
            for seed in seed_list if made[name].seeded else seed_list[:1]:
                place = Path(folder_of(task.name), folder_of(name), f"seed-{seed}")
                made_from = (
                    task.name, task.version, inputs, name, made[name].version, protocol,
                    of_limit(settings.limit), seed, settings.split,
                )  # fmt: skip
                folder = settings.out if flat else settings.out / place
                cells.append(Cell(task, protocol, name, seed, folder, made_from, fault))
    return cells


def _fault(
    strategy: Any, questions: Sequence[Question], protocol: str, examples: Sequence[Question]
) -> UserError | None:
    try:
        check_needs(strategy, questions, protocol=protocol, examples=examples)
    except UserError as error:
        return error
    return None


def tell_faults(cells: Sequence[Cell], say: Say) -> None:
    """Say which cells no model can be asked; they count as failed, the others go on.

    Raises UserError where there is no other.
    """
    faults = {(cell.task.name, cell.strategy): cell.fault for cell in cells if cell.fault}
    if faults and all(cell.fault for cell in cells):
        raise next(fault for fault in faults.values() if fault)
    for (task, strategy), fault in faults.items():
        say(f"{task} {strategy} cannot be asked: {fault}")


def moved(cell: Cell, folder: Path) -> Cell:
    """The same evaluation in another folder."""
    return replace(cell, folder=folder)


def evaluate_cells(
    engine: Engine, cells: Sequence[Cell], settings: Settings, *, model: Sequence[str], say: Say
) -> list[Outcome]:
    """Do every cell that is not complete, in order; a failure is told and kept in error.txt.

    One with a `fault` was told of before (:func:`tell_faults`) and is passed over without a folder.
    Only an interruption ends the grid early: the same call then goes on.
    """
    outcomes: list[Outcome] = []
    paces: dict[str, list[float]] = {}
    for number, cell in enumerate(cells, 1):
        if cell.fault is not None:
            outcomes.append(Outcome(cell, None, str(cell.fault)))
            continue
        say(f"{number} of {len(cells)}: {cell.name}{_left(cells[number - 1 :], paces)}")
        started = time.monotonic()
        skipped = manifest.is_complete(cell.folder, cell.key(model))
        try:
            result = run_cell(engine, cell, settings, model=model, say=say)
        except Exception as error:  # whatever went wrong with one cell, the others are worth having
            outcomes.append(Outcome(cell, None, failure(error, cell.folder, cell.name, say)))
            continue
        (cell.folder / ERROR).unlink(missing_ok=True)
        outcomes.append(Outcome(cell, result))
        asked = result["n"] - int(result.get("resumed_at") or 0)
        if not skipped and asked:
            paces.setdefault(cell.strategy, []).append((time.monotonic() - started) / asked)
            paces.setdefault("", []).append(float(result["n"]))
    return outcomes


def failure(error: Exception, folder: Path, name: str, say: Say) -> str:
    """Why `name` failed: said, and kept with its traceback in the folder's error.txt."""
    why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    manifest.write_text(folder / ERROR, "".join(traceback.format_exception(error)))
    say(f"FAILED {name}: {why}")
    return why


def refuse_other(cell: Cell, settings: Settings) -> None:
    """Raises UserError when the folder holds another evaluation; the model is not known yet."""
    known = {
        "task": cell.task.name, "task_version": cell.task.version, "split": settings.split,
        "protocol": cell.protocol, "strategy": cell.strategy, "seed": cell.seed,
    }  # fmt: skip
    resume.refuse_other(cell.folder, known)


def run_cell(
    engine: Engine, cell: Cell, settings: Settings, *, model: Sequence[str], say: Say,
    start_over: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """One cell; returns its result.json. `start_over`: as in `run.evaluate`.

    Raises UserError also for the cell's `fault`.
    """
    if cell.fault is not None:
        raise cell.fault
    return run.evaluate(
        engine, cell.task, data=settings.data, strategy=cell.strategy, protocol=cell.protocol,
        out=cell.folder, key=cell.key(model), progress=say, limit=settings.limit, seed=cell.seed,
        split=settings.split, start_over=start_over,
    )  # fmt: skip


def _left(cells: Sequence[Cell], paces: Mapping[str, Sequence[float]]) -> str:
    """About how long these cells take, by the pace of their strategies so far; "" if one is new."""
    sizes = paces.get("", ())
    if not sizes or any(cell.strategy not in paces for cell in cells):
        return ""
    mean = sum(sizes) / len(sizes)
    spent = sum(mean * sum(paces[c.strategy]) / len(paces[c.strategy]) for c in cells)
    return f" (about {max(1, round(spent / 60))} min left)"


def rows_of(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The closing table's rows: each cell, and a row over the seeds where there are several."""
    rows = []
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.cell.task.name, outcome.cell.strategy), []).append(outcome)
    for members in groups.values():
        rows += [_row(outcome) for outcome in members]
        done = [outcome for outcome in members if outcome.result is not None]
        if len(done) > 1:
            rows.append(_seeds_row(done))
    return rows + _group_rows(outcomes)


def _group_rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """A row a group whose tasks all have a result, for each strategy and seed."""
    found: dict[tuple[str, str, int], dict[str, Mapping[str, Any]]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        if outcome.result is not None:
            at = found.setdefault((cell.strategy, cell.protocol, cell.seed), {})
            at[cell.task.name] = outcome.result
    rows = []
    for name, members in GROUPS.items():
        for (strategy, protocol, seed), results in found.items():
            if not set(members) <= set(results):
                continue
            chosen = [results[member] for member in members]
            told = group_score(name, chosen)
            interval, macro = told["micro_interval"], told["macro_accuracy"]
            rows.append(
                [name, protocol, strategy, str(seed), str(told["n"]),
                 f"{100 * told['micro_accuracy']:.1f}, macro {100 * macro:.1f}",
                 f"{100 * interval['low']:.1f}–{100 * interval['high']:.1f}",
                 *(f"{sum(counts):g}" for counts in _lost(chosen)), *costs(chosen)]
            )  # fmt: skip
    return rows


def _row(outcome: Outcome) -> list[str]:
    cell, result = outcome.cell, outcome.result
    head = [cell.task.name, cell.protocol, cell.strategy, str(cell.seed)]
    if result is None:
        return [*head, "–", "failed", *["–"] * (len(COLUMNS) - 6)]
    interval = result["accuracy_interval"]
    return [
        *head, str(result["n"]), f"{100 * result['accuracy']:.1f}",
        f"{100 * interval['low']:.1f}–{100 * interval['high']:.1f}",
        *(f"{sum(counts):g}" for counts in _lost([result])), *costs([result]),
    ]  # fmt: skip


def _seeds_row(done: Sequence[Outcome]) -> list[str]:
    cell = done[0].cell
    results = [outcome.result for outcome in done if outcome.result is not None]
    table = seeds.correctness([read_predictions(outcome.cell.folder) for outcome in done])
    found = seeds.seeded_accuracy(table, seed=0)
    interval = found.interval
    return [
        cell.task.name, cell.protocol, cell.strategy, f"mean of {found.seeds}", str(found.n),
        f"{100 * found.accuracy:.1f} ± {100 * (found.deviation or 0):.1f}",
        f"{100 * interval.low:.1f}–{100 * interval.high:.1f}",
        *(f"{sum(counts) / len(results):.1f}" for counts in _lost(results)), *costs(results),
    ]  # fmt: skip


def _lost(results: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Of each result the answers unparsed, and the questions refused (not told before 0.5.0)."""
    return [[int(result.get(name, 0)) for result in results] for name in ("unparsed", "refused")]


def costs(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Calls, prompt, prefilled and decoded tokens, seconds: the mean over all their questions."""
    known = [r for r in results if r.get("per_question")]
    if not known:
        return ["–"] * 5
    questions = sum(r["usage"]["questions"] for r in known)

    def mean(name: str, digits: int) -> str:
        return f"{sum(r['usage'][name] for r in known) / questions:.{digits}f}"

    seconds = sum(r["seconds"] for r in known) / questions
    return [
        mean("calls", 1), mean("prompt_tokens", 0), mean("prefilled_tokens", 0),
        mean("generated_tokens", 0), f"{seconds:.3g}",
    ]  # fmt: skip


def conditions(result: Mapping[str, Any]) -> str:
    """What sets a result apart from all of a test split, as "split dev-0, at most 50 questions"."""
    told = [f"split {result['split']}"] if result["split"] != "test" else []
    if result["limit"]:
        told.append(f"at most {result['limit']} questions, {result.get('limit_rule')}")
    return ", ".join(told)


def _under(outcomes: Sequence[Outcome]) -> str:
    told = {conditions(outcome.result) for outcome in outcomes if outcome.result is not None}
    return " ".join([UNDER, *(f"Of every task: {words}." for words in sorted(told) if words)])


def closing_table(outcomes: Sequence[Outcome]) -> str:
    """What the terminal shows at the end."""
    return f"{plain_table(COLUMNS, rows_of(outcomes))}\n{_under(outcomes)}"


def write_summary(
    outcomes: Sequence[Outcome], out: Path, *, model: str, limit: int = 0,
    compared: Sequence[Against] = (),
) -> None:  # fmt: skip
    """OUT/summary.md and OUT/summary.json: the table, each cell's folder, score and cost, and what
    was `compared`."""
    shown = ("split", "n", "accuracy", "accuracy_interval", "macro_f1", "unparsed", "refused",
             "seconds", "usage", "per_question", "calibration", "leaks")  # fmt: skip
    cells = [
        {
            "task": o.cell.task.name, "task_version": o.cell.task.version,
            "protocol": o.cell.protocol, "strategy": o.cell.strategy, "seed": o.cell.seed,
            "folder": o.cell.folder.relative_to(out).as_posix(), "error": o.error,
            "result": {name: o.result.get(name) for name in shown} if o.result else None,
        }
        for o in outcomes
    ]  # fmt: skip
    table = markdown_table(COLUMNS, rows_of(outcomes))
    told = against.markdown(compared, outcomes[0].cell.strategy) if compared else ""
    parts = [f"# {model}", table, _under(outcomes), told.strip()]
    page = "\n\n".join(part for part in parts if part)
    manifest.write_text(out / "summary.md", f"{page}\n")
    whole = {"model": model, "limit": limit, "cells": cells}
    whole["against"] = [row.to_dict() for row in compared]
    manifest.write_json(out / "summary.json", whole)
