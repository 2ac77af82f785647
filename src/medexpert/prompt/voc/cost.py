"""What a question costs in tokens, by formula, before anything is run.

P = tokens of context, question and instruction · n choices · R = tokens of an explanation · a = the
part of a prompt that differs by choice · t = the instruction to verify · v = a written verdict ·
k explanations a choice · m = max(k, orders) verify passes.

    apart:   nk(P + a) + m(P + n(R + a) + t)  read, nkR + m written
    shared:  P + na    + m    (n(R + a) + t)  read, nkR + m written

`shared` is for an engine that encodes the common beginning of a question's prompts once, which is
exact: the prompts of Voc begin with the same P tokens. The k samples of one prompt count once. An
explanation is read again where it is weighed, also by P(true): it then stands behind other words.
A generated verdict writes R/2 + v in place of the one scored label.
"""

from __future__ import annotations

from dataclasses import dataclass

from medexpert.prompt.voc.strategy import Voc
from medexpert.prompt.voc.verdict import PERMUTATIONS


@dataclass(frozen=True)
class Sizes:
    """Tokens of a question's parts; the defaults are those of PubMedQA with SmolLM2's tokenizer
    (context 320, question 18, instruction 40)."""

    prompt: int = 378
    choices: int = 3
    rationale: int = 128
    suffix: int = 12
    instruction: int = 30
    verdict: int = 16


@dataclass(frozen=True)
class Cost:
    """Tokens of one question: read (`apart` or `shared`) and written."""

    apart: int
    shared: int
    written: int

    @property
    def total_apart(self) -> int:
        return self.apart + self.written

    @property
    def total_shared(self) -> int:
        return self.shared + self.written


def direct(sizes: Sizes) -> Cost:
    """The direct prompt, whose labels are scored."""
    return Cost(sizes.prompt, sizes.prompt, 0)


def voc(sizes: Sizes, options: Voc) -> Cost:
    """Of the options mode, verdict, k, permutations and top2. Direct scores, where an option asks
    for them, add P apart and one token shared."""
    n = min(2, sizes.choices) if options.top2 else sizes.choices
    k, branch = options.k, sizes.rationale + sizes.suffix
    passes = max(k, _orders(n, options.permutations))
    apart = n * k * (sizes.prompt + sizes.suffix)
    shared = sizes.prompt + n * sizes.suffix
    written = n * k * sizes.rationale
    if options.mode != "ptrue":
        read = n * branch + sizes.instruction
        if options.pmi:
            apart, shared = apart + passes * read, shared + passes * read
        apart, shared = apart + passes * (sizes.prompt + read), shared + passes * read
        generated = options.verdict == "generated"
        written += passes * (sizes.rationale // 2 + sizes.verdict if generated else 1)
    if options.mode != "verify":
        read = n * k * (branch + sizes.instruction)
        apart, shared, written = apart + n * k * sizes.prompt + read, shared + read, written + n * k
    if options.mode == "likelihood" or options.top2 or options.control == "direct-only":
        apart, shared = apart + sizes.prompt, shared + 1
    return Cost(apart, shared, written)


def _orders(n: int, which: str) -> int:
    number = {"1": 1, "cyclic": n, "all": 1}
    assert set(number) == set(PERMUTATIONS)
    if which == "all":
        for factor in range(2, n + 1):
            number["all"] *= factor
    return number[which]


SHOWN = (
    "voc",
    "voc:verdict=generated",
    "voc:permutations=cyclic",
    "voc:permutations=all",
    "voc:k=3",
    "voc:top2=true",
    "voc:mode=ptrue",
    "voc-likelihood",
)


def table(sizes: Sizes | None = None) -> str:
    """A Markdown table of what the variants cost."""
    from medexpert.prompt.strategies import get

    sizes = sizes or Sizes()
    rows = [("`direct`", direct(sizes))]
    for name in SHOWN:
        options = get(name)
        assert isinstance(options, Voc)
        rows.append((f"`{name}`", voc(sizes, options)))
    lines = [
        "| strategy | read, apart | read, shared | written | total, apart | total, shared |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, cost in rows:
        numbers = (cost.apart, cost.shared, cost.written, cost.total_apart, cost.total_shared)
        lines.append(f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    return "\n".join(lines)
