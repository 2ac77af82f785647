"""A transformers causal model on this machine, CPU or GPU.

How text becomes tokens: `model.text`, the same rule as in training.

Scoring pads on the right and passes no mask: under causal attention no token sees what follows it,
so padding cannot change a score. Prompts are never cut; one that does not fit is an error.

A model whose lineage says so reads its prompts both ways: `engines.prefix`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medexpert.engines.base import Completion, PromptError, TextScore, Usage, text_scores
from medexpert.engines.branches import Branches
from medexpert.engines.choices import rows_of
from medexpert.engines.network import Network
from medexpert.engines.prefix import generate_prefix, reading_of
from medexpert.engines.reuse import Batch, Reuse
from medexpert.model.base import chat_format, load
from medexpert.model.folder import existing, read_lineage
from medexpert.model.text import TextEncoder
from medexpert.prompt.template import ChatFormat
from medexpert.records import UserError, unknown_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from medexpert.engines.decoding import Decoding
    from medexpert.engines.generation import Settings

Ids = list[int]
Place = tuple[int, int]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WINDOW = 1024
"""Tokens of a text scored in one go: a number that does not depend on the model's context."""
KEEP_TOKENS = 8192
"""Tokens of shared beginnings kept from call to call: about twenty PubMedQA questions."""


class LocalEngine:
    """Scores and generates with an already loaded model; see `engines.base.Engine`.

    `batch_tokens` bounds rows x longest row (padding counted) of one forward pass; a single row
    may exceed it. Prompts that begin alike are encoded once (`engines.reuse`); of what calls may
    share with later ones, the last `keep_tokens` are kept.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "",
        batch_tokens: int = 4096,
        keep_tokens: int = KEEP_TOKENS,
        lineage: dict[str, Any] | None = None,
    ) -> None:
        # Of a PEFT wrapper the inner model holds the adapter layers in place.
        unwrap = getattr(model, "get_base_model", None)
        self.model: Any = unwrap() if unwrap else model
        self.model.eval()
        self.tokenizer: Any = tokenizer
        self.batch_tokens = batch_tokens
        self.name = name or str(getattr(self.model.config, "name_or_path", "") or "model")
        self.lineage = lineage or {}
        self.chat = ChatFormat(*chat_format(tokenizer))
        config = self.model.config.get_text_config()
        self.context = int(getattr(config, "max_position_embeddings", 0) or 0)
        self._text = TextEncoder(self.tokenizer)
        self.reading = reading_of(self.lineage, self.tokenizer)
        self.network = Network(self.model)
        self.reuse = Reuse(
            self.network, self.reading, batch_tokens=batch_tokens, keep_tokens=keep_tokens
        )
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.packed = 0  # layers of another layout, see `open`
        self._usage = Usage()

    @classmethod
    def open(
        cls, folder: str | Path, *, name: str = "", dtype: str = "float32", batch_tokens: int = 4096
    ) -> LocalEngine:
        """Open a model folder, or a PEFT adapter folder.

        The name is by default the folder's own, or "RUN/STAGE" for RUN/STAGE/model.
        Raises UserError: unknown dtype, no such folder, or what `model.base.load` raises.
        """
        if dtype not in DTYPES:
            raise unknown_name("dtype", dtype, DTYPES)
        from medexpert.engines.quick import pack

        folder = existing(folder)
        model, tokenizer = load(folder, dtype=DTYPES[dtype])
        parameters = sum(p.numel() for p in model.parameters())
        packed = pack(model)
        parts = folder.resolve().parts
        own = "/".join(parts[-3:-1] if parts[-1] in ("model", "adapter") else parts[-1:])
        engine = cls(
            model,
            tokenizer,
            name=name or own,
            batch_tokens=batch_tokens,
            lineage=read_lineage(folder),
        )
        engine.parameters, engine.packed = parameters, packed
        return engine

    # -- tokens ---------------------------------------------------------------------------------

    def encode(self, text: str) -> Ids:
        """Token ids of a text that begins a sequence."""
        return self._text.start(text)

    def count_tokens(self, text: str) -> int:
        return len(self._text.more(text))

    def _prompt(self, index: int, text: str, room: int) -> Ids:
        """The prompt's ids, `room` more tokens fitting behind. Raises PromptError otherwise."""
        ids = self.encode(text)
        room += self.reading.extra
        if not ids:
            raise PromptError("the prompt is empty", index=index, where=f"prompt {index + 1}")
        if self.context and len(ids) + room > self.context:
            raise PromptError(
                f"{len(ids)} tokens and {room} to follow do not fit the context of {self.name}"
                f" ({text[:40]!r}...)",
                index=index,
                where=f"prompt {index + 1}",
                allowed=f"{self.context} tokens",
            )
        return ids

    def _split_choices(
        self, index: int, prompt: str, choices: Sequence[str]
    ) -> tuple[Ids, list[Ids]]:
        """(ids of what is given, ids of each choice behind it).

        Raises PromptError when the prompt and a choice overlap.
        """
        ids = self._prompt(index, prompt, 0)
        tails = []
        for choice in choices:
            whole = self.encode(prompt + choice)
            where = f"prompt {index + 1}, choice {choice!r}"
            if whole[: len(ids)] != ids:
                raise PromptError(
                    f"the tokenizer joins the prompt's end {prompt[-20:]!r} with the choice, so it"
                    " cannot be scored behind this prompt",
                    index=index,
                    where=where,
                )
            if len(whole) == len(ids):
                raise PromptError("the choice holds no token", index=index, where=where)
            tails.append(whole[len(ids) :])
        self._prompt(index, prompt, max(map(len, tails)) - 1)
        return self.reading.given(ids), tails

    # -- scoring --------------------------------------------------------------------------------

    @torch.inference_mode()
    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        """[prompt][choice] = sum of ln p(choice's tokens | prompt).

        Single-token choices are all read from the last position of one row; a longer one is a row
        of its own, which shares the prompt.
        Raises PromptError (a UserError) for an empty or too long prompt or choice, or when the
        prompt's tokens are not a prefix of those of prompt + choice.
        """
        if not choices:
            raise UserError("no choices to score", allowed="one or more")
        started = time.perf_counter()
        encoded = [self._split_choices(i, prompt, choices) for i, prompt in enumerate(prompts)]
        rows = [row for i, (given, tails) in enumerate(encoded) for row in rows_of(i, given, tails)]
        ids = [row.ids for row in rows]
        free = [len(row.wanted) for row in rows]
        start = len(self.reading.start)
        sizes = [len(row.ids) - len(row.wanted) + 1 - start for row in rows]
        results = [[0.0] * len(choices) for _ in prompts]
        for batch in self.reuse.batches(ids, free, sizes):
            chosen = [rows[leaf.index] for leaf in batch.leaves]
            places, wanted = [], []
            for number, (leaf, row) in enumerate(zip(batch.leaves, chosen, strict=True)):
                end = len(leaf.rest)
                places += [(number, at) for at in range(end - len(row.wanted), end)]
                wanted += row.wanted
            states = self._states(batch, [sizes[leaf.index] for leaf in batch.leaves], places)
            found = iter(self.network.logprobs(states, wanted))
            for row in chosen:
                for _, values in zip(row.wanted, found, strict=False):
                    for choice, value in zip(row.choices, values, strict=True):
                        results[row.prompt][choice] += value
        self._count(len(prompts), ids, 0, started)
        return results

    def text_logprobs(self, texts: Sequence[str]) -> list[TextScore]:
        """ln p of each whole text: the sum over its tokens (`token_logprobs`)."""
        return text_scores(texts, self.token_logprobs(texts))

    @torch.inference_mode()
    def token_logprobs(self, texts: Sequence[str]) -> list[list[float]]:
        """[text][token] = ln p of the token given those before it; an empty text has none.

        Every token is scored once: the first given BOS (EOS where the tokenizer has no BOS), the
        first of each further window of min(context, 1024) tokens given the token before it. The
        text is read causally whatever the model: nothing of it is given.
        """
        start = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        if start is None:
            raise UserError(f"the tokenizer of {self.name} has neither BOS nor EOS to start a text")
        window = min(self.context or WINDOW, WINDOW)
        owners, inputs, targets = [], [], []
        for owner, text in enumerate(texts):
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            given = [start, *ids]
            for at in range(0, len(ids), window):
                part = ids[at : at + window]
                owners.append(owner)
                inputs.append(given[at : at + len(part)])
                targets.append(part)
        parts: list[list[float]] = [[] for _ in inputs]
        # Where whole logits are made, one row at a time keeps them small.
        budget = self.batch_tokens if self.network.plain else 1
        for batch in batches([len(row) for row in inputs], budget):
            states = self.network.score_rows([inputs[k] for k in batch])
            for row, k in enumerate(batch):
                wanted = [[token] for token in targets[k]]
                found = self.network.logprobs(states[row, : len(wanted)], wanted)
                parts[k] = [value for (value,) in found]
        rows: list[list[float]] = [[] for _ in texts]
        for owner, values in zip(owners, parts, strict=True):  # windows in the order of the text
            rows[owner] += values
        return rows

    def _states(self, batch: Batch, sizes: Sequence[int], places: Sequence[Place]) -> torch.Tensor:
        """States [N, H or V] at (row of the batch, token of its rest); `sizes` as in `Reuse`."""
        if batch.alone:
            rows = [leaf.ids for leaf in batch.leaves]
            both_ways = sizes if self.reading.prefix else ()
            states = self.network.score_rows(rows, both_ways)
        else:
            states = Branches(self.network, batch.leaves).states()
        rows_, tokens = zip(*places, strict=True)
        return states[list(rows_), list(tokens)]

    # -- generation -----------------------------------------------------------------------------

    def complete(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Completion]:
        """Generate behind each prompt, in batches; temperature 0 = greedy.

        Sampling draws from one generator a prompt (seeded by `seed`, the prompt and how often it
        came before in this call), so a result does not depend on its batch nor on global state.
        Nothing is taken from the folder's generation_config but its end tokens.
        """
        from medexpert.engines.generation import row_seeds, settings_of

        started = time.perf_counter()
        settings = settings_of(max_tokens, stop, temperature, top_p)
        rows = self._given(prompts, max_tokens)
        seeds = row_seeds(prompts, seed)
        results: dict[int, Completion] = {}
        for batch in self._to_write(rows, max_tokens):
            made = self._written(batch, settings, [seeds[leaf.index] for leaf in batch.leaves])
            results |= {leaf.index: one for leaf, one in zip(batch.leaves, made, strict=True)}
        self._count(
            len(rows), rows, sum(completion.tokens for completion in results.values()), started
        )
        return [results[k] for k in range(len(prompts))]

    def stream(
        self,
        prompt: str,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """The text of `complete([prompt])` in pieces, as it is made; in one piece where the model
        is asked without sharing (`facts()["sharing"]`). Raises what `complete` raises, at once."""
        from medexpert.engines.generation import settings_of

        settings = settings_of(max_tokens, stop, temperature, top_p)
        return self._pieces(prompt, self._given([prompt], max_tokens), settings, seed)

    def _pieces(self, prompt: str, rows: list[Ids], settings: Settings, seed: int) -> Iterator[str]:
        from medexpert.engines.generation import row_seeds

        started, seeds = time.perf_counter(), row_seeds([prompt], seed)
        (batch,) = self._to_write(rows, settings.max_tokens)
        if batch.alone:
            (made,) = self._written(batch, settings, seeds)
            self._count(1, rows, made.tokens, started)
            yield from [made.text] if made.text else []
            return
        decoding = self._decoding(batch, settings, seeds)
        try:
            yield from decoding.pieces()
        finally:  # a reader may stop listening
            self._count(1, rows, len(decoding.made[0]), started)

    def _given(self, prompts: Sequence[str], max_tokens: int) -> list[Ids]:
        return [
            self.reading.given(self._prompt(i, prompt, max_tokens))
            for i, prompt in enumerate(prompts)
        ]

    def _to_write(self, rows: Sequence[Ids], room: int) -> Iterator[Batch]:
        sizes = [len(row) - len(self.reading.start) for row in rows]
        return self.reuse.batches(rows, [1] * len(rows), sizes, room=room, writing=True)

    def _written(self, batch: Batch, settings: Settings, seeds: Sequence[int]) -> list[Completion]:
        """Completions of a batch, in its order."""
        from medexpert.engines.generation import generate

        if not batch.alone:
            return self._decoding(batch, settings, seeds).completions()
        taken = [leaf.ids for leaf in batch.leaves], settings, seeds
        if self.reading.prefix:
            return generate_prefix(self.model, self.tokenizer, *taken, self.reading)
        return generate(self.model, self.tokenizer, *taken)

    def _decoding(self, batch: Batch, settings: Settings, seeds: Sequence[int]) -> Decoding:
        from medexpert.engines.decoding import Decoding

        return Decoding(
            self.network, self.tokenizer, batch.leaves, settings, seeds, self.reading.ends
        )

    def _count(self, calls: int, rows: Sequence[Ids], generated: int, started: float) -> None:
        """`rows` are what would be encoded without sharing; what was is `reuse.encoded` so far."""
        old = self._usage
        self._usage = Usage(
            calls=old.calls + calls,
            prompt_tokens=old.prompt_tokens + sum(map(len, rows)),
            prefilled_tokens=self.reuse.encoded,
            generated_tokens=old.generated_tokens + generated,
            seconds=old.seconds + time.perf_counter() - started,
        )

    def forget(self) -> None:
        """See `engines.base.Forgetful`."""
        self.reuse.store.clear()

    def usage(self) -> Usage:
        return self._usage

    def facts(self) -> dict[str, Any]:
        return {
            "engine": "local",
            "model": self.name,
            "lineage": self.lineage,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": str(getattr(self.model.config, "_attn_implementation", "") or ""),
            "reading": str(self.lineage.get("attention", "causal")),
            "device": str(self.model.device.type),
            "context": self.context,
            "sharing": self.reuse.told(),
            "packed_layers": self.packed,
            "causal_blocks": self.network.blocks,
            "parameters": self.parameters,
            "batch_tokens": self.batch_tokens,
            "start_tokens": list(self._text.before),
            "threads": torch.get_num_threads(),
        }


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices grouped by length, longest first, with rows x longest <= budget (or one row)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda k: (-lengths[k], k)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
