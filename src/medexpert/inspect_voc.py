"""Verification-of-Choice as a solver of inspect_ai (inspect.aisi.org.uk), for any of its models.

    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import choice
    from medexpert.inspect_voc import voc

    sample = Sample(input="Does walking help?", choices=["yes", "no", "maybe"], target="A",
                    metadata={"context": "Walkers improved."})
    eval(Task(dataset=[sample], solver=voc(k=1), scorer=choice()), model="openai/...")

The solver reads the sample's question, its choices and the text in `metadata["context"]`, asks the
model for explanations and checks, marks the chosen choice for inspect's `choice` scorer and leaves
the letter as completion and the trace in the metadata under `voc`. inspect's models give no
log-probabilities of given texts, so that the verdict is generated (`verdict=generated`).

inspect_ai is optional and its pins conflict with those of training: give it an environment of its
own (`tests/reference/inspect_env.sh`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medexpert.records import UserError

if TYPE_CHECKING:
    from medexpert.engines.base import Completion, TextScore, Usage
    from medexpert.prompt.template import ChatFormat

CONTEXT = "context"
"""Key of a sample's metadata that holds the passage to read."""


class InspectEngine:
    """A model of inspect_ai as an engine: `complete` from a thread beside its event loop.

    Prompts are sent as one user message each, all of a call at once; inspect bounds how many run
    together, retries and caches. Tokens are those that the model reports; without a tokenizer
    `count_tokens` counts words.
    """

    def __init__(self, model: Any) -> None:
        from medexpert.engines.base import Usage
        from medexpert.prompt.template import ChatFormat

        self.model = model
        self.name = str(model)
        self.chat: ChatFormat = ChatFormat("")
        self._usage: Usage = Usage()

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
        """See `engines.base.Engine`. Called from a worker thread of anyio."""
        from anyio.from_thread import run
        from inspect_ai.model import GenerateConfig

        config = GenerateConfig(
            max_tokens=max_tokens, stop_seqs=list(stop) or None, temperature=temperature,
            top_p=top_p, seed=seed,
        )  # fmt: skip
        outputs = run(_generate_all, self.model, list(prompts), config)
        made = [self._completion(output, stop, max_tokens) for output in outputs]
        self._count(outputs, made)
        return made

    def _completion(self, output: Any, stop: Sequence[str], max_tokens: int) -> Completion:
        from medexpert.engines.base import Completion

        if output.error:
            raise UserError(f"{self.name} fails: {output.error}")
        text = str(output.completion)
        ends = [at for mark in stop if mark and (at := text.find(mark)) >= 0]
        text = text[: min(ends)] if ends else text
        used = output.usage.output_tokens if output.usage else self.count_tokens(text)
        finish = "length" if output.stop_reason == "max_tokens" else "stop"
        return Completion(text, min(int(used), max_tokens), finish)

    def _count(self, outputs: Sequence[Any], made: Sequence[Completion]) -> None:
        from dataclasses import replace

        read = sum(int(o.usage.input_tokens) for o in outputs if o.usage)
        old = self._usage
        self._usage = replace(
            old,
            calls=old.calls + len(made),
            prompt_tokens=old.prompt_tokens + read,
            prefilled_tokens=old.prefilled_tokens + read,
            generated_tokens=old.generated_tokens + sum(one.tokens for one in made),
            seconds=old.seconds + sum(float(o.time or 0.0) for o in outputs),
        )

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        """Always NoLogprobs: inspect gives those of generated tokens only."""
        from medexpert.engines.base import NoLogprobs

        raise NoLogprobs(f"{self.name} gives no log-probabilities of given texts through inspect")

    def text_logprobs(self, texts: Sequence[str]) -> list[TextScore]:
        """Always NoLogprobs."""
        from medexpert.engines.base import NoLogprobs

        raise NoLogprobs(f"{self.name} gives no log-probabilities of given texts through inspect")

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def facts(self) -> Mapping[str, Any]:
        return {"engine": "inspect", "model": self.name}

    def usage(self) -> Usage:
        return self._usage


async def _generate_all(model: Any, prompts: Sequence[str], config: Any) -> list[Any]:
    """The outputs in order, asked together."""
    import anyio

    outputs: list[Any] = [None] * len(prompts)

    async def one(index: int) -> None:
        outputs[index] = await model.generate(prompts[index], config=config)

    async with anyio.create_task_group() as group:
        for index in range(len(prompts)):
            group.start_soon(one, index)
    return outputs


def voc(**options: Any) -> Any:
    """The solver. `options` are those of `medexpert.prompt.voc.Voc`; the verdict is generated.

    Raises UserError for an option, and for a sample without choices.
    """
    from inspect_ai.solver import solver

    from medexpert.prompt.ask import variant, verify

    settings = {"verdict": "generated", **options}
    variant(settings)

    @solver(name="voc")  # type: ignore[untyped-decorator]
    def made() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            import anyio
            from inspect_ai.model import ModelOutput, get_model

            choices = [one.value for one in state.choices]
            engine = InspectEngine(get_model())
            context = str((state.metadata or {}).get(CONTEXT) or "")

            def work() -> Any:
                return verify(state.input_text, choices, engine, context=context, **settings)

            answer = await anyio.to_thread.run_sync(work)
            for index, name in enumerate(choices):
                state.choices.mark_choice(index, name.strip() == answer.choice)
            letter = next(
                (chr(ord("A") + n) for n, c in enumerate(choices) if c.strip() == answer.choice), ""
            )
            text = f"ANSWER: {letter}" if letter else answer.choice
            state.output = ModelOutput.from_content(engine.name, text)
            state.metadata["voc"] = {"choice": answer.choice, "trace": dict(answer.trace)}
            return state

        return solve

    return made()
