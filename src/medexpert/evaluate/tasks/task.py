"""What a benchmark is to the runner: where its items come from and which settings it allows."""

from __future__ import annotations

from collections.abc import Callable
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

    def is_official(self, split: str, protocol: str) -> bool:
        """Whether all questions of this split under this protocol are the published benchmark."""
        return self.official and split == "test" and protocol == self.protocols[0]

    def check_protocol(self, protocol: str) -> None:
        """Raises UserError for a protocol that this task does not have."""
        for name, reason in self.withheld:
            if name == protocol:
                raise UserError(
                    f"protocol {protocol!r} cannot run on {self.name}: {reason}",
                    allowed=", ".join(self.protocols),
                )
        if protocol not in self.protocols:
            raise unknown_name("protocol", protocol, self.protocols)
