"""What `medexpert data construct` wires together: a model as teacher, a builder, its input."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.records import UserError, digest, unknown_name

if TYPE_CHECKING:
    from medexpert.data.construct.rejects import Reject
    from medexpert.data.construct.teacher import Chosen, Fields, Refusal, Written
    from medexpert.engines.base import Engine

KINDS = ("pqa-u", "passages", "voc")
Say = Callable[[str], None]


class EngineTeacher:
    """An engine and our templates as a `data.construct.teacher.Teacher`.

    `identity` names the weights and whatever else changes an answer; with `temperature` 0 texts
    are greedy and the seed only tells what was asked for.
    """

    def __init__(self, engine: Engine, *, identity: str = "", temperature: float = 0.0) -> None:
        self.engine, self.temperature = engine, temperature
        self.name = engine.name
        self.identity = f"{identity or engine.name} temperature {temperature:g}"

    def template_id(self, template: str, lang: str) -> str:
        """See `Teacher`."""
        from medexpert.prompt.template import template_id

        return template_id(template, lang)

    def options(self, choices: Sequence[str], *, lang: str) -> Mapping[str, str]:
        """See `Teacher`."""
        from medexpert.prompt.choices import name_choices

        return name_choices(tuple(choices), lang).options

    def read(self, text: str, choices: Sequence[str], *, lang: str) -> str:
        """See `Teacher`."""
        from medexpert.prompt.choices import name_choices

        return name_choices(tuple(choices), lang).read(text)

    def fault(self, text: str, choice: str, choices: Sequence[str], *, lang: str) -> str:
        """See `Teacher`."""
        from medexpert.prompt.voc import fault
        from medexpert.records import Question

        asked = Question("", "", tuple(choices), choice, lang=lang)
        return fault(text, choice, asked, self.engine.count_tokens(text))

    def write(
        self,
        template: str,
        fields: Sequence[Fields],
        *,
        lang: str,
        max_tokens: int,
        seed: int,
        stop: Sequence[str] = (),
    ) -> list[Written | Refusal]:
        """See `Teacher`. A model without chat template continues behind the template's cue, which
        is put back before what it wrote, unless the template's learned text begins behind it."""
        from medexpert.data.construct.teacher import Written
        from medexpert.prompt.template import CUE, lookup, render_request

        chat = self.engine.chat
        found = lookup(template, lang)
        cue = "" if chat.template or found.learned else found.given.partition(CUE)[2].strip()
        prompts = [render_request(template, row, chat=chat, lang=lang) for row in fields]

        def ask(chosen: Sequence[str]) -> list[Written]:
            made = self.engine.complete(
                chosen,
                max_tokens=max_tokens,
                stop=stop,
                temperature=self.temperature,
                seed=seed,
            )
            return [
                Written((cue + m.text).strip(), m.tokens, m.finish, digest(prompt))
                for m, prompt in zip(made, chosen, strict=True)
            ]

        return _each(prompts, ask)

    def choose(
        self, template: str, fields: Sequence[Fields], choices: Sequence[str], *, lang: str
    ) -> list[Chosen | Refusal]:
        """See `Teacher`. The choices are shown and scored in the words of the language."""
        from medexpert.data.construct.teacher import Chosen
        from medexpert.prompt.asking import log_softmax
        from medexpert.prompt.template import lookup, render_choices, render_prompt

        words = [lookup(template, lang).label(choice) for choice in choices]
        labels = render_choices(template, choices, lang=lang)
        prompts = [
            render_prompt(template, {"choices": words, **row}, chat=self.engine.chat, lang=lang)
            for row in fields
        ]

        def ask(chosen: Sequence[str]) -> list[Chosen]:
            rows = self.engine.choice_logprobs(chosen, labels)
            for row in rows:
                if any(map(math.isnan, row)) or max(row) == -math.inf:
                    raise UserError(f"the model {self.name} gives no usable probabilities: {row}")
            return [
                Chosen(tuple(map(math.exp, log_softmax(row))), digest(prompt))
                for row, prompt in zip(rows, chosen, strict=True)
            ]

        return _each(prompts, ask)


def _each(prompts: Sequence[str], ask: Callable[[Sequence[str]], list[Any]]) -> list[Any]:
    """`ask` for all prompts; one that the engine names as at fault becomes a `Refusal`."""
    from medexpert.data.construct.teacher import Refusal
    from medexpert.engines.base import PromptError

    out: dict[int, Any] = {}
    left = list(range(len(prompts)))
    while left:
        try:
            out.update(zip(left, ask([prompts[i] for i in left]), strict=True))
            break
        except PromptError as error:
            out[left.pop(error.index)] = Refusal(error.what)
    return [out[i] for i in range(len(prompts))]


def construct(
    kind: str,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    model: str = "smollm2-135m-instruct",
    dtype: str = "float32",
    batch_tokens: int = 4096,
    threads: int = 0,
    temperature: float = 0.0,
    limit: int = 0,
    seed: int = 0,
    block: int = 8,
    options: Mapping[str, str] | None = None,
    base_url: str = "",
    engine_options: Sequence[str] = (),
    engine: Engine | None = None,
    say: Say,
) -> dict[str, Any]:
    """Build `out` (JSONL of Examples), its rejects and its manifest; returns the manifest.

    `limit` rows are read of all inputs together (0 = all); `block` items are put to the model
    together and then written down. `options` are settings of the builder by name (see
    `settings_of`). `engine` replaces the model that would be opened. Killed and run again, it goes
    on where it was. Raises UserError.
    """
    from medexpert.data.construct import resume

    settings = settings_of(kind, options or {})
    _check(inputs, limit=limit, temperature=temperature, block=block)
    files = _fingerprints(inputs)
    identity = ""
    if kind == "voc":
        _check_held_out(_items(kind, inputs, settings, seed, limit), settings.fold, say)
    if engine is None:
        from medexpert.verbs import open_engine

        next(iter(_items(kind, inputs, settings, seed, 1)), None)
        engine, weights = open_engine(
            model, dtype=dtype, batch_tokens=batch_tokens, say=say, threads=threads,
            base_url=base_url, options=engine_options,
        )  # fmt: skip
        identity = f"{model} {weights} {dtype} batch {batch_tokens}"
    teacher = EngineTeacher(engine, identity=identity, temperature=temperature)
    templates, work, late = _builder(kind, teacher, settings, seed)
    made_from = {
        "kind": kind, "teacher": teacher.identity, "inputs": list(files.values()),
        "templates": templates, "settings": asdict(settings), "limit": limit, "seed": seed,
        **_rules(kind),
    }  # fmt: skip
    job = resume.Job(out, made_from, block, pairs=kind == "voc")
    made = resume.run(
        job, lambda: _items(kind, inputs, settings, seed, limit), work,
        facts={"inputs": files, "teacher": {"name": teacher.name, **dict(engine.facts())}},
        late=late, say=say,
    )  # fmt: skip
    if kind == "voc":
        _tell_of_labelled_set(job.files[:-1], settings.fold, say)
        _check_any(made["counts"], out)
    return made


def _rules(kind: str) -> dict[str, str]:
    """What decides beside templates and settings: of `voc` which explanations are sound."""
    from medexpert.prompt.voc import Voc

    return {"rules": Voc().version} if kind == "voc" else {}


def _check_held_out(items: Iterator[Any], fold: int, say: Say) -> None:
    """Tell of rows of PubMedQA's labelled set that are not used. Raises UserError when no row is
    left, before a model is opened for nothing."""
    from medexpert.data.construct.rejects import Reject
    from medexpert.data.construct.voc_items import NO_FOLD

    found = Counter(item.reason if isinstance(item, Reject) else "" for item in items)
    held = {name: found[name] for name in ("pqal_item", "test_item", "dev_item") if found[name]}
    if not held:
        return
    counts = ", ".join(f"{reason} {n}" for reason, n in held.items())
    what = (
        f"{sum(held.values())} of {found.total()} rows are of PubMedQA's labelled set and not used"
    )
    advice = "--option fold=N (0 to 9) uses the 450 training items of fold N; never its test items"
    if not found[""]:
        raise UserError(
            f"{what} ({counts}), none is left", where="construct voc",
            allowed=advice if fold == NO_FOLD else "items of the training part of the fold",
        )  # fmt: skip
    say(f"{what} ({counts})" + (f": {advice}" if found["pqal_item"] else ""))


def _check_any(counts: Mapping[str, Any], out: Path) -> None:
    """Raises UserError, saying what to do, when the work is done and made no record."""
    if counts["kept"]:
        return
    rejected = counts["rejected"]
    why = ", ".join(f"{reason} {n}" for reason, n in rejected.items())
    ways = "a stronger --model, or more items, with another --out"
    if "hard_cap" in rejected:
        why += ": hard items are kept beside consistent ones alone, and there are none of those"
        ways = f"a lower --option min_agreement (0 takes every item), {ways}"
    raise UserError(
        f"no record was made of {counts['read']} items ({why})", where=str(out), allowed=ways
    )


def _tell_of_labelled_set(files: Sequence[Path], fold: int, say: Say) -> None:
    """How many records name a PMID of PubMedQA's labelled set, where any does."""
    from medexpert.data.quarantine.ids import pmids
    from medexpert.data.readers.pubmedqa import official_split
    from medexpert.records import Example, read_jsonl

    listed = official_split().everything()
    named = [bool(pmids(row) & listed) for file in files for row in read_jsonl(file, Example)]
    if any(named):
        say(
            f"{sum(named)} of {len(named)} records are made from PubMedQA's labelled set: under a"
            " quarantine that holds pubmedqa stage adapt alone takes them, without those of the dev"
            f" fold of its source pubmedqa (with fold = {fold} it takes all; docs/construct.md)"
        )


def _check(inputs: Sequence[str | Path], *, limit: int, temperature: float, block: int) -> None:
    if not inputs:
        raise UserError("no input", where="construct", allowed="one or more files")
    if limit < 0:
        raise UserError(f"limit {limit}", where="--limit", allowed="0 (all) or more")
    if block < 1:
        raise UserError(f"block {block}", where="--block", allowed="1 or more")
    if not 0 <= temperature < math.inf:
        raise UserError(f"temperature {temperature}", where="--temperature", allowed="0 or more")


def settings_of(kind: str, options: Mapping[str, str]) -> Any:
    """The builder's settings with `options` (name -> text) put in. Raises UserError."""
    from medexpert.data.construct.passages import PassageSettings
    from medexpert.data.construct.pseudo import PseudoSettings
    from medexpert.data.construct.voc_drafts import VocSettings

    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS, where="construct")
    chosen: Any = {"pqa-u": PseudoSettings, "passages": PassageSettings, "voc": VocSettings}[kind]
    kinds: dict[str, Any] = {"str": str, "int": int, "float": float}
    known = {part.name: kinds[str(part.type)] for part in fields(chosen)}
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in known:
            raise unknown_name(f"option of {kind}", name, known, where="construct")
        try:
            values[name] = known[name](text)
        except ValueError:
            allowed = {int: "a whole number", float: "a number"}[known[name]]
            raise UserError(f"{name} = {text!r}", where="construct", allowed=allowed) from None
        if isinstance(values[name], float) and not math.isfinite(values[name]):
            raise UserError(f"{name} = {text!r}", where="construct", allowed="a finite number")
    return chosen(**values)


def _builder(kind: str, teacher: EngineTeacher, settings: Any, seed: int) -> tuple[Any, Any, Any]:
    """(templates and their ids, work on a block of items, what is left out at the end or None)."""
    from medexpert.data.construct import passages, pseudo, voc, voc_drafts
    from medexpert.prompt.template import LANGUAGES

    names = passages.TEMPLATES if kind == "passages" else voc_drafts.TEMPLATES
    if kind == "pqa-u":
        names = (pseudo.SEES[settings.sees], pseudo.LABEL)
    templates = {f"{n}.{lang}": teacher.template_id(n, lang) for n in names for lang in LANGUAGES}
    if kind == "pqa-u":
        return (
            templates,
            lambda block: pseudo.label(block, teacher, settings, seed=seed),
            lambda examples: pseudo.over_the_cap(examples, settings),
        )
    if kind == "voc":
        return (
            templates,
            lambda block: voc.build(block, teacher, settings, seed=seed),
            lambda examples: voc.left_out(examples, settings, seed=seed),
        )
    return templates, lambda block: passages.ask(block, teacher, settings, seed=seed), None


def _items(
    kind: str, inputs: Sequence[str | Path], settings: Any, seed: int, limit: int
) -> Iterator[Any]:
    """Items and rejects of the first `limit` rows of the inputs (0 = all)."""
    rows = _rows(inputs)
    for source, found in islice(rows, limit) if limit else rows:
        yield from _converted(kind, source, found, settings, seed)


def _rows(inputs: Sequence[str | Path]) -> Iterator[tuple[str, Any]]:
    from medexpert.data import opened

    for file in inputs:
        source = Path(str(file)).name.split(".")[0]
        for found in opened.rows(file):
            yield source, found


def _converted(kind: str, source: str, found: Any, settings: Any, seed: int) -> Iterator[Any]:
    from medexpert.data.construct import passages, pseudo, voc_items
    from medexpert.data.readers.rows import Fault

    if isinstance(found, Fault):
        yield _bad(found.where, found.what, source)
        return
    where, row = found
    items: list[Any]
    try:
        if kind == "pqa-u":
            items = [pseudo.unlabelled(where, row, source=source)]
        elif kind == "voc":
            items = [voc_items.solved(where, row, source=source, fold=settings.fold)]
        else:
            items = list(passages.passages(where, row, settings, source=source, seed=seed))
        for item in items:
            _known_language(item, where)
    except UserError as error:
        what = f"{error.what}; allowed: {error.allowed}" if error.allowed else error.what
        yield _bad(where, what, source)
        return
    yield from items


def _bad(where: str, what: str, source: str) -> Reject:
    from medexpert.data.construct.rejects import Reject

    return Reject("", where, "bad_row", source, {"what": what})


def _known_language(item: Any, where: str) -> None:
    from medexpert.prompt.template import LANGUAGES

    lang = getattr(item, "lang", LANGUAGES[0])
    if lang not in LANGUAGES:
        raise UserError(f"language {lang!r}", where=where, allowed=", ".join(LANGUAGES))


def _fingerprints(inputs: Sequence[str | Path]) -> dict[str, str]:
    """{file name: SHA-256 of its bytes} in the order given. Raises UserError."""
    import hashlib

    from medexpert.data.readers.streams import open_raw

    found: dict[str, str] = {}
    for file in inputs:
        state = hashlib.sha256()
        with open_raw(file) as handle:
            while piece := handle.read(1 << 20):
                state.update(piece)
        found[str(file)] = state.hexdigest()
    return found
