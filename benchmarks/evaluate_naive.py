"""VoC's own prompts, one by one: transformers' `generate` for texts, one pass for label scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from evaluate_ours import strategy
from evaluate_result import arguments, write
from evaluate_work import PROTOCOL, read_questions


class OneByOne:
    """An engine that shares and batches nothing; greedy. What it answers is what ours must."""

    name = "transformers"

    def __init__(self, folder: str, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from medexpert.model.base import chat_format
        from medexpert.prompt.template import ChatFormat

        self.torch = torch
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()
        self.chat = ChatFormat(*chat_format(self.tokenizer))
        self.prompt_tokens = self.generated_tokens = self.calls = 0

    def _ids(self, prompt: str) -> Any:
        ids = self.tokenizer(prompt, return_tensors="pt")["input_ids"]
        self.prompt_tokens += ids.shape[1]
        self.calls += 1
        return ids

    def complete(
        self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = (), **_: Any
    ) -> list[Any]:
        """See `engines.base.Engine`; only greedy."""
        from medexpert.engines.base import Completion

        found = []
        for prompt in prompts:
            ids = self._ids(prompt)
            more = {"stop_strings": list(stop), "tokenizer": self.tokenizer} if stop else {}
            with self.torch.inference_mode():
                out = self.model.generate(
                    ids, attention_mask=self.torch.ones_like(ids), do_sample=False,
                    max_new_tokens=max_tokens, pad_token_id=self.tokenizer.eos_token_id, **more,
                )  # fmt: skip
            made = out[0, ids.shape[1] :].tolist()
            self.generated_tokens += len(made)
            text = self.tokenizer.decode(made, skip_special_tokens=True)
            cut = min((at for mark in stop if (at := text.find(mark)) >= 0), default=len(text))
            ended = cut < len(text) or made[-1] == self.tokenizer.eos_token_id
            found.append(Completion(text[:cut], len(made), "stop" if ended else "length"))
        return found

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        """One pass a prompt where every choice is one token, one a choice otherwise."""
        found = []
        for prompt in prompts:
            ids = self._ids(prompt)
            tails = [self._tail(ids, prompt + choice) for choice in choices]
            if all(len(tail) == 1 for tail in tails):
                with self.torch.inference_mode():
                    last = self.model(ids, logits_to_keep=1).logits[0, -1].float().log_softmax(-1)
                found.append([float(last[tail[0]]) for tail in tails])
            else:
                found.append([self._score(ids, tail) for tail in tails])
        return found

    def _tail(self, ids: Any, whole: str) -> list[int]:
        found: list[int] = self.tokenizer(whole)["input_ids"][ids.shape[1] :]
        return found

    def _score(self, ids: Any, tail: list[int]) -> float:
        row = self.torch.cat([ids, self.torch.tensor([tail])], 1)[:, :-1]
        with self.torch.inference_mode():
            logits = self.model(row, logits_to_keep=len(tail)).logits[0].float().log_softmax(-1)
        return sum(float(logits[k, token]) for k, token in enumerate(tail))

    def count_tokens(self, text: str) -> int:
        """As the local engine counts."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def facts(self) -> dict[str, Any]:
        """None that matter here."""
        return {}


def main() -> None:
    """Modes are dtypes."""
    args, work = arguments()
    engine: Any = OneByOne(work["model"], args.mode)
    engine.complete(["Warm up."], max_tokens=2)
    engine.prompt_tokens = engine.generated_tokens = engine.calls = 0
    started = time.perf_counter()
    made = list(
        strategy(work["max_tokens"]).predict(
            read_questions(work), engine, protocol=PROTOCOL, seed=1
        )
    )
    seconds = time.perf_counter() - started
    usage = {
        "calls": engine.calls, "prompt_tokens": engine.prompt_tokens,
        "prefilled_tokens": engine.prompt_tokens, "generated_tokens": engine.generated_tokens,
    }  # fmt: skip
    write(
        args, seconds=seconds, usage=usage, predictions=[p.choice for p in made],
        probabilities=[dict(p.probabilities) for p in made],
    )  # fmt: skip


if __name__ == "__main__":
    main()
