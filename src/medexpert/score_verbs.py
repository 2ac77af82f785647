"""What the verbs beside a single score wire together: harnesses, folds, groups, open answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medexpert.records import digest


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


def answer_freely(
    model: str,
    *,
    task: str,
    data: Path,
    judge: str,
    limit: int,
    max_tokens: int,
    out: Path,
    dtype: str,
    batch_tokens: int,
    seed: int,
    threads: int,
    say: Callable[[str], None],
) -> str:
    """Answer an open task, grade it where a judge is named; the scores as JSON."""
    from medexpert.evaluate.open_ended import evaluate_open
    from medexpert.evaluate.sampling import of_limit
    from medexpert.evaluate.tasks.open_tasks import open_task_named
    from medexpert.verbs import open_engine

    asked = open_task_named(task)
    content = digest([asdict(question) for question in asked.load(data)])
    engine, weights = open_engine(
        model, dtype=dtype, batch_tokens=batch_tokens, say=say, threads=threads
    )
    grader, grades = (None, "")
    if judge:
        grader, grades = open_engine(
            judge, dtype=dtype, batch_tokens=batch_tokens, say=say, threads=threads
        )
    key = digest(
        [task, asked.version, content, of_limit(limit), max_tokens, seed, dtype, weights, grades]
    )
    result = evaluate_open(
        engine, asked, data=data, out=out, key=key, progress=say, judge=grader, limit=limit,
        max_tokens=max_tokens, seed=seed,
    )  # fmt: skip
    shown = ("kind", "task", "model", "judge", "n", "empty", "cut_off", "scores")
    return json.dumps({name: result[name] for name in shown}, ensure_ascii=False, indent=2)
