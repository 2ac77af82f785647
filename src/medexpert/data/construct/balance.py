"""Label balance: no label above a multiple of the rarer of "yes" and "no", any order of input.

Two passes. The first notes one 8-byte hash an example, by label; the second keeps an example when
its hash is below its label's threshold. Which ones stay depends on their ids and the seed only, so
any order, any shards and any number of workers keep the same ones, and counts are exact.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from medexpert.data.readers.rows import Drop
from medexpert.records import Example, UserError

REASON = "label_balance"
_ALL = 1 << 64


@dataclass
class Tally:
    """First pass: hashes of the ids seen, by label. Tallies of shards merge in any order."""

    seed: int
    hashes: dict[str, array[int]] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Counts one example under its answer. Memory: 8 bytes."""
        label = str(example.fields.get("answer", ""))
        self.hashes.setdefault(label, array("Q")).append(_rank(example.id, self.seed))

    def merge(self, other: Tally) -> None:
        """Adds another shard's tally, made with the same seed."""
        if other.seed != self.seed:
            raise ValueError(f"tallies of seeds {self.seed} and {other.seed} do not add up")
        for label, found in other.hashes.items():
            self.hashes.setdefault(label, array("Q")).extend(found)

    def balance(self, ratio: float, *, where: str = "") -> Balance:
        """Thresholds such that no label keeps more than ratio * min(yes, no), rounded down.

        ratio 0 keeps all. Raises UserError when "yes" or "no" does not occur.
        """
        counts = {label: len(found) for label, found in self.hashes.items()}
        if not ratio or not counts:
            return Balance(self.seed, {})
        rarer = min(counts.get("yes", 0), counts.get("no", 0))
        if ratio < 1:
            raise UserError(f"label ratio {ratio}", where=where, allowed="0 (off) or 1 and more")
        if not rarer:
            told = ", ".join(f"{label} {counts[label]}" for label in sorted(counts))
            raise UserError(
                f"labels cannot be balanced: one of yes, no does not occur ({told})",
                where=where,
                allowed="label_ratio = 0, or more input",
            )
        limit = int(ratio * rarer)
        return Balance(
            self.seed,
            {
                label: sorted(found)[limit]
                for label, found in self.hashes.items()
                if len(found) > limit
            },
        )


@dataclass(frozen=True)
class Balance:
    """Second pass: `thresholds` by label; a label that is not in it is kept whole."""

    seed: int
    thresholds: dict[str, int]

    def keeps(self, example: Example) -> bool:
        """Whether the example stays."""
        limit = self.thresholds.get(str(example.fields.get("answer", "")), _ALL)
        return _rank(example.id, self.seed) < limit


def balance(examples: Iterable[Example], *, ratio: float, seed: int) -> Iterator[Example | Drop]:
    """Both passes over examples held in memory; a dropped one becomes Drop(id, "label_balance")."""
    held = list(examples)
    tally = Tally(seed)
    for example in held:
        tally.add(example)
    chosen = tally.balance(ratio)
    for example in held:
        yield example if chosen.keeps(example) else Drop(example.id, REASON)


def _rank(name: str, seed: int) -> int:
    raw = hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(raw.digest(), "little")
