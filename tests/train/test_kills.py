"""A small kill campaign, in a process of its own: a fork must not find threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parent / "kills.py"


@pytest.mark.slow
def test_killed_stages_end_with_the_bytes_of_undisturbed_ones(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(KILLS), "--kills", "4", "--seed", "5", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["kills"] == 4
    assert told["byte_identical"] == told["stages"] == len(told["killed"]) > 1
