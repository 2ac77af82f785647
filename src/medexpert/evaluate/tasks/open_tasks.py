"""Open questions, answered in free text: LiveQA-Med and MedicationQA.

No choice is right or wrong here, so these are no `Task`: `evaluate/open_ended.py` scores them by
overlap with reference answers and by a judge, and marks each number as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medexpert.evaluate.tasks.items import Source
from medexpert.records import Example, unknown_name


@dataclass(frozen=True)
class OpenQuestion:
    """A question with one or more reference answers, which no prompt of the answerer shows."""

    id: str
    question: str
    references: tuple[str, ...]
    lang: str = "en"


@dataclass(frozen=True)
class OpenTask:
    """Raise `version` whenever items change: results of unlike versions are never compared."""

    name: str
    version: str
    source: Source
    note: str

    @property
    def kept_out_as(self) -> str:
        """The benchmark whose quarantine keeps these items out of training data."""
        return self.source.entry

    def load(self, root: Path) -> list[OpenQuestion]:
        """The questions in file order; reference answers of one question stand together."""
        asked: dict[str, OpenQuestion] = {}
        for item in self.source.examples(root):
            if not isinstance(item, Example):
                continue
            name = item.ids.get("qid", item.id)
            held = asked.get(name)
            references = (*(held.references if held else ()), str(item.fields["answer"]))
            lang = item.lang or self.source.lang
            asked[name] = OpenQuestion(name, str(item.fields["question"]), references, lang)
        return list(asked.values())


OPEN_TASKS: dict[str, OpenTask] = {
    task.name: task
    for task in (
        OpenTask(
            "liveqa-med", "1", Source("liveqa-med"),
            "TREC 2017 LiveQA-Med: consumers' questions, up to several reference answers each",
        ),
        OpenTask(
            "medicationqa-a", "1", Source("medicationqa-a"),
            "a fixed half of MedicationQA: consumers' questions about drugs, rows with an answer",
        ),
    )
}  # fmt: skip


def open_task_named(name: str) -> OpenTask:
    """The open task of this name. Raises UserError listing the names and the nearest one."""
    if name not in OPEN_TASKS:
        raise unknown_name("open task", name, OPEN_TASKS)
    return OPEN_TASKS[name]
