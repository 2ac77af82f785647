"""What the verbs about measuring wire together: models, tasks, strategies, probes.

A model is opened by `verbs.open_engine`, in one place, and after everything cheap was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.records import UserError
from medexpert.verbs import engine_spec, open_engine

if TYPE_CHECKING:
    from medexpert.evaluate.against import Against
    from medexpert.evaluate.grid import Outcome, Settings

Say = Callable[[str], None]


@dataclass(frozen=True)
class Opening:
    """How a model is opened."""

    model: str
    dtype: str = "float32"
    batch_tokens: int = 4096
    threads: int = 0
    base_url: str = ""
    options: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises UserError for settings that no model could be opened with."""
        engine_spec(
            self.model, dtype=self.dtype, batch_tokens=self.batch_tokens,
            base_url=self.base_url, options=self.options,
        )  # fmt: skip

    def open(self, say: Say) -> tuple[Any, str]:
        """The engine and the digest of its weights."""
        return open_engine(
            self.model, dtype=self.dtype, batch_tokens=self.batch_tokens, say=say,
            threads=self.threads, base_url=self.base_url, options=self.options,
        )  # fmt: skip


def listed(text: str, what: str) -> list[str]:
    """The parts of a comma-separated list. Raises UserError for an empty part."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"{what} {text!r} has an empty part", allowed="names with commas between")
    return parts


def numbers(text: str, what: str) -> list[int]:
    """A comma-separated list of whole numbers from 0."""
    parts = listed(text, what)
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UserError(f"{what} {text!r}", allowed="whole numbers with commas between: 0,1,2")
    return [int(part) for part in parts]


def evaluate_model(
    opening: Opening,
    *,
    tasks: Sequence[str],
    strategies: Sequence[str],
    seeds: Sequence[int],
    settings: Settings,
    flat: bool,
    say: Say,
) -> tuple[list[Outcome], list[Against]]:
    """The grid of a model and its comparisons; cheap mistakes are found before it is opened.

    With `flat` there is one cell, in `settings.out` itself, and its failure is raised: so is other
    work that the folder holds.
    """
    from medexpert.evaluate import against, grid
    from medexpert.evaluate.tasks import expand
    from medexpert.evaluate.tasks.present import require_files

    opening.check()
    chosen = expand(tasks)
    require_files(tasks, settings.data, settings.split)
    flat = flat and len(chosen) == 1  # a group has several
    cells = grid.plan(chosen, strategies, seeds, settings, flat=flat)
    if flat:
        grid.refuse_other(cells[0], settings)
    grid.tell_faults(cells, say)
    engine, weights = opening.open(say)
    model = (opening.dtype, weights)
    if flat:
        result = grid.run_cell(engine, cells[0], settings, model=model, say=say, start_over=False)
        return [grid.Outcome(cells[0], result)], []
    outcomes = grid.evaluate_cells(engine, cells, settings, model=model, say=say)
    compared = against.against_first(outcomes)
    grid.write_summary(
        outcomes, settings.out, model=engine.name, limit=settings.limit, compared=compared
    )
    return outcomes, compared


def measure_sensitivity(
    opening: Opening,
    *,
    task: str,
    strategy: str,
    labels: Sequence[str],
    orders: int,
    settings: Settings,
    seed: int,
    say: Say,
) -> dict[str, Any]:
    """Ask the questions in other orders and under other names; the summary, also as JSON in out."""
    from medexpert import manifest
    from medexpert.evaluate import grid, sensitivity
    from medexpert.evaluate.resume import read_predictions
    from medexpert.evaluate.sampling import sample
    from medexpert.evaluate.tasks import task_named
    from medexpert.evaluate.tasks.present import require_files
    from medexpert.records import unknown_name

    for name in labels:
        if name not in sensitivity.LABELS:
            raise unknown_name("names of the choices", name, sensitivity.LABELS, where="--labels")
    plain = task_named(task)
    require_files([task], settings.data, settings.split)
    questions = sample(plain.load(settings.data, settings.split), settings.limit)
    most = max((factorial(len(question.choices)) for question in questions), default=1)
    orders = min(orders, most)
    labels = sensitivity.unlike(labels, questions, say)
    cells = {}
    for name in labels:
        for order in range(orders):
            variant = sensitivity.Variant(name, order)
            varied = sensitivity.varied_task(plain, variant, orders)
            (cell,) = grid.plan([varied], [strategy], [seed], settings, flat=True)
            cells[variant] = grid.moved(cell, settings.out / variant.name)
    grid.tell_faults(list(cells.values()), say)
    engine, weights = opening.open(say)
    rows = {}
    for variant, cell in cells.items():
        say(f"{plain.name} {strategy}: choices as {variant.labels}, order {variant.order}")
        grid.run_cell(engine, cell, settings, model=(opening.dtype, weights), say=say)
        rows[variant] = read_predictions(cell.folder)
    found = {
        "task": plain.name, "task_version": plain.version, "split": settings.split,
        "protocol": cell.protocol, "limit": settings.limit, "strategy": strategy, "seed": seed,
        "model": engine.name, **sensitivity.summary(questions, rows, orders),
    }  # fmt: skip
    manifest.write_json(settings.out / "sensitivity.json", found)
    return found


def measure_memorisation(
    opening: Opening,
    *,
    task: str,
    data: Path,
    against: str,
    split: str,
    share: float,
    limit: int,
    say: Say,
) -> dict[str, Any]:
    """Min-K% of a task's questions against those of another split or task."""
    from medexpert.engines.base import TokenScorer
    from medexpert.evaluate.memorised import memorisation
    from medexpert.evaluate.sampling import sample
    from medexpert.evaluate.tasks import task_named
    from medexpert.evaluate.tasks.present import require_files

    if not 0 < share <= 1:
        raise UserError(f"share {share}", where="--share", allowed="above 0, at most 1")
    name, _, part = against.partition("@")
    sets = [(task_named(task), split), (task_named(name), part or "test")]
    for given, (_, wanted) in zip((task, name), sets, strict=True):
        require_files([given], data, wanted)
    one, other = (sample(made.load(data, wanted), limit) for made, wanted in sets)
    shared = {question.id for question in one} & {question.id for question in other}
    if shared:
        raise UserError(
            f"{len(shared)} questions are in both sets (first: {min(shared)})", where="--against",
            allowed="other questions: TASK or TASK@SPLIT",
        )  # fmt: skip
    engine, _ = opening.open(say)
    called = engine.name
    if not isinstance(engine, TokenScorer):
        raise UserError(
            f"{called} does not tell the log-probability of every token", where="--model",
            allowed="a local model, or an endpoint that tells a prompt's log-probabilities",
        )  # fmt: skip
    say(f"scoring {len(one)} and {len(other)} texts")
    found = memorisation(engine, one, other, share=share)
    return {"model": called, "task": task, "split": split, "against": against, **found}
