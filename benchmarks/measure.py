"""Runs one command as a session of its own and measures it whole: wall time and peak memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INTERVAL = 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")
NEWS = 1.01
"""Times the highest RSS at which PSS was read, from which on it is read again. The kernel walks
over all pages of a process to tell its PSS: asked of gigabytes ten times a second, that takes a
third of a core. RSS costs nothing."""


@dataclass(frozen=True)
class Measured:
    """Seconds of a whole command, and its peak memory in MB (10**6 bytes) over all its processes.

    `pss_mb` counts a page that several processes share once (proportional set size); `rss_mb`
    counts it once for each.
    """

    seconds: float
    pss_mb: float
    rss_mb: float


class CommandFailed(Exception):
    """A measured command ended with an error; the message holds the end of its output."""


def run(command: Sequence[str], env: Mapping[str, str], log: Path) -> Measured:
    """Run to the end. Output goes to `log`. Raises CommandFailed."""
    with log.open("wb") as out:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        peaks = [0, 0]
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks, stop))
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        stop.set()
        watcher.join()
    if code:
        tail = log.read_text("utf-8", "replace")[-2000:]
        raise CommandFailed(f"{' '.join(command)} ended with {code}:\n{tail}")
    return Measured(round(seconds, 3), round(peaks[0] / 1e6, 1), round(peaks[1] / 1e6, 1))


def _watch(session: int, peaks: list[int], stop: threading.Event) -> None:
    read_at = 0
    while True:
        pids = processes_of(session)
        rss = sum(map(resident, pids))
        peaks[1] = max(peaks[1], rss)
        if rss > read_at * NEWS:
            read_at = rss
            peaks[0] = max(peaks[0], sum(map(proportional, pids)))
        if stop.wait(INTERVAL):
            return


def processes_of(session: int) -> list[int]:
    """The processes of a session; children that outlive their parent stay in it."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_bytes()
        except OSError:
            continue  # it has ended
        # After the name in brackets: state, parent, group, session.
        if int(stat[stat.rindex(b")") + 2 :].split()[3]) == session:
            found.append(int(entry.name))
    return found


def resident(pid: int) -> int:
    """RSS in bytes; 0 for a process that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """PSS in bytes; 0 for a process that has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    pages = os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages * PAGE / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def lines(file: Path) -> list[dict[str, Any]]:
    """The measurements of a JSON lines file, none if there is no file."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]


def append(file: Path, line: dict[str, Any]) -> None:
    """One more measurement, on disk when this returns."""
    with file.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def take_turns(
    file: Path,
    about: Mapping[str, Any],
    systems: Sequence[Any],
    repeats: int,
    once: Callable[[Any], Mapping[str, Any]],
) -> bool:
    """Measure every system (it has a `name`) once a turn; each turn begins with another one.

    Each measurement is a line of `file`, under a first line that tells the work, the machine and
    the command; what is there already is not measured again. False when a system failed.
    """
    held = lines(file)
    if not held:
        append(file, dict(about))
    done = {(line["system"], line["repeat"]) for line in held if "system" in line}
    well = True
    for repeat in range(1, repeats + 1):
        shift = (repeat - 1) % len(systems)
        for system in [*systems[shift:], *systems[:shift]]:
            if (system.name, repeat) in done:
                continue
            try:
                row = once(system)
            except CommandFailed as error:
                print(f"{system.name} failed: {error}", file=sys.stderr, flush=True)
                well = False
                continue
            append(file, {"system": system.name, "repeat": repeat, **row})
    return well
