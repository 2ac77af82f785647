"""Thousands of broken files through every reader, in a child process with bounds; a JSON summary.

    python tests/data/fuzz/campaign.py --count 10000 --data DIR --out summary.json

The child may hold MEMORY bytes of address space more than it has after reading every good file
once, and TIMEOUT seconds a file; the parent ends one that takes longer and goes on with the next.
A failure is told with the number that makes it again (`--only NUMBER`). Nothing of a file's text is
in the summary.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TIMEOUT = 10.0  # seconds a file
MEMORY = 1 << 30  # bytes above the child's own size
START = 120.0  # seconds for the child to read every good file once
TOOLS_EVERY, BUILD_EVERY = 6, 40
Result = dict[str, Any]


# -- the child -------------------------------------------------------------------------------------


def child(seed: int, data: str, memory: int) -> None:
    """Take numbers from standard input; a line of JSON for each."""
    sys.path[:0] = [str(HERE)]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from builds import buildable
    from checks import check
    from mutate import mutated
    from published import seeds

    files = seeds(data)
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for number, good in enumerate(files):
            folder = scratch / f"good-{number}"
            outcome = check(good, folder, tools=True, build=number == 0)
            assert outcome.kind == "ok", f"{good.label} is no good file: {outcome}"
            shutil.rmtree(folder)
        bound = _size("VmSize") + memory if memory else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        print(json.dumps({"ready": _size("VmRSS"), "files": len(files)}), file=answers)
        for line in sys.stdin:
            number = int(line)
            broken, done = mutated(files, seed, number)
            folder = scratch / "broken"
            result: Result = {"label": broken.label, "mutations": done}
            start = time.monotonic()
            try:
                outcome = check(
                    broken,
                    folder,
                    tools=number % TOOLS_EVERY == 0,
                    build=number % BUILD_EVERY == 0 and buildable(broken),
                )
                result |= {"kind": outcome.kind, "counts": dict(outcome.counts)}
            except BaseException as error:
                result |= {"kind": "failure", "error": type(error).__name__, **_told(error)}
            result["seconds"] = time.monotonic() - start
            result["peak"] = _size("VmHWM")
            shutil.rmtree(folder, ignore_errors=True)
            print(json.dumps(result), file=answers)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _size(name: str) -> int:
    """A field of the process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def _told(error: BaseException) -> dict[str, str]:
    """Where an error came from in our code; its message only when it is ours."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "medexpert" in f.filename]
    what = str(error) if type(error).__name__ == "Broken" else ""
    return {"at": " < ".join(reversed(places[-4:])), "what": what}


# -- the parent ------------------------------------------------------------------------------------


class Child:
    """A child process, and its answers one by one."""

    def __init__(self, seed: int, data: str, memory: int) -> None:
        command = [sys.executable, __file__, "--child", "--seed", str(seed), "--data", data]
        command += ["--memory", str(memory)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, bufsize=1,
        )  # fmt: skip
        assert self.process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        ready = self._answer(START)
        if ready.get("kind"):
            raise SystemExit("the child did not start: a good file was not read as good")
        self.base, self.files = int(ready["ready"]), int(ready["files"])

    def _answer(self, seconds: float) -> Result:
        assert self.process.stdout is not None
        if not self._selector.select(seconds):
            return {"kind": "failure", "error": "hang", "at": "", "what": ""}
        line = self.process.stdout.readline()
        if not line:
            return {"kind": "failure", "error": "died", "at": "", "what": ""}
        answer: Result = json.loads(line)
        return answer

    def ask(self, number: int) -> Result:
        """What became of a mutation."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        return self._answer(TIMEOUT)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._selector.close()


def campaign(
    numbers: range, *, seed: int, data: str = "", memory: int = MEMORY, say: Any = None
) -> dict[str, Any]:
    """Run mutations; the summary."""
    start = time.monotonic()
    formats: dict[str, Counter[str]] = defaultdict(Counter)
    rows: Counter[str] = Counter()
    mutations: Counter[str] = Counter()
    failures: list[Result] = []
    slowest = peak = base = 0.0
    running: Child | None = None
    restarts = files = 0
    try:
        for number in numbers:
            if running is None:
                running = Child(seed, data, memory)
                base, files = max(base, running.base), running.files
            result = running.ask(number)
            if result["kind"] == "failure":
                failures.append({"number": number, **result})
                if say is not None:
                    say(json.dumps(failures[-1]))
            if result.get("error") in ("hang", "died"):
                running.close()
                running, restarts = None, restarts + 1
            family, name = result.get("label", "unknown:unknown").split(":")[:2]
            formats[f"{family}:{name}"][result["kind"]] += 1
            rows.update(result.get("counts", {}))
            mutations.update(result.get("mutations", ()))
            slowest = max(slowest, result.get("seconds", TIMEOUT))
            peak = max(peak, result.get("peak", 0))
            if say is not None and number % 1000 == 999:
                say(f"{number + 1:,} files, {time.monotonic() - start:,.0f} s")
    finally:
        if running is not None:
            running.close()
    total: Counter[str] = Counter()
    for counts in formats.values():
        total.update(counts)
    return {
        "seed": seed,
        "files_broken": len(numbers),
        "good_files": files,
        "published_files_among_them": bool(data),
        "outcomes": dict(sorted(total.items())),
        "rows": dict(sorted(rows.items())),
        "by_format": {name: dict(sorted(c.items())) for name, c in sorted(formats.items())},
        "by_mutation": dict(sorted(mutations.items())),
        "failures": [{k: v for k, v in one.items() if k != "counts"} for one in failures],
        "bounds": {
            "seconds_a_file": TIMEOUT,
            "address_space_over_own_size_mib": memory >> 20,
        },
        "slowest_file_seconds": round(slowest, 2),
        "resident_mib": {"after_good_files": round(base / 2**20), "peak": round(peak / 2**20)},
        "children_restarted": restarts,
        "wall_seconds": round(time.monotonic() - start, 1),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    names = ("medexpert", "lxml", "ijson", "pyarrow", "openpyxl", "pypdfium2", "trafilatura",
             "python-docx", "charset-normalizer")  # fmt: skip
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


def main() -> int:
    """The command line; 1 when there are failures."""
    parser = argparse.ArgumentParser(description="Break files, read them, tell what became of it.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument(
        "--data", default="", help="folder of published data; empty: our files only"
    )
    parser.add_argument("--memory", type=int, default=MEMORY, help="bytes; 0 = no bound")
    parser.add_argument("--only", type=int, default=-1, help="one mutation by its number")
    parser.add_argument("--out", type=Path, help="file for the summary; else standard output")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.seed, given.data, given.memory)
        return 0
    numbers = range(given.only, given.only + 1) if given.only >= 0 else range(given.count)
    summary = campaign(
        numbers, seed=given.seed, data=given.data, memory=given.memory,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 1 if summary["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
