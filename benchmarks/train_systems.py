"""The systems that train: how each is installed and started."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"


@dataclass(frozen=True)
class System:
    """One system in one setting. `environment` names its requirements file, "" for ours."""

    name: str
    label: str
    method: str
    environment: str
    script: str
    mode: str
    does: str


_BF16 = "bf16, activations kept"
_KINDS = (
    ("ours", "medexpert", "", "train_ours.py", "default", "bf16, fp32 masters, compiled"),
    ("ours-eager", "medexpert", "", "train_ours.py", "eager", "the same, not compiled"),
    ("trl", "TRL, default", "trl", "train_trl.py", "default", "as shipped"),
    ("trl-bf16", "TRL, bf16", "trl", "train_trl.py", "bf16", _BF16),
    ("trl-tuned", "TRL, tuned", "trl", "train_trl.py", "tuned", _BF16 + ", fused AdamW"),
    ("trl-pure", "TRL, bf16 weights", "trl", "train_trl.py", "pure",
     "weights and AdamW in bf16: updates are rounded; not the same precision"),
    ("llamafactory", "LLaMA-Factory, default", "llamafactory", "train_llamafactory.py", "default",
     "as shipped"),
    ("llamafactory-tuned", "LLaMA-Factory, tuned", "llamafactory", "train_llamafactory.py",
     "tuned", _BF16 + ", fused AdamW"),
)  # fmt: skip
SYSTEMS = {
    f"{name}-{method}": System(f"{name}-{method}", label, method, environment, script, mode, does)
    for method in ("full", "lora")
    for name, label, environment, script, mode, does in _KINDS
}


def python_of(system: System, cache: Path) -> str:
    """The interpreter of a system's environment, made from its pinned requirements if need be.

    The lists are complete, so nothing is resolved: LLaMA-Factory asks for PyTorch's sound and image
    packages, which are not used and would bind it to another PyTorch than the others'.
    """
    if not system.environment:
        return sys.executable
    wanted = HERE / f"requirements-{system.environment}.txt"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    folder = cache / "environments" / system.environment
    python, marker = folder / "bin" / "python", folder / "requirements.sha256"
    if marker.exists() and marker.read_text() == digest:
        return str(python)
    print(f"installing {wanted.name} (not timed)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    env = {**os.environ, "PYTHONPATH": ""}
    # PyTorch by itself with what it needs, which differs from machine to machine (CPU, CUDA).
    torch = next(x for x in wanted.read_text().splitlines() if x.startswith("torch=="))
    subprocess.run([*pip, torch], check=True, env=env)
    subprocess.run([*pip, "--no-deps", "-r", str(wanted)], check=True, env=env)
    marker.write_text(digest)
    return str(python)


def variables(system: System, device: str) -> dict[str, str]:
    """Environment variables of a run: no network, no telemetry, threads on all cores."""
    cores = str(len(os.sched_getaffinity(0)))
    found = {
        "OMP_NUM_THREADS": cores, "MKL_NUM_THREADS": cores, "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "disabled", "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1",
        "DISABLE_VERSION_CHECK": "1",
    }  # fmt: skip
    if device == "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ""
    found["PYTHONPATH"] = "" if system.environment else str(SOURCE)
    if not system.environment:
        found["OMP_WAIT_POLICY"] = "passive"  # as the door sets it
    return found
