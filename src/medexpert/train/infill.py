"""Blank infilling (GLM, arXiv 2103.10360, section 2.1): which tokens are taken out, and the piece.

A piece is part A, the text with one mask token in place of each blank, read both ways, and part B,
the blanks in random order, each `<sop> s1 ... sk` with the targets `s1 ... sk <eop>`. Positions are
contiguous over both. Every token of the text stays in A or is a target, exactly once.

    [MASK]   words: Poisson(3) long, 15 % of the text      [sMASK]  whole sentences, 15 %
    [gMASK]  the end of the text, from a quarter of it to all but two tokens

Everything random comes from (seed, number of the item), so an item is cut the same way whatever
else is read. Only numpy here; lengths are in tokens.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medexpert.model.special_tokens import InfillIds, infill_ids
from medexpert.model.text import start_tokens
from medexpert.recipe_train import Infill, Stage
from medexpert.records import UserError
from medexpert.train.batches import IGNORE, Piece, Tokens

SHARE = 0.15
"""Share of the text that words and sentences take out."""
LONGEST = 39
LEAST_SUFFIX = 0.25
"""GLM-10B's `gpt_min_ratio`; GLM's default is 0.5."""
SHORTEST = 4
"""Tokens, after the start tokens, below which an item stays causal."""
ROOM = 1.13
"""Row length / text length for words: their blanks add 2 tokens each, 9.5 % on average."""

Task = Literal["words", "sentences", "suffix", "causal"]
Flags = NDArray[np.bool_]
Lengths = NDArray[np.int64]

_POISSON = np.array([3.0**k / math.factorial(k) for k in range(1, LONGEST + 1)])
_SPAN_CDF = np.cumsum(_POISSON / _POISSON.sum())
_SENTENCE_END = re.compile(r"""[.?!;:]+["'”’)\]]*(?=\s|$)|[。？！；：…]+["'”’」』）]*|\n+""")


@dataclass(frozen=True)
class Blanks:
    """Spans of a text in rising order, not overlapping: [start, start + length)."""

    starts: Lengths
    lengths: Lengths

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


def _blanks(starts: Sequence[int] | Lengths, lengths: Sequence[int] | Lengths) -> Blanks:
    return Blanks(np.asarray(starts, dtype=np.int64), np.asarray(lengths, dtype=np.int64))


def word_blanks(rng: np.random.Generator, size: int, most: int) -> Blanks:
    """[MASK]: span lengths from Poisson(3) given 1..39 until floor(0.15 x size) tokens are taken.

    Any placement with at least a token between two spans is equally likely. At most `most` spans
    (as many as the row has room for); a span is at most half of a very short text. None when
    `size` < 7.
    """
    budget = math.floor(SHARE * size)
    lengths: list[int] = []
    taken = 0
    while taken < budget and len(lengths) < most:
        drawn = int(np.searchsorted(_SPAN_CDF, rng.random(), side="right")) + 1
        lengths.append(min(drawn, LONGEST, (size - 1) // 2))
        taken += lengths[-1]
    count = len(lengths)
    if not count:
        return _blanks([], [])
    # The span that goes over the budget is long more often than the others: it must not always be
    # the last one of the text.
    lengths = rng.permutation(lengths).tolist()
    # Spans and the gaps after them fill the text up to `free` tokens; where those stand is a choice
    # of `count` places among free + count.
    free = size - taken - (count - 1)
    places = np.sort(rng.choice(free + count, count, replace=False))
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return _blanks(places + before, lengths)


def sentence_blanks(rng: np.random.Generator, ends: Flags, most: int) -> Blanks:
    """[sMASK]: whole sentences in random order until 15 % of the tokens are taken, never all.

    `ends[i]`: token i ends a sentence. None when there are fewer than two sentences.
    """
    size = len(ends)
    stops = np.flatnonzero(ends) + 1
    stops = np.append(stops[stops < size], size)
    starts = np.concatenate([[0], stops[:-1]])
    chosen: list[int] = []
    taken = 0
    for number in rng.permutation(len(stops))[: max(0, min(most, len(stops) - 1))]:
        if taken >= SHARE * size:
            break
        chosen.append(int(number))
        taken += int(stops[number] - starts[number])
    chosen.sort()
    return _blanks(starts[chosen], stops[chosen] - starts[chosen])


def suffix_blank(rng: np.random.Generator, size: int, kept: int = 2) -> Blanks:
    """[gMASK]: one span at the end, its length uniform in [0.25 x size, size - kept].

    Always the end, as AntGLM does. `kept` tokens at least stay in front; size > kept.
    """
    most = size - kept
    least = min(max(1, math.ceil(LEAST_SUFFIX * size)), most)
    length = int(rng.integers(least, most + 1))
    return _blanks([size - length], [length])


def infill_piece(
    text: Tokens,
    blanks: Blanks,
    *,
    blank: int,
    ids: InfillIds,
    rng: np.random.Generator,
    corrupt: float = 0.0,
    ordinary: Tokens | None = None,
) -> Piece:
    """Part A (`blank` for every span) and part B of a text, len(text) + 2 x spans tokens.

    With `corrupt` > 0 that share of B's inputs, never of its targets, is replaced by random tokens
    of `ordinary`.
    """
    inside = np.zeros(len(text), dtype=np.bool_)
    for start, length in zip(blanks.starts, blanks.lengths, strict=True):
        inside[start : start + length] = True
    part_a = text.copy()
    part_a[blanks.starts] = blank
    inside[blanks.starts] = False
    part_a = part_a[~inside]
    given: list[Tokens] = [part_a]
    learned: list[Tokens] = [np.full(len(part_a), IGNORE, dtype=np.int32)]
    for number in rng.permutation(len(blanks)):
        start, length = int(blanks.starts[number]), int(blanks.lengths[number])
        span = text[start : start + length].astype(np.int32)
        learned += [span, np.array([ids.eop], dtype=np.int32)]
        if corrupt > 0 and ordinary is not None:
            wrong = rng.random(length) < corrupt
            span = np.where(wrong, rng.choice(ordinary, length), span)
        given += [np.array([ids.sop], dtype=np.int32), span]
    return Piece(
        np.concatenate(given).astype(np.int32), np.concatenate(learned), prefix=len(part_a)
    )


@dataclass
class Infilling:
    """What stage 1 needs to cut its items; make one with :meth:`of`.

    `counts`: pieces of each task, for the manifest. `anneal_from`: number of the first piece of the
    last part, in which all is [gMASK]; None while there is none.
    """

    settings: Infill
    ids: InfillIds
    seed: int
    sentence_ends: Callable[[str], Flags]
    ordinary: Tokens
    start: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    anneal_from: int | None = None

    @classmethod
    def of(cls, stage: Stage, tokenizer: Any, seed: int) -> Infilling:
        """For a tokenizer that has the tokens of `model.special_tokens`.

        Raises UserError when it has not; when `anneal` is asked for with another number of epochs
        than one, since the last share of the steps is then not the last share of the items; and
        when sentences are asked of a tokenizer that does not tell where its tokens stand.
        """
        if stage.infill.anneal and stage.epochs != 1:
            raise UserError(
                f"infill.anneal is for one pass over the data, but epochs = {stage.epochs:g}",
                where="knowledge.infill",
                allowed="epochs = 1, or anneal = 0",
            )
        if stage.infill.sentences and not tokenizer.is_fast:
            raise UserError(
                "this tokenizer does not tell where in the text its tokens stand",
                where="knowledge.infill",
                allowed="sentences = 0",
            )
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        plain = [n for n in sorted(tokenizer.get_vocab().values()) if n not in special]
        return cls(
            settings=stage.infill,
            ids=infill_ids(tokenizer),
            seed=seed,
            sentence_ends=lambda text: sentence_ends(text, tokenizer),
            ordinary=np.array(plain, dtype=np.int32),
            start=len(start_tokens(tokenizer)),
        )

    def pieces(
        self, text: str, tokens: Sequence[int], *, number: int, length: int, annealing: bool
    ) -> list[Piece]:
        """The pieces of item `number`, each of at most `length` tokens; none: it stays causal.

        `tokens`: the text's, start tokens before and end of text behind. A longer item is split
        into parts of equal size, all of the item's task.
        """
        rng = np.random.default_rng([self.seed, number, 0x61])
        task = self._task(rng, annealing)
        item = np.asarray(tokens, dtype=np.int32)
        if task != "causal" and len(item) < self.start + SHORTEST:
            self.counts["too short, causal"] += 1
            return []
        if task == "causal":
            self.counts[task] += 1
            return []
        ends = np.zeros(len(item), dtype=np.bool_)
        if task == "sentences":
            found = self.sentence_ends(text)
            # The text's own tokens stand before the end of text.
            ends[len(item) - 1 - len(found) : -1] = found
        limit = length - 2 if task == "suffix" else int(length / ROOM)
        bounds = np.linspace(0, len(item), math.ceil(len(item) / limit) + 1).round().astype(int)
        made = []
        for at in range(len(bounds) - 1):
            here = slice(int(bounds[at]), int(bounds[at + 1]))
            head = self.start if at == 0 else 0
            tail = 1 if at == len(bounds) - 2 else 0
            made.append(self._piece(task, item[here], ends[here], rng, length, head, tail))
        return made

    def _task(self, rng: np.random.Generator, annealing: bool) -> Task:
        drawn, mix = rng.random(), self.settings
        if annealing:
            return "suffix"
        if drawn < mix.words:
            return "words"
        if drawn < mix.words + mix.sentences:
            return "sentences"
        return "suffix" if drawn < mix.total else "causal"

    def _piece(
        self,
        task: Task,
        text: Tokens,
        ends: Flags,
        rng: np.random.Generator,
        length: int,
        head: int,
        tail: int,
    ) -> Piece:
        """A part as a piece; `head` and `tail` tokens at its ends are not of the text itself."""
        size, most = len(text) - head - tail, (length - len(text)) // 2
        blanks = _blanks([], [])
        if task == "words":
            blanks, blank = word_blanks(rng, size, most), self.ids.mask
        elif task == "sentences":
            inner = ends[head : len(text) - tail]
            blanks, blank = sentence_blanks(rng, inner, most), self.ids.smask
        if len(blanks):
            blanks = Blanks(blanks.starts + head, blanks.lengths)
        else:  # a part of one sentence, or of a few words
            task, blank = "suffix", self.ids.gmask
            blanks = suffix_blank(rng, len(text), kept=max(2, head + 1))
        self.counts[task] += 1
        return infill_piece(
            text, blanks, blank=blank, ids=self.ids, rng=rng,
            corrupt=self.settings.corrupt, ordinary=self.ordinary,
        )  # fmt: skip


def sentence_ends(text: str, tokenizer: Any) -> Flags:
    """For each token of `text` (without special tokens): whether a sentence ends with it.

    Sentences end at . ? ! ; : before white space, at their Chinese forms anywhere, and at line
    breaks. A token that reaches over such a place belongs to the sentence it begins in.
    """
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    starts = np.array([start for start, _ in read], dtype=np.int64)
    stops = np.array([match.end() for match in _SENTENCE_END.finditer(text)], dtype=np.int64)
    sentence = np.searchsorted(stops, starts, side="right")
    return np.append(sentence[1:] > sentence[:-1], True)[: len(starts)]


def reading(stage: Stage) -> str:
    """How a model of this stage is to be asked, for `attention` in its lineage (`engines.prefix`).

    "prefix": what is given was read both ways. "blank": the end of all training was [gMASK] alone,
    so that the prompt ends with it. Else "causal", which is what most of the text was.
    """
    if stage.attention == "prefix":
        return "prefix"
    only_blanks = stage.infill.suffix > 0 and stage.infill.total > 1 - 1e-9
    return "blank" if stage.infill.anneal > 0 or only_blanks else "causal"
