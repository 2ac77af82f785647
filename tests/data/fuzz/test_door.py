"""Broken input at the command line: one line on standard error, exit code 2, no traceback."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROW = '{"id": "%s", "text": "%s"}\n'
TEXT = "Forty people drank warm tea by lot and the ward wrote down how long each of them stayed. "
RECIPE = """
name = "broken"
output = "{out}"
[base]
model = "none"
[data]
quarantine = []
allow_leaks = true
workers = 1
[[data.knowledge]]
source = "text-jsonl"
path = "{file}"
[instruct]
enabled = false
[adapt]
enabled = false
"""
DEEP = ('{"id": "a", "text": ' + "[" * 10_000 + "]" * 10_000 + "}\n").encode()
BROKEN = {
    "missing": None,
    "empty": b"",
    "cut gzip": gzip.compress((ROW % ("a", TEXT)).encode() * 200, mtime=0)[:-20],
    "noise": bytes(range(256)) * 4,
    "zip": b"PK\x03\x04" + bytes(200),
}


def medexpert(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "medexpert", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], name: str) -> str:
    """The last line on standard error, which is the only one that is no progress."""
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done
    told = [line for line in done.stderr.splitlines() if line.startswith("medexpert: ")]
    assert len(told) == 1
    assert told[0] == done.stderr.splitlines()[-1]
    assert name in told[0]
    return told[0]


def laid(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "broken.jsonl"
    data = BROKEN[name]
    if data is not None:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("verb", "name"),
    [("show", "missing"), ("show", "cut gzip"), ("stats", "empty"), ("stats", "zip"),
     ("audit", "cut gzip"), ("audit", "noise"), ("build", "cut gzip"), ("build", "noise")],
)  # fmt: skip
def test_a_file_that_cannot_be_read(tmp_path: Path, verb: str, name: str) -> None:
    path = laid(tmp_path, name)
    arguments = [str(path)]
    if verb == "audit":
        bench = tmp_path / "bench.jsonl"
        bench.write_text('{"id": "b", "question": "Is the moon made of tea?"}\n')
        arguments += ["--against", f"file:{bench}"]
    elif verb == "build":
        recipe = tmp_path / "r.toml"
        recipe.write_text(RECIPE.format(out=tmp_path / "run", file=path))
        arguments = [str(recipe)]
    refused(medexpert("data", verb, *arguments), "broken.jsonl")


def test_a_build_stops_over_five_percent_of_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    rows = [(ROW % (n, f"{TEXT}{n} {n * 7}")).encode() for n in range(19)]
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(out=tmp_path / "run", file=path))
    path.write_bytes(b"".join([*rows[:9], DEEP, *rows[9:]]))
    done = medexpert("data", "build", str(recipe))
    assert done.returncode == 0, done
    path.write_bytes(b"".join([*rows[:9], DEEP, b"{\n", *rows[9:]]))
    line = refused(medexpert("data", "build", str(recipe)), "broken.jsonl")
    assert f"{path}:10: not usable JSON: nested too deeply" in line
    assert f"{path}:11" in line
    assert "2 of" in line


def test_bad_rows_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes((ROW % ("a", TEXT)).encode() + b"{\x1b[2J\n" + DEEP)
    done = medexpert("data", "show", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{path}:2:" in done.stdout.replace("\n", "").replace("    ", "")
    assert "\x1b" not in done.stdout
    done = medexpert("data", "stats", str(path))
    assert done.returncode == 0
    assert "2 rows cannot be read" in done.stdout
