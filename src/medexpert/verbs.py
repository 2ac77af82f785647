"""What the door's model verbs wire together: a model opened, a question answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.records import NO_ANSWER, UserError

if TYPE_CHECKING:
    from medexpert.engines.opening import EngineSpec
    from medexpert.model.catalogue import BaseEntry
    from medexpert.prompt.ask import Answer


def engine_spec(
    model: str,
    *,
    dtype: str,
    batch_tokens: int,
    base_url: str = "",
    options: Sequence[str] = (),
    threads: int = 0,
) -> EngineSpec:
    """How a model is opened, checked as far as it can be without opening it. Raises UserError."""
    from medexpert.engines.opening import EngineSpec, options_from

    spec = EngineSpec(model, base_url, options_from(options), dtype, batch_tokens, threads)
    spec.check()
    return spec


def open_engine(
    model: str,
    *,
    dtype: str,
    batch_tokens: int,
    say: Callable[[str], None],
    threads: int = 0,
    base_url: str = "",
    options: Sequence[str] = (),
) -> tuple[Any, str]:
    """An engine for any model name, folder or endpoint (`engines.opening`), and its digest."""
    from medexpert.engines.opening import HTTP
    from medexpert.engines.opening import open_engine as open_spec

    spec = engine_spec(
        model,
        dtype=dtype,
        batch_tokens=batch_tokens,
        base_url=base_url,
        options=options,
        threads=threads,
    )
    if spec.kind != HTTP:
        from medexpert.train.speed import set_up_threads

        set_up_threads(threads)
    return open_spec(replace(spec, threads=threads), say)


def ask_model(
    question: str,
    *,
    model: str,
    context: str,
    choices: str,
    strategy: str,
    dtype: str,
    as_json: bool,
    say: Callable[[str], None],
    seed: int = 0,
    batch_tokens: int = 4096,
    threads: int = 0,
    base_url: str = "",
    options: Sequence[str] = (),
) -> str:
    """Answer one question; the text to print, with the reasons for and against each choice, or
    what a strategy that explains no choice (cot) wrote."""
    from medexpert.prompt import strategies
    from medexpert.prompt.ask import ask, check

    names = tuple(part.strip() for part in choices.split(",") if part.strip())
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(
            f"--choices {choices!r}", where="ask", allowed="two or more different words"
        )
    if not question.strip():
        raise UserError("the question is empty", where="ask")
    strategies.get(strategy, where="--strategy")
    passage = read_context(context)
    check(question, context=passage, choices=names, strategy=strategy, where="--strategy")
    engine, _ = open_engine(
        model, dtype=dtype, batch_tokens=batch_tokens, say=say, threads=threads,
        base_url=base_url, options=options,
    )  # fmt: skip
    answer = ask(question, engine, context=passage, choices=names, strategy=strategy, seed=seed)
    if as_json:
        return json.dumps(asdict(answer), ensure_ascii=False, indent=2)
    lines = [*_told(answer, names), "A language model wrote this. It is not medical advice."]
    return "\n".join(lines)


def _told(answer: Answer, names: Sequence[str]) -> Iterator[str]:
    """The lines of an answer: the choices, reasons where there are any, texts that reason."""
    none = "none (no single choice could be read from what the model wrote)"
    yield f"Answer: {none if answer.choice == NO_ANSWER else answer.choice}"
    yield ""
    for name in names:
        share = answer.probabilities.get(name)
        yield name + (f"  ({100 * share:.0f} %)" if share is not None else "")
        if answer.reasons_for or answer.reasons_against:
            yield f"  for:     {answer.reasons_for.get(name) or '(none given)'}"
            yield f"  against: {answer.reasons_against.get(name) or '(none given)'}"
    yield ""
    for sample in answer.trace.get("samples", ()):
        yield f"The model wrote: {sample['text'].strip() or '(nothing)'}"
        yield ""


def read_context(context: str) -> str:
    """The passage to read: the text itself, or the file behind @FILE."""
    if not context.startswith("@"):
        return context
    path = Path(context[1:])
    try:
        return path.read_bytes().decode("utf-8").strip()
    except FileNotFoundError:
        raise UserError("no such file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 (byte {error.start})", where=str(path)) from None


def model_listing() -> str:
    """The catalogue of base models as a table."""
    from medexpert.model.base import cached
    from medexpert.model.catalogue import BASES

    rows = [("name", "parameters", "licence", "on this machine")]
    rows += [
        (e.name, str(e.parameters), _licence(e), "yes" if cached(e) else "no")
        for e in BASES.values()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _licence(entry: BaseEntry) -> str:
    return f"{entry.licence} (to be accepted)" if entry.terms else entry.licence
