"""Whether the files of tasks are in the data folder; if not, how to get them, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medexpert.evaluate.tasks import tasks_named
from medexpert.evaluate.tasks.task import Task
from medexpert.records import UserError


def require_files(names: Sequence[str], root: Path, split: str) -> None:
    """Raises UserError for the first task or group that lacks files under `root`.

    Of a group it tells which tasks are there and which are not.
    """
    for name in names:
        members = tasks_named(name)
        lacking = {task.name: entry for task in members if (entry := task.lacks(root, split))}
        if not lacking:
            continue
        way = _way(list(dict.fromkeys(lacking.values())), root)
        if len(members) == 1:
            error = _told(members[0], root, split)
            allowed = f"{error.allowed}; {way}" if error.allowed else way
            raise UserError(error.what, where=error.where, allowed=allowed)
        here = [task.name for task in members if task.name not in lacking]
        rest = f"there: --tasks {','.join(here)}" if here else "none is there"
        raise UserError(
            f"{len(lacking)} of the {len(members)} tasks of {name} have no file here: "
            f"{', '.join(lacking)}; {rest}",
            where=f"--data {root}",
            allowed=f"the tasks that are there; {way}" if here else way,
        )


def _told(task: Task, root: Path, split: str) -> UserError:
    """What the task itself says of the files it lacks."""
    try:
        task.load(root, split)
    except UserError as error:
        return error
    return UserError(f"{task.name}: no file here", where=str(root))


def _way(entries: Sequence[str], root: Path) -> str:
    from medexpert.data.catalogue import BENCHMARKS, SOURCES

    folder = "data" if root == Path() else str(root)
    known = {entry: BENCHMARKS.get(entry) or SOURCES.get(entry) for entry in entries}
    fetched = [name for name, entry in known.items() if entry is not None and entry.origin]
    commands = [f"`medexpert data fetch {name} --to {folder}`" for name in fetched]
    way = "--data with the folder that holds the files"
    return f"{way}, or {' and '.join(commands)} and then --data {folder}" if commands else way
