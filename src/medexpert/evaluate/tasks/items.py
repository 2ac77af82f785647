"""Published files -> questions: the catalogue says where they lie, `data.readers` what is in them.

Nothing is read in a second way here: a reader's Example becomes a Question, a row that the reader
cannot use is counted under its reason, and a row that breaks its format stops the evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from medexpert.evaluate.tasks.task import Task
from medexpert.prompt.options import distinct
from medexpert.records import Example, Question, UserError

SEVERAL = "several_right_answers"
"""Why a question is left out that no single choice answers."""


@dataclass(frozen=True)
class Source:
    """Items of one split: a source or benchmark of the catalogue, and which of its files.

    `reader` is one of `data.readers.READERS`, the entry's own unless given; `files` is a pattern of
    file names, `prefix` what the ids of the wanted rows begin with.
    """

    entry: str
    files: str = "*"
    reader: str = ""
    prefix: str = ""

    def paths(self, root: Path) -> list[str]:
        """The files under `root`. Raises UserError naming the places that were tried."""
        from medexpert.data.catalogue import locate

        found = [
            path
            for path in locate(self._entry(), root)
            if fnmatch(PurePosixPath(path).name.removesuffix(".gz"), self.files)
        ]
        if not found:
            raise UserError(f"{self.entry} has no file {self.files}", where=str(root))
        return found

    def is_here(self, root: Path) -> bool:
        """Whether the files are there."""
        try:
            return bool(self.paths(root))
        except UserError:
            return False

    def examples(self, root: Path) -> Iterator[Any]:
        """What the reader gives, faults as a UserError that names file and line."""
        from medexpert.data.readers import READERS
        from medexpert.data.readers.rows import Fault, Part, read

        reader = READERS[self.reader or self._entry().reader]
        faults: list[Fault] = []
        for item in read(reader, [Part(path) for path in self.paths(root)]):
            if isinstance(item, Fault):
                faults.append(item)
            elif not self.prefix or item.id.startswith(self.prefix):
                yield item
        if faults:
            more = f" (and {len(faults) - 1} more bad rows)" if len(faults) > 1 else ""
            raise UserError(f"{faults[0].what}{more}", where=faults[0].where)

    @property
    def lang(self) -> str:
        """The language the catalogue states."""
        return str(self._entry().lang)

    def _entry(self) -> Any:
        from medexpert.data.catalogue import BENCHMARKS, find

        return BENCHMARKS.get(self.entry) or find(self.entry)


Convert = Callable[[Example, str], "Question | str"]
"""(example, language) -> a question, or why there is none."""


def questions(source: Source, root: Path, convert: Convert) -> tuple[list[Question], Counter[str]]:
    """Questions in file order, and how many items were left out, by reason."""
    from medexpert.data.readers.rows import Drop

    lang = source.lang
    asked: list[Question] = []
    left_out: Counter[str] = Counter()
    for item in source.examples(root):
        made: Question | str = item.reason if isinstance(item, Drop) else ""
        if isinstance(item, Example):
            made = convert(item, lang)
        if isinstance(made, Question):
            asked.append(made)
        elif made:
            left_out[made] += 1
    return asked, left_out


def mcq(benchmark: str, subject: str = "") -> Convert:
    """Multi-choice examples of a benchmark; questions with several right letters are left out.

    `benchmark` and `subject` go into the question's ids: formats are chosen by them.
    """

    def convert(example: Example, lang: str) -> Question | str:
        fields = example.fields
        letters, right = list(fields["options"]), str(fields["answer_idx"])
        if len(right) > 1:
            return SEVERAL
        choices = distinct(list(fields["options"].values()))
        told = {"benchmark": benchmark, **({"subject": subject} if subject else {})}
        return Question(
            id=example.id,
            question=str(fields["question"]),
            choices=choices,
            answer=choices[letters.index(right)],
            lang=example.lang or lang,
            ids={**example.ids, **told},
        )

    return convert


def verdicts(choices: tuple[str, ...], benchmark: str) -> Convert:
    """Examples of kind `task` in PubMedQA's shape; other kinds are left out by their kind.

    The long answer stays behind: it states the verdict.
    """

    def convert(example: Example, lang: str) -> Question | str:
        if example.kind != "task":
            return f"kind_{example.kind}"
        return Question(
            id=example.id,
            question=str(example.fields["question"]),
            choices=choices,
            answer=str(example.fields["answer"]),
            contexts=tuple(example.fields["contexts"]),
            lang=example.lang or lang,
            ids={**example.ids, "benchmark": benchmark},
        )

    return convert


def exam(
    name: str,
    sources: Mapping[str, Source],
    *,
    benchmark: str,
    convert: Convert,
    note: str,
    official: bool,
    shots: str = "",
    version: str = "1",
    protocols: tuple[str, ...] = ("question-only",),
    choices: tuple[str, ...] = (),
) -> Task:
    """A task over `sources` by split; `shots` names the split whose solved items may be shown."""

    def source(split: str) -> Source:
        if split not in sources:
            raise UserError(f"{name} has no split {split!r}", allowed=", ".join(sources))
        return sources[split]

    def lacks(root: Path, split: str) -> str:
        wanted = source(split)
        return "" if wanted.is_here(root) else wanted.entry

    def examples(root: Path) -> list[Question]:
        shown = sources[shots]
        # Without the file a strategy that shows none can still be measured.
        return questions(shown, root, convert)[0] if shown.is_here(root) else []

    return Task(
        name=name,
        version=version,
        protocols=protocols,
        choices=choices,
        load=lambda root, split: questions(source(split), root, convert)[0],
        official=official,
        note=note,
        examples=examples if shots else None,
        benchmark=benchmark,
        splits=tuple(sources),
        left_out=lambda root, split: dict(questions(source(split), root, convert)[1]),
        lacks=lacks,
    )
