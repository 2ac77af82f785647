"""An environment for lm-evaluation-harness beside this one, so that neither changes the other.

`python tests/reference/lm_eval_env.py FOLDER` makes it (about 90 MB): torch and transformers are
this environment's own, reached by a path file; what lm-eval needs beside them is pinned in
lm_eval.txt. A finished environment is left as it is. Prints its Python.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PINS = Path(__file__).with_name("lm_eval.txt")


def make(folder: Path) -> Path:
    """The Python of the environment in `folder`, made if it is not there."""
    python = folder / "bin" / "python"
    done = folder / "lm_eval.txt"
    if done.is_file() and done.read_bytes() == PINS.read_bytes():
        return python
    venv.create(folder, with_pip=False, clear=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    (Path(site) / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([python, "-m", "pip", "install", "--no-deps", "-r", PINS], check=True,
                   stdout=sys.stderr)  # fmt: skip
    done.write_bytes(PINS.read_bytes())
    return python


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
