"""The benchmarks, by exact name. To add one: a file here that makes a `Task`, a line in TASKS."""

from __future__ import annotations

from medexpert.evaluate.tasks import pubmedqa, trialgen
from medexpert.evaluate.tasks.task import Task
from medexpert.records import unknown_name

TASKS: dict[str, Task] = {task.name: task for task in (pubmedqa.TASK, trialgen.TASK)}


def task_named(name: str) -> Task:
    """The task of this name. Raises UserError listing the names and the nearest one."""
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]


__all__ = ["TASKS", "Task", "task_named"]
