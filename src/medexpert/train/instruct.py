"""Stage 2, instruct: question answering, reasoning, multi-choice and conversation.

Fed: examples rendered by the one template room, packed. Moves: every weight, or an adapter. Loss:
on answers only, each assistant turn and its end-of-turn included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from medexpert.prompt.template import ChatFormat, Segment, render_all
from medexpert.recipe_train import CPoly, Stage
from medexpert.records import Example, UserError, read_jsonl, unknown_name
from medexpert.train.batches import IGNORE, Account, Encoder, Piece, segment_piece


def pieces(
    path: Path,
    encode: Encoder,
    chat: ChatFormat,
    length: int,
    account: Account,
    cap: int,
    *,
    settings: Stage | None = None,
) -> Iterator[Piece]:
    """The stage's examples as pieces; those longer than `length` are counted in `account.dropped`.

    With a `cap` (0 = none) only as many are read as give that many tokens. A conversation is a
    piece a turn, counted in `account.split_items`, where the chat template rewrites it as it grows
    and where attention is "prefix": when it is asked, all before a turn is read both ways. With
    `settings`, a piece also has that prefix, and its task (method "cpoly").
    Raises UserError with file:line when an example lacks a field of its template or a task.
    """
    tasks = task_names(path, settings) if settings else ()
    both_ways = settings is not None and settings.attention == "prefix"
    for where, example in read_examples(path, account, cap):
        task = task_number(tasks, settings, example, where)
        texts = rendered(example, chat, where)
        if both_ways:
            texts = [turn for segments in texts for turn in turns(segments)]
        account.split_items += len(texts) > 1
        for segments in texts:
            piece = segment_piece(segments, encode)
            if admitted(piece, length, account):
                yield replace(piece, task=task, prefix=prefix_of(piece) if both_ways else 0)


def read_examples(path: Path, account: Account, cap: int) -> Iterator[tuple[str, Example]]:
    """(file:line, example) until the account holds `cap` tokens (0 = no cap); all are counted."""
    for number, example in enumerate(read_jsonl(path, Example), 1):
        if cap and account.tokens >= cap:
            account.not_read += 1
            continue
        account.items += 1
        yield f"{path}:{number}", example


def rendered(example: Example, chat: ChatFormat, where: str) -> list[list[Segment]]:
    """The example's training texts. Raises UserError with `where` (file:line)."""
    try:
        return render_all(example.template, example.fields, chat=chat, lang=example.lang)
    except UserError as error:
        raise UserError(f"{example.id}: {error}", where=where) from None


def turns(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Each learned part as a text of its own, with all that stands before it as given."""
    return [
        [Segment("".join(before.text for before in segments[:at]), False), segment]
        for at, segment in enumerate(segments)
        if segment.learn
    ]


def admitted(piece: Piece, length: int, account: Account) -> bool:
    """Whether the piece is learned from; counted either way, never cut."""
    if len(piece) > length:
        account.drop(piece, "longer than sequence_length")
        return False
    if not (piece.targets != IGNORE).any():
        account.drop(piece, "nothing to learn")
        return False
    account.add(piece)
    return True


def prefix_of(piece: Piece) -> int:
    """Inputs up to the one that predicts the first learned token: all that is given before it."""
    return int(np.argmax(piece.targets != IGNORE)) + 1


# -- tasks of C-Poly ---------------------------------------------------------------------------


def task_names(path: Path, settings: Stage) -> tuple[str, ...]:
    """Names of the stage's tasks, in the order of their numbers; () when the method has none.

    They are those of `cpoly.tasks`, or, where that is empty, the templates in the data, sorted.
    Raises UserError: an example without a task or with two (file:line), a task without an example.
    """
    if settings.method != "cpoly":
        return ()
    found = set(tasks_of(settings.cpoly, read_jsonl(path, Example), str(path)))
    if not settings.cpoly.tasks:
        return tuple(sorted(found))
    _all_found(settings.cpoly, found, str(path))
    return tuple(settings.cpoly.tasks)


def _all_found(cpoly: CPoly, found: Collection[str], where: str) -> None:
    for task in cpoly.tasks:
        if task not in found:
            raise UserError(f"no example belongs to task {task!r} of cpoly.tasks", where=where)


def merged_task(cpoly: CPoly, tasks: Sequence[str], stage: str) -> str:
    """The task whose weights become the model of `stage`; "" where there are no tasks.

    Raises UserError when `cpoly.merge` names none of them.
    """
    if cpoly.merge and tasks and cpoly.merge not in tasks:
        raise unknown_name("task", cpoly.merge, tasks, where=f"{stage}.cpoly.merge")
    return cpoly.merge or (tasks[0] if tasks else "")


def task_number(
    tasks: tuple[str, ...], settings: Stage | None, example: Example, where: str
) -> int:
    """The example's place in `tasks` (from :func:`task_names`); 0 when there are none."""
    return tasks.index(_task(settings.cpoly, example, where)) if settings and tasks else 0


def tasks_of(cpoly: CPoly, examples: Iterable[Example], path: str) -> Iterator[str]:
    """The task of each example, found by its template or its source.

    Raises UserError with file:line for an example of no task or of two.
    """
    for number, example in enumerate(examples, 1):
        yield _task(cpoly, example, f"{path}:{number}")


def check_tasks(
    cpoly: CPoly, names: Iterable[str], where: str, *, possible: Iterable[str] = ()
) -> None:
    """What of the tasks can be told before the data is there.

    Raises UserError when one of `names` (templates and sources that will occur) belongs to two
    tasks, and when a task has none of them and none of the `possible` ones either.
    """
    found = {_at_most_one(cpoly, (name,), f"{name!r}", where) for name in names}
    found |= {task for name in possible for task in _claiming(cpoly, (name,))}
    _all_found(cpoly, found, where)


def _task(cpoly: CPoly, example: Example, where: str) -> str:
    if not cpoly.tasks:
        return example.template
    called = f"{example.id} (template {example.template!r}, source {example.source!r})"
    found = _at_most_one(cpoly, (example.template, example.source), called, where)
    if not found:
        raise UserError(
            f"{called} belongs to no task of cpoly.tasks",
            where=where,
            allowed=", ".join(pattern for task in cpoly.tasks.values() for pattern in task),
        )
    return found


def _at_most_one(cpoly: CPoly, names: tuple[str, ...], called: str, where: str) -> str:
    found = _claiming(cpoly, names)
    if len(found) > 1:
        raise UserError(
            f"{called} belongs to two tasks, {found[0]!r} and {found[1]!r}", where=where
        )
    return found[0] if found else ""


def _claiming(cpoly: CPoly, names: tuple[str, ...]) -> list[str]:
    """The tasks with a pattern that one of the names fits."""
    return [
        task
        for task, patterns in cpoly.tasks.items()
        if any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
    ]
