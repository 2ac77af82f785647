"""What a call's rows share with each other and with earlier calls, computed when it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from medexpert.engines import branches
from medexpert.engines.network import Network
from medexpert.engines.prefix import Reading
from medexpert.engines.shared import Leaf, Store, levels, plan, plan_whole, waves

Ids = list[int]
CPU_TOKENS = 2048
"""Most tokens of a pass on a CPU: larger ones leave its caches (SmolLM2-135M, two cores: 1,024 and
2,048 tokens are alike, 4,096 take a tenth longer)."""


@dataclass(frozen=True)
class Batch:
    """Leaves to be run at once; `alone`: as whole rows, without what they share."""

    leaves: list[Leaf]
    alone: bool


class Reuse:
    """`keep_tokens` bounds what is kept from call to call, and what one call adds at a time.

    `obstacle` says why nothing is shared ("" if it is); rows of more than `reach` tokens (0: any)
    share nothing, and no pass with shorter ones. `encoded` counts the tokens that were given to the
    model as prompts.
    """

    def __init__(
        self, network: Network, reading: Reading, *, batch_tokens: int, keep_tokens: int
    ) -> None:
        self.network, self.reading = network, reading
        self.batch_tokens, self.keep_tokens = batch_tokens, keep_tokens
        cpu = network.device.type == "cpu"
        self.pass_tokens = min(batch_tokens, CPU_TOKENS) if cpu else batch_tokens
        self.obstacle = branches.obstacle(network)
        self.reach, self.limit = branches.reach_of(network.model)
        self.store = Store(keep_tokens)
        self.encoded = 0
        self._weights = network.changes()

    def told(self) -> str:
        """One line for `facts()`."""
        if self.obstacle:
            return f"off: {self.obstacle}"
        what = "whole prompts" if self.reading.prefix else "beginnings"
        limit = f" of rows up to {self.reach} tokens ({self.limit})" if self.reach else ""
        return f"exact: {what}{limit}"

    def batches(
        self, rows: Sequence[Ids], free: Sequence[int], sizes: Sequence[int], *, room: int = 0,
        writing: bool = False,
    ) -> Iterator[Batch]:  # fmt: skip
        """All rows in batches that are ready to run: their nodes are computed.

        Of row i the last `free[i]` tokens are always run; its first `sizes[i]` are the prompt, read
        both ways by some models. `room` tokens will be written behind each. Rows that share
        nothing are run alone, or, when `writing`, among the others.
        """
        self._forget_old_weights()
        able = [
            i for i, ids in enumerate(rows)
            if not self.obstacle and (not self.reach or len(ids) + room <= self.reach)
        ]  # fmt: skip
        leaves = self._planned(able, rows, free, sizes, writing)
        single = set(range(len(rows))) - set(able)
        if not writing:
            single |= {leaf.index for leaf in leaves if leaf.base is None}
            leaves = [leaf for leaf in leaves if leaf.base is not None]
        alone = [Leaf(i, rows[i]) for i in sorted(single)]
        # Where whole logits are made, one row at a time keeps them small.
        budget = self.batch_tokens if writing else self.pass_tokens if self.network.plain else 1
        beyond = [leaf for leaf in alone if 0 < self.reach < len(leaf.ids) + room]
        within = [leaf for leaf in alone if not 0 < self.reach < len(leaf.ids) + room]
        for part in (beyond, within):
            for batch in branches.grouped(part, budget, room=room):
                self.encoded += sum(len(leaf.ids) for leaf in batch)
                yield Batch(batch, True)
        for wave in waves(leaves, self.keep_tokens):
            self._compute(wave)
            level = self.network.blocks and not writing
            for batch in branches.grouped(wave, budget, room=room, reach=self.reach, level=level):
                self.encoded += sum(len(leaf.rest) for leaf in batch)
                yield Batch(batch, False)

    def _forget_old_weights(self) -> None:
        """Drop what was kept if the weights were changed in place since (a model in training)."""
        weights = self.network.changes()
        if weights != self._weights:
            self.store.clear()
            self._weights = weights

    def _planned(
        self, able: Sequence[int], rows: Sequence[Ids], free: Sequence[int],
        sizes: Sequence[int], writing: bool,
    ) -> list[Leaf]:  # fmt: skip
        """Leaves of the rows `able`, `index` counting all rows."""
        taken = [rows[i] for i in able], [free[i] for i in able]
        if self.reading.prefix:
            leaves = plan_whole(*taken, [sizes[i] for i in able], self.store, always=writing)
        else:
            leaves = plan(*taken, self.store)
        for leaf in leaves:
            leaf.index = able[leaf.index]
        return leaves

    @torch.inference_mode()
    def _compute(self, leaves: Sequence[Leaf]) -> None:
        for nodes in levels(leaves):
            self.encoded += branches.compute(
                self.network, nodes, budget=self.pass_tokens, both_ways=self.reading.prefix,
                reach=self.reach,
            )  # fmt: skip
        for leaf in leaves:
            if leaf.base is not None:
                self.store.use(leaf.base)
