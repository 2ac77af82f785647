"""What the verbs beside a single score wire together: harnesses, folds, groups, open answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.records import UserError, digest

if TYPE_CHECKING:
    from medexpert.evaluate_verbs import Opening


def harness_table(folder: Path, *, data: Path, more: list[Path], as_json: bool) -> str:
    """One evaluation by the rules of several harnesses, as Markdown or JSON."""
    from medexpert.evaluate.harnesses import Row, harnesses, markdown
    from medexpert.evaluate.tasks import task_named
    from medexpert.evaluate.tasks.own_file import PREFIX

    def load(task: str, split: str) -> Any:
        own = task.removeprefix(PREFIX)  # results tell the name of such a file, not its folder
        return task_named(task if own == task else f"{PREFIX}{data / own}").load(data, split)

    found = harnesses(folder, load=load, more=more)
    if as_json:
        return json.dumps(found, ensure_ascii=False, indent=2)
    return markdown([Row(**row) for row in found["rows"]], found["title"])


def fold_table(folders: list[Path], *, out: Path) -> str:
    """Mean and sd of fold models, and their ensemble, as Markdown; all numbers go to `out`."""
    from medexpert.evaluate.folds import fold_models, markdown

    return markdown(fold_models(folders, out))


def group_json(name: str, folders: list[Path]) -> str:
    """The score of a group from evaluation folders, as JSON."""
    from medexpert import manifest
    from medexpert.evaluate.groups import group_score
    from medexpert.evaluate.resume import require_finished

    for folder in folders:
        require_finished(folder)
    results = [manifest.read_json(folder / "result.json") for folder in folders]
    return json.dumps(group_score(name, results), ensure_ascii=False, indent=2)


def judge_opening(answerer: Opening, judge: str, base_url: str, options: Sequence[str]) -> Opening:
    """How the judge is opened: the answerer's own opening where it has its name and no settings."""
    if judge == answerer.model and not (base_url or options):
        return answerer
    return replace(answerer, model=judge, base_url=base_url, options=tuple(options))


def answer_freely(
    answerer: Opening,
    judge: Opening | None,
    *,
    task: str,
    data: Path,
    limit: int,
    max_tokens: int,
    out: Path,
    seed: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Answer an open task, grade it where there is a judge; the content of result.json.

    Cheap mistakes are found before a model is opened; a judge that is the answerer is opened once.
    """
    from medexpert.evaluate.open_ended import evaluate_open
    from medexpert.evaluate.sampling import of_limit
    from medexpert.evaluate.tasks.open_tasks import open_task_named

    answerer.check()
    if judge:
        try:
            judge.check()
        except UserError as error:
            raise UserError(str(error), where="the judge") from None
    asked = open_task_named(task)
    content = digest([asdict(question) for question in asked.load(data)])
    engine, weights = answerer.open(say)
    grader, grades = (None, "")
    if judge:
        grader, grades = (engine, weights) if judge == answerer else judge.open(say)
    dtype = answerer.dtype
    key = digest(
        [task, asked.version, content, of_limit(limit), max_tokens, seed, dtype, weights, grades]
    )
    return evaluate_open(
        engine, asked, data=data, out=out, key=key, progress=say, judge=grader, limit=limit,
        max_tokens=max_tokens, seed=seed,
    )  # fmt: skip
