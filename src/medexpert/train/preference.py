r"""Direct preference optimisation on pairs of answers to one prompt.

A pair is an example whose fields carry `rejected`: a text that takes the place of the answer (of
`answer`, `answer_idx`, or of the last message), or an object of fields that replace the example's
own (a rationale and its answer, say). Prompt and template are the same for both. Of a conversation
only the last turn is compared.

Loss of a pair (Rafailov et al. 2023, Direct Preference Optimization, equation 7), x the prompt,
y_c and y_r the chosen and the rejected answer, pi the trained model, ref the stage's input model:

    -log sigmoid(beta [(log pi(y_c|x) - log ref(y_c|x)) - (log pi(y_r|x) - log ref(y_r|x))])

plus `likelihood` x the mean negative log-probability of y_c's tokens, which keeps the chosen answer
likely itself. log pi(y|x) is the sum over the tokens of y, end-of-turn included.

Legend: N positions with a target, I items of a batch, P pairs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from medexpert import manifest
from medexpert.prompt.template import ChatFormat, Segment
from medexpert.recipe_train import Preference, Stage
from medexpert.records import Example, UserError
from medexpert.train.batches import (
    IGNORE,
    Account,
    Batch,
    Encoder,
    Piece,
    collate,
    segment_piece,
)
from medexpert.train.instruct import (
    admitted,
    prefix_of,
    read_examples,
    rendered,
    task_names,
    task_number,
    turns,
)
from medexpert.train.objectives import target_logprobs
from medexpert.train.rows import pack

WINDOW = 512
"""Pairs whose reference is computed and kept at once."""

# -- pairs as pieces ---------------------------------------------------------------------------


def pieces(
    path: Path,
    encode: Encoder,
    chat: ChatFormat,
    length: int,
    account: Account,
    cap: int,
    settings: Stage,
) -> Iterator[Piece]:
    """One piece a pair: the chosen item, then the rejected one, at most `length` tokens together.

    Examples without `rejected`, and pairs of equal answers, are counted in `account.dropped`.
    Raises UserError with file:line for a `rejected` that does not fit the example.
    """
    tasks = task_names(path, settings)
    for where, example in read_examples(path, account, cap):
        if "rejected" not in example.fields:
            account.dropped["no rejected answer"] += 1
            continue
        given, chosen = _last_turn(example, chat, where)
        also_given, rejected = _last_turn(_with_rejected(example, where), chat, where)
        if given != also_given:
            raise UserError(
                f"{example.id}: chosen and rejected answer have different prompts", where=where
            )
        if chosen == rejected:
            account.dropped["chosen and rejected answer are the same"] += 1
            continue
        pair = _joined(
            segment_piece([Segment(given, False), Segment(chosen, True)], encode),
            segment_piece([Segment(given, False), Segment(rejected, True)], encode),
        )
        if admitted(pair, length, account):
            yield replace(
                pair,
                task=task_number(tasks, settings, example, where),
                prefix=prefix_of(pair) if settings.attention == "prefix" else 0,
            )


def _with_rejected(example: Example, where: str) -> Example:
    """The same example with the rejected answer in the place of its own."""
    fields = {name: value for name, value in example.fields.items() if name != "rejected"}
    rejected = example.fields["rejected"]
    if isinstance(rejected, Mapping):
        for name in rejected:
            if name not in fields:
                raise UserError(
                    f"{example.id}: 'rejected' names {name!r}, which the example lacks",
                    where=where,
                    allowed=", ".join(fields),
                )
        return replace(example, fields={**fields, **rejected})
    if not isinstance(rejected, str):
        raise UserError(
            f"{example.id}: 'rejected' is of type {type(rejected).__name__}",
            where=where,
            allowed="a text, or an object of fields",
        )
    messages = fields.get("messages")
    if messages:
        return replace(
            example, fields={"messages": [*messages[:-1], {**messages[-1], "content": rejected}]}
        )
    for name in ("answer", "answer_idx"):
        if name in fields:
            return replace(example, fields={**fields, name: rejected})
    raise UserError(
        f"{example.id}: it has no answer for 'rejected' to replace",
        where=where,
        allowed="answer, answer_idx, messages; or 'rejected' as an object of fields",
    )


def _last_turn(example: Example, chat: ChatFormat, where: str) -> tuple[str, str]:
    """(all text before the last learned part, that part)."""
    given, learned = turns(rendered(example, chat, where)[-1])[-1]
    return given.text, learned.text


def _joined(chosen: Piece, rejected: Piece) -> Piece:
    return Piece(
        np.concatenate([chosen.inputs, rejected.inputs]),
        np.concatenate([chosen.targets, rejected.targets]),
        breaks=(len(chosen),),
    )


# -- the loss ----------------------------------------------------------------------------------


def item_logprobs(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log-probability and number of the targets of each item, both (I,)."""
    items = batch.items[batch.targets != IGNORE]  # (N,)
    log_p = target_logprobs(model, batch)
    summed = log_p.new_zeros(len(batch.reference)).index_add(0, items, log_p)
    return summed, torch.bincount(items, minlength=len(batch.reference))


class PreferenceObjective:
    """`objective(model, batch, scale)` is scale x the loss summed over the batch's pairs.

    The unit of a step is the pair (:meth:`units`). What a step's calls found is added up until
    :meth:`take_facts` is called for the log.
    """

    def __init__(self, settings: Preference) -> None:
        self.settings = settings
        self._tally = torch.zeros(3)  # pairs, their margins, those with a margin over 0

    def __call__(self, model: nn.Module, batch: Batch, scale: float = 1.0) -> torch.Tensor:
        losses, margins = pair_losses(model, batch, self.settings)
        found = torch.stack([torch.ones_like(margins), margins, (margins > 0).to(margins.dtype)])
        self._tally = self._tally.to(found.device) + found.sum(1)
        return scale * losses.sum()

    @property
    def last_facts(self) -> dict[str, float]:
        """Since the last take: `pairs`, `margin` (mean of beta x [...] above) and `accuracy` (share
        of pairs with a margin over 0); empty before the first call."""
        return _facts_of(self._tally)

    def take_facts(
        self, summed: Callable[[torch.Tensor], torch.Tensor] = lambda tally: tally
    ) -> dict[str, float]:
        """`last_facts`, which begin anew; `summed` adds a tensor of shape (3,) over processes."""
        tally, self._tally = summed(self._tally), torch.zeros(3)
        return _facts_of(tally)

    @staticmethod
    def units(batch: Batch) -> int:
        return int((~batch.reference.isnan()).sum()) // 2


def _facts_of(tally: torch.Tensor) -> dict[str, float]:
    pairs, margins, won = tally.tolist()
    return {"pairs": pairs, "margin": margins / pairs, "accuracy": won / pairs} if pairs else {}


def pair_losses(
    model: nn.Module, batch: Batch, settings: Preference
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and margin of each pair, both (P,); the margin carries no gradient.

    A batch of padding alone has no pair; it goes through the model all the same, as sharding wants.
    Raises ValueError when the batch's pieces have no reference log-probabilities.
    """
    known = (~batch.reference.isnan()).nonzero().flatten()
    if not len(known) and batch.loss_tokens:
        raise ValueError("a batch of preference pairs without reference log-probabilities")
    pairs = known.view(len(known) // 2, 2)  # (P, 2): the items of a piece are neighbours
    summed, lengths = item_logprobs(model, batch)
    gained = summed[pairs] - batch.reference[pairs]  # (P, 2)
    margin = settings.beta * (gained[:, 0] - gained[:, 1])
    own = -summed[pairs[:, 0]] / lengths[pairs[:, 0]]
    return settings.likelihood * own - F.logsigmoid(margin), margin.detach()


# -- the reference -----------------------------------------------------------------------------


def reference_logprobs(
    model: nn.Module,
    pairs: Iterable[Piece],
    *,
    path: Path,
    key: str,
    capacity: int,
    micro_rows: int,
    pad: int,
) -> Iterator[Piece]:
    """The same pieces, in order, with the log-probabilities of both answers under `model`.

    What is computed is kept in `path` (JSON lines, one a window) and read from there
    when the run is resumed. `key` names the model: a file of another key, or of other pieces, is
    written anew. Call it with the weights in the dtype that training computes in, so that the loss
    starts at ln 2. Raises UserError for a log-probability that is not finite, or a full disk.
    """
    kept = _kept(path, key)
    writing = False
    waiting = iter(pairs)
    number = 0
    while window := list(itertools.islice(waiting, WINDOW)):
        named = _digest(window)
        if number < len(kept) and kept[number]["pieces"] == named:
            values = kept[number]["values"]
        else:
            if not writing:  # from here on nothing of an old file is of use
                writing, kept = True, kept[:number]
                path.parent.mkdir(parents=True, exist_ok=True)
                manifest.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
            values = _window_logprobs(model, window, capacity, micro_rows, pad)
            line = json.dumps({"key": key, "pieces": named, "values": values})
            with manifest.disk_errors(path), path.open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")
        number += 1
        for piece, (chosen, rejected) in zip(window, values, strict=True):
            yield replace(piece, reference=(chosen, rejected))


def _kept(path: Path, key: str) -> list[dict[str, Any]]:
    """Whole lines of this key at the beginning of the file."""
    lines: list[dict[str, Any]] = []
    if not path.is_file():
        return lines
    for text in path.read_text("utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            break
        if line["key"] != key:
            break
        lines.append(line)
    return lines


def _digest(window: list[Piece]) -> str:
    found = hashlib.sha256()
    for piece in window:
        found.update(f"{len(piece)} {piece.breaks} {piece.prefix};".encode())
        found.update(piece.inputs.tobytes() + piece.targets.tobytes())
    return found.hexdigest()[:16]


def _window_logprobs(
    model: nn.Module, window: list[Piece], capacity: int, micro_rows: int, pad: int
) -> list[list[float]]:
    """Both log-probabilities of each piece, packed into rows as training does."""
    device = next(model.parameters()).device
    rows = [list(row) for row in pack([len(p) for p in window], capacity, range(len(window)))]
    found: dict[int, list[float]] = {}
    with _evaluating(model):
        for start in range(0, len(rows), micro_rows):
            here = rows[start : start + micro_rows]
            # Marked as known so that padding, which has no reference, can be told from the items.
            marked = [[replace(window[i], reference=(0.0, 0.0)) for i in row] for row in here]
            batch = collate(marked, pad).to(device)
            known = ~batch.reference.isnan()
            sums = item_logprobs(model, batch)[0][known].view(-1, 2).float().tolist()
            found.update(zip(itertools.chain.from_iterable(here), sums, strict=True))
    values = [found[i] for i in range(len(window))]
    if not np.isfinite(values).all():
        raise UserError("the input model gives an answer a log-probability that is not finite")
    return values


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
