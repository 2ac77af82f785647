"""A transformers causal model on this machine, CPU or GPU.

How text becomes tokens: `model.text`, the same rule as in training.

Scoring pads on the right and passes no mask: under causal attention no token sees what follows it,
so padding cannot change a score. Prompts are never cut; one that does not fit is an error.

A model whose lineage says so reads its prompts both ways: `engines.prefix`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medexpert.engines.base import Completion, PromptError, TextScore, Usage
from medexpert.engines.prefix import generate_prefix, reading_of, scoring_mask
from medexpert.model.base import chat_format, load
from medexpert.model.folder import read_lineage
from medexpert.model.text import TextEncoder
from medexpert.prompt.template import ChatFormat
from medexpert.records import UserError, unknown_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ids = list[int]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WINDOW = 1024
"""Tokens of a text scored in one go: a number that does not depend on the model's context."""
LOGIT_ELEMENTS = 1 << 25
"""Largest block of logits held at once (elements; 128 MiB in float32)."""


class LocalEngine:
    """Scores and generates with an already loaded model; see `engines.base.Engine`.

    `batch_tokens` bounds rows x longest row (padding counted) of one forward pass; a single row
    may exceed it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "",
        batch_tokens: int = 4096,
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
        self.vocabulary = int(config.vocab_size)
        self._text = TextEncoder(self.tokenizer)
        self.reading = reading_of(self.lineage, self.tokenizer)
        self._usage = Usage()
        self._chunked = self._head_is_plain()
        # Where whole logits are made, one row at a time keeps them small.
        self._budget = batch_tokens if self._chunked else 1

    @classmethod
    def open(
        cls, folder: Path, *, name: str = "", dtype: str = "float32", batch_tokens: int = 4096
    ) -> LocalEngine:
        """Open a model folder, or a PEFT adapter folder.

        The name is by default the folder's own, or "RUN/STAGE" for RUN/STAGE/model.
        Raises UserError: unknown dtype, or what `model.base.load` raises.
        """
        if dtype not in DTYPES:
            raise unknown_name("dtype", dtype, DTYPES)
        model, tokenizer = load(folder, dtype=DTYPES[dtype])
        parts = folder.resolve().parts
        own = "/".join(parts[-3:-1] if parts[-1] in ("model", "adapter") else parts[-1:])
        return cls(
            model,
            tokenizer,
            name=name or own,
            batch_tokens=batch_tokens,
            lineage=read_lineage(folder),
        )

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

        Single-token choices are all read from the last position of one forward pass; longer ones
        reuse the prompt's key-value cache, which equals full passes (tests).
        Raises PromptError (a UserError) for an empty or too long prompt or choice, or when the
        prompt's tokens are not a prefix of those of prompt + choice.
        """
        if not choices:
            raise UserError("no choices to score", allowed="one or more")
        started = time.perf_counter()
        encoded = [self._split_choices(i, prompt, choices) for i, prompt in enumerate(prompts)]
        results: list[list[float]] = [[] for _ in prompts]
        simple = [i for i, (_, tails) in enumerate(encoded) if all(len(t) == 1 for t in tails)]
        for batch in batches([len(encoded[i][0]) for i in simple], self._budget):
            chosen = [simple[k] for k in batch]
            rows = [encoded[i][0] for i in chosen]
            wanted = [[tail[0] for tail in encoded[i][1]] for i in chosen]
            states, _ = self._run(rows, given=True)
            states = states[torch.arange(len(rows)), [len(row) - 1 for row in rows]]
            for i, values in zip(chosen, self._logprobs(states, wanted), strict=True):
                results[i] = values
        for i in sorted(set(range(len(prompts))) - set(simple)):
            results[i] = self._score_tails(*encoded[i])
        self._count([given for given, _ in encoded], 0, started)
        return results

    def _score_tails(self, prompt: Ids, tails: Sequence[Ids]) -> list[float]:
        """ln p of each tail behind the prompt; the prompt is encoded once."""
        states, cache = self._run([prompt], given=True, keep=True)
        totals = self._logprobs(states[0, -1:], [[tail[0] for tail in tails]])[0]
        longer = [k for k, tail in enumerate(tails) if len(tail) > 1]
        budget = max(1, self.batch_tokens // (len(prompt) + max(map(len, tails))))
        for at in range(0, len(longer), budget):
            group = longer[at : at + budget]
            # The cache is changed in place by the forward pass: each group gets its own copy.
            branch = copy.deepcopy(cache)
            branch.batch_repeat_interleave(len(group))
            states, _ = self._run([tails[k][:-1] for k in group], cache=branch, keep=True)
            for row, k in enumerate(group):
                targets = [[token] for token in tails[k][1:]]
                found = self._logprobs(states[row, : len(targets)], targets)
                totals[k] += sum(value for (value,) in found)
        return totals

    @torch.inference_mode()
    def text_logprobs(self, texts: Sequence[str]) -> list[TextScore]:
        """ln p of each whole text.

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
        lengths = []
        for owner, text in enumerate(texts):
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            lengths.append(len(ids))
            given = [start, *ids]
            for at in range(0, len(ids), window):
                part = ids[at : at + window]
                owners.append(owner)
                inputs.append(given[at : at + len(part)])
                targets.append(part)
        totals = [0.0] * len(texts)
        for batch in batches([len(row) for row in inputs], self._budget):
            states, _ = self._run([inputs[k] for k in batch])
            for row, k in enumerate(batch):
                wanted = [[token] for token in targets[k]]
                found = self._logprobs(states[row, : len(wanted)], wanted)
                totals[owners[k]] += sum(value for (value,) in found)
        return [
            TextScore(total, tokens, len(text.encode("utf-8")))
            for total, tokens, text in zip(totals, lengths, texts, strict=True)
        ]

    def _run(
        self, rows: Sequence[Ids], *, given: bool = False, cache: Any = None, keep: bool = False
    ) -> tuple[torch.Tensor, Any]:
        """(states, cache) of right-padded rows: hidden states [B, T, H], or logits [B, T, V] for
        models whose logits are more than a linear map of them (see `_head_is_plain`). `given`: the
        rows are prompts, which some models read both ways."""
        width = max(map(len, rows))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        inputs: dict[str, Any] = {"input_ids": padded.to(self.model.device), "use_cache": keep}
        if cache is not None:
            inputs["past_key_values"] = cache
        if given and self.reading.prefix:
            inputs["attention_mask"] = scoring_mask(
                self.model, [len(row) for row in rows], len(self.reading.start)
            )
        if self._chunked:
            out = self.model.get_decoder()(**inputs)
            return out.last_hidden_state, out.past_key_values
        out = self.model(**inputs)
        return out.logits, out.past_key_values

    def _logprobs(self, states: torch.Tensor, wanted: Sequence[Sequence[int]]) -> list[list[float]]:
        """ln p of the wanted tokens at each state [N, H or V], logits made in float32 by blocks."""
        found: list[list[float]] = []
        step = max(1, LOGIT_ELEMENTS // self.vocabulary)
        for at in range(0, len(wanted), step):
            block = states[at : at + step]
            logits = self.model.get_output_embeddings()(block) if self._chunked else block
            logits = logits.float()
            tokens = torch.tensor(list(wanted[at : at + step]), device=logits.device)
            values = logits.gather(1, tokens) - logits.logsumexp(1, keepdim=True)
            found += values.double().cpu().tolist()
        return found

    @torch.inference_mode()
    def _head_is_plain(self) -> bool:
        """Whether logits = output embedding of the decoder's last state, so that only the needed
        ones have to be made. False for models that scale or cap them: those go the long way."""
        probe = torch.arange(4).unsqueeze(0).to(self.model.device) % self.vocabulary
        try:
            states = self.model.get_decoder()(input_ids=probe, use_cache=False).last_hidden_state
            logits = self.model.get_output_embeddings()(states)
        except (AttributeError, TypeError):
            return False
        whole = self.model(input_ids=probe, use_cache=False).logits
        return logits.shape == whole.shape and torch.allclose(logits, whole, rtol=1e-5, atol=1e-6)

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
        """Generate behind each prompt, left-padded in batches; temperature 0 = greedy.

        Sampling draws from one generator a prompt (seeded by `seed`, the prompt and how often it
        came before in this call), so a result does not depend on its batch nor on global state.
        Nothing is taken from the folder's generation_config but its end tokens.
        """
        from medexpert.engines.generation import Settings, generate, row_seeds

        if max_tokens < 1:
            raise UserError(f"max_tokens = {max_tokens}", allowed="1 or more")
        if temperature < 0 or not 0 < top_p <= 1:
            raise UserError(
                f"temperature = {temperature}, top_p = {top_p}",
                allowed="temperature >= 0 and 0 < top_p <= 1",
            )
        started = time.perf_counter()
        rows = [
            self.reading.given(self._prompt(i, prompt, max_tokens))
            for i, prompt in enumerate(prompts)
        ]
        seeds = row_seeds(prompts, seed)
        settings = Settings(max_tokens, tuple(s for s in stop if s), temperature, top_p)
        results: dict[int, Completion] = {}
        for batch in batches([len(row) + max_tokens for row in rows], self.batch_tokens):
            taken = [rows[k] for k in batch], settings, [seeds[k] for k in batch]
            if self.reading.prefix:
                made = generate_prefix(self.model, self.tokenizer, *taken, self.reading)
            else:
                made = generate(self.model, self.tokenizer, *taken)
            results.update(zip(batch, made, strict=True))
        self._count(rows, sum(completion.tokens for completion in results.values()), started)
        return [results[k] for k in range(len(prompts))]

    def _count(self, rows: Sequence[Ids], generated: int, started: float) -> None:
        tokens, old = sum(map(len, rows)), self._usage
        self._usage = Usage(
            calls=old.calls + len(rows),
            prompt_tokens=old.prompt_tokens + tokens,
            prefilled_tokens=old.prefilled_tokens + tokens,
            generated_tokens=old.generated_tokens + generated,
            seconds=old.seconds + time.perf_counter() - started,
        )

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
            "parameters": sum(p.numel() for p in self.model.parameters()),
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
