"""Long work on many items that may be killed at any time and, run again, gives the same bytes.

Items are worked on in blocks of a fixed number, cut by their place in the input, so that a block
is always the same batch to the teacher. Each finished block is one line of `NAME.progress.jsonl`,
written and synced at once; a torn last line is dropped and its block done again. At the end the
output, the rejects and then the manifest are each put in place whole, and the progress file goes.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from medexpert.data.construct.rejects import Outcome, Reject
from medexpert.data.readers.rows import Ids
from medexpert.manifest import atomic, disk_errors, read_json, sha256_file, write_json
from medexpert.records import Example, UserError, digest

BLOCK = 8
MAX_BAD = 0.05
_SAY_EVERY = 5.0  # seconds


class Named(Protocol):
    """An item with an id and its place in the input."""

    @property
    def id(self) -> str: ...

    @property
    def where(self) -> str: ...


Item = TypeVar("Item", bound=Named)
Work = Callable[[Sequence[Item]], list[Outcome]]
Late = Callable[[Iterator[Mapping[str, Any]]], Mapping[str, str]]


@dataclass(frozen=True)
class Job:
    """Where the result goes, and what it is made from: equal work has an equal `made_from`.

    With `pairs`, an item may give several examples, and those with a `rejected` answer go to a file
    of their own.
    """

    out: Path
    made_from: Mapping[str, Any]
    block: int = BLOCK
    pairs: bool = False

    @property
    def key(self) -> str:
        return digest([dict(self.made_from), self.block])

    def beside(self, name: str) -> Path:
        """`out` = x.jsonl -> x.NAME."""
        return self.out.with_name(f"{self.out.name.removesuffix('.jsonl')}.{name}")

    @property
    def rejects(self) -> Path:
        return self.beside("rejects.jsonl")

    @property
    def pairs_file(self) -> Path:
        return self.beside("pairs.jsonl")

    @property
    def files(self) -> tuple[Path, ...]:
        """What the manifest vouches for."""
        return (self.out, *([self.pairs_file] if self.pairs else []), self.rejects)

    @property
    def progress(self) -> Path:
        return self.beside("progress.jsonl")

    @property
    def manifest(self) -> Path:
        return self.beside("manifest.json")


@dataclass
class _Count:
    read: int = 0
    faults: int = 0
    first_faults: list[str] = field(default_factory=list)


def run(
    job: Job,
    items: Callable[[], Iterator[Item | Reject]],
    work: Work[Item],
    *,
    facts: Mapping[str, Any],
    late: Late | None = None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The manifest of the finished work, done now or before.

    `items` starts the input anew at each call; a `Reject` in it is a row that is out already.
    `late` sees every example made (as JSON objects) and returns {id: reason} of those to leave out.
    Raises UserError: other work's files at `out`, damaged progress, over 5 % bad rows.
    """
    done = _finished(job)
    if done is not None:
        job.progress.unlink(missing_ok=True)
        say(f"{job.out}: finished before, nothing to do")
        return done
    total = _checked(items(), job)
    with disk_errors(job.out):
        job.out.parent.mkdir(parents=True, exist_ok=True)
        blocks = _blocks_done(job)
        with job.progress.open("ab") as handle:
            if blocks < 0:
                _write(handle, {"key": job.key, "made_from": dict(job.made_from)})
            _work_on(job, items(), work, handle, max(0, blocks), total, say)
    return _finish(job, facts, late, say)


def _checked(items: Iterable[Item | Reject], job: Job) -> int:
    """Number of items; every row is read once, so a bad file is known before the model is asked."""
    count = _Count()
    for item in items:
        count.read += 1
        if isinstance(item, Reject) and item.reason == "bad_row":
            count.faults += 1
            if len(count.first_faults) < 3:
                count.first_faults.append(f"{item.where}: {item.detail.get('what', '')}")
    if not count.read:
        raise UserError("no item in the input", where=str(job.out))
    if count.faults > MAX_BAD * count.read:
        raise UserError(
            f"{count.faults} of {count.read} rows are bad ({'; '.join(count.first_faults)})",
            allowed=f"at most {100 * MAX_BAD:.0f} %",
        )
    return count.read


def _work_on(
    job: Job,
    items: Iterator[Item | Reject],
    work: Work[Item],
    handle: Any,
    skip: int,
    total: int,
    say: Callable[[str], None],
) -> None:
    seen = Ids("id")
    start = last = time.monotonic()
    kept = asked = 0
    for number, block in enumerate(_blocks(items, job.block)):
        fresh, out = _new(block, seen)
        if number < skip:
            continue
        made: list[Outcome] = [*out, *(work(fresh) if fresh else [])]
        examples = [asdict(m) for m in made if isinstance(m, Example)]
        rejects = [m.row() for m in made if isinstance(m, Reject)]
        line = {"block": number, "read": len(block), "examples": examples, "rejects": rejects}
        _write(handle, line)
        kept, asked = kept + len(examples), asked + len(block)
        now, at = time.monotonic(), number * job.block + len(block)
        if now - last >= _SAY_EVERY or at == total:
            last, rate = now, asked / max(now - start, 1e-9)
            found = f"{kept} records" if job.pairs else f"{kept} of {asked} kept"
            say(f"{at}/{total} items, {found}, {rate:.2g}/s, {_duration((total - at) / rate)} left")


def _new(block: Sequence[Item | Reject], seen: Ids) -> tuple[list[Item], list[Outcome]]:
    """(items to work on, rejects: rows that are out already and ids that came before)."""
    fresh: list[Item] = []
    out: list[Outcome] = []
    for item in block:
        if isinstance(item, Reject):
            out.append(item)
            continue
        try:
            seen.check(item.id, item.where)
            fresh.append(item)
        except UserError:
            out.append(Reject(item.id, item.where, "id_twice"))
    return fresh, out


def _blocks(items: Iterator[Item | Reject], size: int) -> Iterator[list[Item | Reject]]:
    while block := list(islice(items, size)):
        yield block


def _write(handle: Any, value: Mapping[str, Any]) -> None:
    handle.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    handle.flush()
    os.fsync(handle.fileno())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


# -- what is there already ---------------------------------------------------------------------


def _finished(job: Job) -> dict[str, Any] | None:
    """The manifest when it vouches for these very files; None when there is none.

    Raises UserError when the place is taken by other work or the files are not the manifest's.
    """
    if not job.manifest.exists():
        if job.out.exists() and not job.progress.exists():
            raise UserError("a file is here already", where=str(job.out), allowed="another --out")
        return None
    value = read_json(job.manifest)
    if not isinstance(value, dict) or value.get("key") != job.key:
        raise UserError(
            f"other finished work is here (its manifest has {_differences(value, job)})",
            where=str(job.out),
            allowed="another --out, or remove it",
        )
    for file in job.files:
        if not file.is_file() or sha256_file(file) != value["files"][file.name]["sha256"]:
            raise UserError(
                "the file is not the one its manifest describes",
                where=str(file),
                allowed=f"remove {job.manifest} to make it again",
            )
    return value


def _differences(value: Any, job: Job) -> str:
    theirs = value.get("made_from", {}) if isinstance(value, dict) else {}
    ours = json.loads(json.dumps(dict(job.made_from)))
    if not isinstance(theirs, dict):
        return "no made_from"
    names = [name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name)]
    return "another " + ", ".join(dict.fromkeys(names)) if names else "another key"


def _blocks_done(job: Job) -> int:
    """Blocks finished by an earlier run, -1 when not even begun; a torn last line is cut off."""
    if not job.progress.exists():
        return -1
    whole, blocks = 0, -1
    with job.progress.open("r+b") as handle:
        for line in handle:
            value = _value(line)
            if value is None:
                break
            if blocks < 0 and value.get("key") != job.key:
                raise UserError(
                    f"unfinished work of {_differences(value, job)}",
                    where=str(job.progress),
                    allowed="another --out, or remove this file",
                )
            if blocks >= 0 and value.get("block") != blocks:
                raise UserError("damaged", where=f"{job.progress}:{blocks + 2}")
            blocks, whole = blocks + 1, whole + len(line)
        if handle.read(1):
            raise UserError("damaged", where=f"{job.progress}:{blocks + 2}")
        handle.truncate(whole)
    return blocks


def _value(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    return value if line.endswith(b"\n") and isinstance(value, dict) else None


# -- the end -----------------------------------------------------------------------------------


def _lines(job: Job) -> Iterator[dict[str, Any]]:
    with job.progress.open("rb") as handle:
        next(handle)
        for line in handle:
            yield json.loads(line)


def _finish(
    job: Job, facts: Mapping[str, Any], late: Late | None, say: Callable[[str], None]
) -> dict[str, Any]:
    made = (example for line in _lines(job) for example in line["examples"])
    left_out = late(made) if late is not None else {}
    counts = _Counts()
    with ExitStack() as stack:
        files = {file: stack.enter_context(atomic(file)) for file in job.files}
        for line in _lines(job):
            counts.read += line.get("read", len(line["examples"]) + len(line["rejects"]))
            rejects = line["rejects"]
            for example in line["examples"]:
                reason = left_out.get(example["id"])
                if reason is None:
                    counts.keep(example)
                    paired = job.pairs and "rejected" in example["fields"]
                    output = files[job.pairs_file if paired else job.out]
                    output.write(json.dumps(example, ensure_ascii=False).encode() + b"\n")
                    continue
                detail = {"fields": example["fields"], "ids": example["ids"]}
                rejects.append(Reject(example["id"], "", reason, example["source"], detail).row())
            for row in rejects:
                counts.reasons[row["reason"]] += 1
                files[job.rejects].write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    manifest = {
        "key": job.key,
        "made_from": dict(job.made_from),
        **facts,
        "counts": counts.row(by_record=job.pairs),
        "files": {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in job.files
        },
    }
    write_json(job.manifest, manifest)
    job.progress.unlink()
    why = ", ".join(f"{reason} {n}" for reason, n in counts.reasons.most_common())
    what = f"{counts.kept} kept of {counts.read}"
    if job.pairs:  # items give several records each
        what = f"{counts.kept} records from {counts.read} items"
    say(f"{job.out}: {what}" + (f" ({'left out: ' if job.pairs else ''}{why})" if why else ""))
    return manifest


@dataclass
class _Counts:
    """What a finished file holds. `labels` are the answers of task examples."""

    read: int = 0
    kept: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def keep(self, example: Mapping[str, Any]) -> None:
        fields = example["fields"]
        self.kept += 1
        if example["kind"] == "task" and "answer" in fields:
            self.labels[fields["answer"]] += 1
        paired = "pair " if "rejected" in fields else ""
        self.records[f"{paired}{example['template']} {fields.get('answer', '')}".strip()] += 1

    def row(self, *, by_record: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            "read": self.read,
            "kept": self.kept,
            "labels": dict(sorted(self.labels.items())),
            "rejected": dict(sorted(self.reasons.items())),
        }
        return found | ({"records": dict(sorted(self.records.items()))} if by_record else {})
