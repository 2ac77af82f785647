"""The benchmarks, by exact name. To add one: a `Task` in a file here, a line in TASKS."""

from __future__ import annotations

from collections.abc import Sequence

from medexpert.evaluate.tasks import bioasq, exams, pubmedqa, subjects, trialgen
from medexpert.evaluate.tasks.open_tasks import OPEN_TASKS
from medexpert.evaluate.tasks.own_file import is_own_file, own_file
from medexpert.evaluate.tasks.task import Task
from medexpert.records import UserError, unknown_name

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        pubmedqa.TASK,
        pubmedqa.REASONING_FREE,
        trialgen.TASK,
        *exams.ENGLISH,
        bioasq.TASK,
        *exams.CHINESE,
        *subjects.TASKS,
    )
}
GROUPS: dict[str, tuple[str, ...]] = subjects.GROUPS
"""Tasks that are reported together: macro = mean over tasks, micro = over all their questions."""


def task_named(name: str) -> Task:
    """The task of this name, or of the file behind `file:PATH`.

    Raises UserError listing the names and the nearest one, or every fault of the file.
    """
    if is_own_file(name):
        return own_file(name)
    if name not in TASKS:
        raise _unknown(name, [*TASKS, "file:PATH"])
    return TASKS[name]


def tasks_named(name: str) -> list[Task]:
    """The tasks of a group, or the one task of this name. Raises UserError as `task_named`."""
    if name in GROUPS:
        return [TASKS[member] for member in GROUPS[name]]
    if is_own_file(name) or name in TASKS:
        return [task_named(name)]
    raise _unknown(name, [*TASKS, *GROUPS, "file:PATH"])


def _unknown(name: str, known: Sequence[str]) -> UserError:
    """The error for a name that is not `known`; one that is known elsewhere is told what it is."""
    if name in OPEN_TASKS:
        return UserError(
            f"{name} has no choices: it is answered in free text",
            allowed=f"`medexpert free --task {name}`",
        )
    if name in GROUPS:
        members = ", ".join(GROUPS[name])
        return UserError(f"{name} is a group of tasks", allowed=f"one of them: {members}")
    return unknown_name("task", name, known)


def expand(names: Sequence[str]) -> list[Task]:
    """The tasks of several names and groups, each once, in the order given.

    Raises UserError as `tasks_named`, and for two files of one name, whose results would be one.
    """
    found: dict[str, Task] = {}
    for task in (task for name in names for task in tasks_named(name)):
        if found.setdefault(task.name, task).version != task.version:
            raise UserError(f"two files are called {task.name}", allowed="files of unlike names")
    return list(found.values())


__all__ = ["GROUPS", "TASKS", "Task", "expand", "task_named", "tasks_named"]
