"""One broken file through everything that reads files, and what must hold whatever is in it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unicodedata import category

from formats import Seed

from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Change, Drop, Fault, Part, Reader, read
from medexpert.records import Document, Example, UserError, to_json

LONGEST = 1000  # characters of a message beside the paths in it
_LINES = ("documents", "qa", "mcq", "reasoning", "conversations", "medqa", "huatuo", "s2orc",
          "text_jsonl", "fineweb", "medrag", "guidelines", "tcm_classics", "pubmed_abstracts",
          "structured_abstracts", "pmc_fulltext")  # fmt: skip
_PLACE = re.compile(r"(:\d+|\])$")
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


class Broken(AssertionError):
    """Something that must hold did not."""


@dataclass
class Outcome:
    """What became of one file: ok, faults or refused, and how many rows of each kind."""

    kind: str = "ok"
    counts: Counter[str] = field(default_factory=Counter)


def require(holds: bool, what: str) -> None:
    """Raises Broken."""
    if not holds:
        raise Broken(what)


def is_text(line: str) -> bool:
    """One line without controls, marks of direction, line separators, private characters."""
    return all(c.isprintable() or category(c) == "Zs" for c in line)


def check_message(text: str, path: str) -> None:
    """One line that a terminal and a file of drops can take, of a readable length."""
    text.encode("utf-8")  # half a surrogate would raise here
    require(is_text(text), "a message holds what is no text")
    require(len(text.replace(path, "")) <= LONGEST, "a message is too long")


def check_fault(found: Fault, path: str, *, whole: bool) -> None:
    """It names a line, a record or a member; `whole`: it may be a file's."""
    require(bool(found.what), "a fault says nothing")
    check_message(f"{found.where}: {found.what}", path)
    if not (whole and found.where == path):
        require(bool(_PLACE.search(found.where)), "a fault without line or record")


def check_record(record: Document | Example) -> None:
    """It can be written out and its id stands on one line."""
    to_json(record).encode("utf-8")
    require(bool(record.id) and record.id.isprintable(), "an id that is no name")


class Counting:
    """A reader that counts what goes in and comes out of its conversion."""

    def __init__(self, reader: Reader) -> None:
        self.rows = self.bad = self.lost = 0
        self.reader = replace(
            reader, rows=self._rows(reader.rows), convert=self._convert(reader.convert)
        )

    def _rows(self, rows: Callable[[Part], Iterator[Any]]) -> Callable[[Part], Iterator[Any]]:
        def counted(part: Part) -> Iterator[Any]:
            for found in rows(part):
                self.rows += 1
                self.bad += isinstance(found, Fault)
                yield found

        return counted

    def _convert(self, convert: Callable[..., Iterable[Any]]) -> Callable[..., Iterable[Any]]:
        def counted(where: str, row: Mapping[str, Any]) -> Iterable[Any]:
            items = list(convert(where, row))
            self.lost += all(isinstance(item, Change) for item in items)
            return items

        return counted


@contextmanager
def small_blocks(size: int = 2) -> Iterator[None]:
    """Slices of a file are dealt in blocks of `size` rows."""
    held = [
        module
        for name, module in sys.modules.items()
        if name.startswith("medexpert.data.readers") and getattr(module, "BLOCK", 0) == 1000
    ]
    for module in held:
        vars(module)["BLOCK"] = size
    try:
        yield
    finally:
        for module in held:
            vars(module)["BLOCK"] = 1000


def physical_lines(data: bytes) -> int | None:
    """Lines of a file that are not blank, counted without our code; None when it is damaged."""
    try:
        for unpack in (gzip.decompress, bz2.decompress, lzma.decompress):
            magic = {gzip.decompress: b"\x1f\x8b", bz2.decompress: b"BZh"}.get(
                unpack, b"\xfd7zXZ\0"
            )
            if data.startswith(magic):
                data = unpack(data)
                break
    except _DAMAGE:
        return None
    data = data.removeprefix(b"\xef\xbb\xbf")
    return sum(bool(line) and not line.isspace() for line in data.split(b"\n"))


def check_reader(seed: Seed, path: str, outcome: Outcome) -> None:
    """Through the format's reader: every row is a record, a drop or a fault."""
    counting = Counting(READERS[seed.format])
    local = seed.format == "local-text"
    for item in read(counting.reader, [Part(path)]):
        _take(item, path, outcome, whole=local)
    require(counting.lost == 0, "a row gave nothing")
    gone = outcome.counts
    require(
        gone["records"] + gone["drops"] + gone["faults"] >= counting.rows, "rows are unaccounted"
    )
    if seed.format in _LINES and seed.name.endswith(".jsonl") and len(seed.data) < 4 << 20:
        lines = physical_lines(seed.data)
        require(lines in (None, counting.rows), "lines in the file and rows read differ")
    if counting.reader.splits and counting.rows < 1000:
        again = Counting(READERS[seed.format])
        with small_blocks():
            for _ in read(again.reader, [Part(path, index, 3) for index in range(3)]):
                pass
        # Each slice of a user's parquet file tells damage, since each reads row groups of its own.
        if not (local and ".parquet" in seed.name and counting.bad):
            require(again.rows == counting.rows, "slices hold other rows than the whole")


def _take(item: Any, path: str, outcome: Outcome, *, whole: bool = False) -> None:
    if isinstance(item, Fault):
        outcome.counts["faults"] += 1
        outcome.kind = "faults"
        check_fault(item, path, whole=whole)
    elif isinstance(item, Drop):
        outcome.counts["drops"] += 1
        check_message(f"{item.id} {item.reason}", path)
    elif isinstance(item, Change):
        check_message(f"{item.id} {item.what}", path)
    else:
        outcome.counts["records"] += 1
        if isinstance(item, Document | Example):
            check_record(item)
        else:
            repr(item).encode("utf-8")


def check_abstract(seed: Seed, path: str, outcome: Outcome) -> None:
    """Through the reader of structured abstracts that the builders use."""
    from medexpert.data.construct import pqa
    from medexpert.data.readers.abstracts import ABSTRACT_READERS

    for item in ABSTRACT_READERS[seed.format](Part(path)):
        _take(item, path, outcome)
    for item in pqa.build(ABSTRACT_READERS[seed.format](Part(path))):
        if isinstance(item, Document | Example):
            check_record(item)


def check_benchmark(seed: Seed, path: str, outcome: Outcome) -> None:
    """Through the reader of a benchmark, which stops at the first bad row."""
    from medexpert.data.readers.benchmarks import BENCHMARK_READERS

    for item in BENCHMARK_READERS[seed.format]([path]):
        outcome.counts["records"] += 1
        require(bool(item.id) and item.id.isprintable(), "an id that is no name")
        repr(item.texts).encode("utf-8")


def check_evidence(seed: Seed, path: str, outcome: Outcome) -> None:
    """Through Evidence Inference's two readers and the builder."""
    from medexpert.data.construct import evidence
    from medexpert.data.readers.evidence_rows import evidence_rows, evidence_tables

    if seed.format == "rows":

        def found() -> Iterator[Any]:
            return evidence_rows([Part(path)])
    else:
        folder = Path(path).parent.parent if "/" in seed.name else Path(path).parent

        def found() -> Iterator[Any]:
            return evidence_tables(
                *(str(folder / name) for name in ("a.csv", "p.csv", "txt_files"))
            )

    for item in found():
        _take(item, path, outcome)
    for item in evidence.build(found(), seed=1):
        if isinstance(item, Document | Example):
            check_record(item)


def check_pubmedqa(seed: Seed, path: str, outcome: Outcome) -> None:
    """Through the reader of the labelled set, which takes a whole file or none."""
    from medexpert.data.readers.pubmedqa import read_pubmedqa

    outcome.counts["records"] += len(read_pubmedqa(Path(path)))


def check_own(seed: Seed, path: str, outcome: Outcome) -> None:
    """Through the reader of our own examples."""
    from medexpert.data.build.sources import OPENERS

    nothing: Any = None
    for item in OPENERS["own_examples"](nothing, nothing, [Part(path)], ""):
        _take(item, path, outcome)


def check_tools(seed: Seed, path: str, outcome: Outcome) -> None:
    """Through show, stats and audit. Each may refuse the file; none may do anything else."""
    from medexpert.data import stats
    from medexpert.data.audit import audit
    from medexpert.data.show import show

    def audited() -> None:
        bench = Path(path).parent / "bench-of-ours.jsonl"
        bench.write_text('{"id": "b", "question": "Is the moon made of tea?"}\n', "utf-8")
        result = audit([path], [f"file:{bench}"], "", say=lambda line: None)
        result.as_json().encode("utf-8")
        for one in result.files:
            for bad in one.faults:
                check_fault(bad, path, whole=False)

    def counted() -> None:
        found = stats.stats(path)
        stats.as_json(found).encode("utf-8")
        for line in stats.as_text(found).splitlines():
            require(is_text(line), "stats prints what is no text")

    def shown() -> None:
        for line in show(path, count=0, width=80):
            require(is_text(line), "show prints what a terminal obeys")

    for run in (shown, counted, audited):
        try:
            run()
        except UserError as error:
            check_message(str(error), path)
            outcome.counts["tool_refusals"] += 1
        finally:
            (Path(path).parent / "bench-of-ours.jsonl").unlink(missing_ok=True)


CHECKS: dict[str, Callable[[Seed, str, Outcome], None]] = {
    "reader": check_reader,
    "abstract": check_abstract,
    "benchmark": check_benchmark,
    "evidence": check_evidence,
    "pubmedqa": check_pubmedqa,
    "own": check_own,
    "any": check_tools,
}


def lay(seed: Seed, folder: Path) -> str:
    """Write a seed's files; the path of the main one."""
    for name, data in {**seed.beside, seed.name: seed.data}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder / seed.name)


def files_in(folder: Path) -> set[str]:
    """Every file under a folder."""
    return {os.path.join(top, name) for top, _, names in os.walk(folder) for name in names}


def check(seed: Seed, folder: Path, *, tools: bool = False, build: bool = False) -> Outcome:
    """Everything that reads such a file. Raises Broken, or what a reader let through."""
    path = lay(seed, folder)
    before = files_in(folder)
    outcome = Outcome()
    try:
        CHECKS[seed.family](seed, path, outcome)
    except UserError as error:
        outcome.kind = "refused"
        check_message(str(error), path)
        require(str(folder) in str(error), "a refusal without the file's name")
    if tools:
        check_tools(seed, path, outcome)
    if build:
        from builds import check_build

        check_build(seed, path, folder.with_name(folder.name + "-built"), outcome)
    require(files_in(folder) == before, "a file was written beside the data")
    return outcome
