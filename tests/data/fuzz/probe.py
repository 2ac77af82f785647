"""Read one file in a process of its own with a bound on memory; what became of it as JSON.

    python tests/data/fuzz/probe.py FAMILY FORMAT PATH MEBIBYTES [PATH OF A GOOD FILE]

The bound is on address space above what the process holds after reading the good file.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BOUND = 512  # MiB


@dataclass
class Told:
    """What a child says: kind is ok, faults, refused or failure; the first messages; costs."""

    kind: str
    counts: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    seconds: float = 0.0
    grown_mib: int = 0


def probe(
    family: str, name: str, path: Path | str, *, bound: int = BOUND, good: Path | str = "",
    timeout: float = 60,
) -> Told:  # fmt: skip
    """Read a file as `family:name` in a child. A hang raises subprocess.TimeoutExpired."""
    command = [sys.executable, __file__, family, name, str(path), str(bound), str(good)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )  # fmt: skip
    lines = done.stdout.splitlines()
    if not lines:
        return Told("failure", messages=[done.stderr[-1000:]])
    return Told(**json.loads(lines[-1]))


def _size(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def _nothing(done: object) -> list[Any]:
    """A tool's result is of no interest here, only that there is one."""
    return []


def _items(family: str, name: str, path: str) -> Any:
    from medexpert.data import opened, stats
    from medexpert.data.audit import audit
    from medexpert.data.readers import READERS
    from medexpert.data.readers.benchmarks import BENCHMARK_READERS
    from medexpert.data.readers.rows import Part, read
    from medexpert.data.show import show

    if family == "benchmark":
        return BENCHMARK_READERS[name]([path])
    if family == "tool":
        return {
            "stats": lambda: _nothing(stats.stats(path)),
            "show": lambda: show(path, count=0),
            "opened": lambda: opened.rows(path),
            "audit": lambda: _nothing(audit([path], [f"file:{path}"], "", say=print)),
        }[name]()
    return read(READERS[name], [Part(path)])


def main(family: str, name: str, path: str, bound: int, good: str) -> Told:
    """Read and count."""
    from medexpert.data.readers.rows import Change, Drop, Fault
    from medexpert.records import UserError

    if good:
        list(_items(family, name, good))
    limit = _size("VmSize") + (bound << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    base, start = _size("VmHWM"), time.monotonic()
    told = Told("ok")

    def say(kind: str, message: str = "") -> None:
        told.counts[kind] = told.counts.get(kind, 0) + 1
        if message and len(told.messages) < 5:
            told.messages.append(message)

    try:
        for item in _items(family, name, path):
            if isinstance(item, Fault):
                told.kind = "faults"
                say("faults", f"{item.where}: {item.what}")
            elif isinstance(item, Drop):
                say("drops", item.reason)
            elif not isinstance(item, Change):
                say("records")
    except UserError as error:
        told.kind = "refused"
        say("refused", str(error))
    except BaseException as error:
        told.kind = "failure"
        say("failure", f"{type(error).__name__}: {str(error)[:300]}")
    told.seconds = time.monotonic() - start
    told.grown_mib = (_size("VmHWM") - base) >> 20
    return told


if __name__ == "__main__":
    result = main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    print(json.dumps(asdict(result)))
