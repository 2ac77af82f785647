"""Writing behind prompts, a token at a time, from shared beginnings; rows that end are let go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from medexpert.engines.base import Completion
from medexpert.engines.branches import Branches
from medexpert.engines.generation import Reader, Settings, end_tokens, sampling
from medexpert.engines.network import Network
from medexpert.engines.shared import Leaf

Ids = list[int]
KEEP_GOING = 0.75
"""A batch is cut down to the rows still being written once no more than this part of it is."""


class Decoding:
    """One batch of leaves. Draws are seeded row by row: a text does not depend on its batch."""

    def __init__(
        self, network: Network, tokenizer: Any, leaves: Sequence[Leaf], settings: Settings,
        seeds: Sequence[int], ends: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.network, self.leaves, self.settings = network, leaves, settings
        self.ends = frozenset([*end_tokens(network.model, tokenizer), *ends])
        self.reader = Reader(tokenizer, [leaf.ids for leaf in leaves], settings.stop)
        self.made: list[Ids] = [[] for _ in leaves]
        self._seeds = seeds

    def completions(self) -> list[Completion]:
        """The whole texts, in the order of the leaves."""
        for _ in self.steps():
            pass
        return [self._completion(row) for row in range(len(self.leaves))]

    @torch.inference_mode()
    def steps(self) -> Iterator[None]:
        """After each, every row that has not ended has one token more in `made`."""
        room = self.settings.max_tokens
        batch = Branches(self.network, self.leaves, room=room - 1, left=True)
        processors: Any = sampling(self.settings, self._seeds, self.network.device)
        alive = list(range(len(self.leaves)))  # the row of each place in the batch
        ended: set[int] = set()
        logits = batch.first_logits()
        for number in range(1, room + 1):
            tokens: torch.Tensor = processors(batch.positions, logits.float()).argmax(-1)
            for row, token in zip(alive, tokens.tolist(), strict=True):
                if row not in ended:
                    self.made[row].append(token)
                    if token in self.ends or (
                        self.settings.stop and self.reader.stopped(row, self.made[row])
                    ):
                        ended.add(row)
            yield
            going = [place for place, row in enumerate(alive) if row not in ended]
            if number == room or not going:
                return
            if len(going) <= KEEP_GOING * len(alive):
                chosen = torch.tensor(going, device=tokens.device)
                batch.select(chosen)
                tokens = tokens[chosen]
                alive = [alive[place] for place in going]
                if processors:  # the last one draws, from one generator a row
                    drawn = processors[-1].generators
                    processors[-1].generators = [drawn[place] for place in going]
            logits = batch.next_logits(tokens)

    def pieces(self) -> Iterator[str]:
        """The text of a single row as it is made. What may yet become part of a stop string or of a
        character is held back, so that the pieces together are the completion's text."""
        shown = ""
        for _ in self.steps():
            text = self.reader.text(0, [t for t in self.made[0] if t not in self.ends])
            if any(mark in text for mark in self.settings.stop):
                break
            sure = text[: len(text) - self._open(text)]
            if sure.startswith(shown) and len(sure) > len(shown):
                yield sure[len(shown) :]
                shown = sure
        whole = self._completion(0).text
        if len(whole) > len(shown):
            yield whole[len(shown) :]

    def _open(self, text: str) -> int:
        """Characters at the end that are not yet certain."""
        unfinished = len(text) - len(text.rstrip("\ufffd"))
        for mark in self.settings.stop:
            for size in range(min(len(mark) - 1, len(text)), unfinished, -1):
                if text.endswith(mark[:size]):
                    unfinished = size
                    break
        return unfinished

    def _completion(self, row: int) -> Completion:
        return self.reader.completion(row, self.made[row], self.ends)
