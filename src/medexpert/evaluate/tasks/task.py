"""What a benchmark is to the runner: where its items come from and which settings it allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medexpert.records import Question, UserError, unknown_name

Loader = Callable[[Path, str], list[Question]]


@dataclass(frozen=True)
class Task:
    """One benchmark. Raise `version` whenever items, order or choices change: results of unlike
    versions are never compared.

    `load(root, split)` gives the questions in their official order; `official` says whether this is
    a published benchmark, which a full run on split "test" under the first of `protocols` is;
    `withheld` names protocols that cannot run, each with the reason. `examples(root)` gives solved
    questions of another split that a strategy may show; None = the benchmark has none.

    `choices` are the words all questions choose from; empty where each question has its own, which
    are then counted by letter. `benchmark` is the name under which the catalogue keeps the items
    out of training data (and states the licence), where it is not the task's own. `left_out(root,
    split)` counts published items that `load` does not ask, by reason. `lacks(root, split)` names
    the catalogue's entry whose files are not under `root`, "" when they are or none is needed.
    """

    name: str
    version: str
    protocols: tuple[str, ...]
    choices: tuple[str, ...]
    load: Loader
    official: bool
    note: str = ""
    withheld: tuple[tuple[str, str], ...] = ()
    examples: Callable[[Path], list[Question]] | None = None
    benchmark: str = ""
    splits: tuple[str, ...] = ("test",)
    left_out: Callable[[Path, str], Mapping[str, int]] | None = None
    lacks: Callable[[Path, str], str] = lambda root, split: ""

    def is_official(self, split: str, protocol: str) -> bool:
        """Whether all questions of this split under this protocol are the published benchmark."""
        return self.official and split == "test" and protocol == self.protocols[0]

    @property
    def lettered(self) -> bool:
        """Whether every question has its own choices, so that letters are counted, not words."""
        return not self.choices

    @property
    def kept_out_as(self) -> str:
        """The benchmark whose quarantine keeps this task's items out of training data."""
        return self.benchmark or self.name

    def check_protocol(self, protocol: str) -> None:
        """Raises UserError for a protocol that this task does not have."""
        for name, reason in self.withheld:
            if name == protocol:
                raise UserError(
                    f"protocol {protocol!r} cannot run on {self.name}: {reason}",
                    allowed=", ".join(self.protocols),
                )
        if protocol not in self.protocols:
            raise unknown_name("protocol", protocol, self.protocols, where=self.name)
