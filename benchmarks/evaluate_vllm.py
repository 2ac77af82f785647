"""VoC by our own strategy against a vLLM server on this machine, over HTTP, prefix caching on."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluate_ours import strategy, timed
from evaluate_result import arguments, write
from evaluate_work import read_questions

PATIENCE = 900.0
"""Seconds for a server to start: it imports and profiles for a minute or two."""
NAME = "model"


@contextmanager
def serving(python: str, model: str, dtype: str, log: Path) -> Iterator[str]:
    """The address of a server for the time of the block. Its processes end with it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    # `vllm serve` looks for a package of another name than the CPU build has.
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--dtype", dtype,
        "--served-model-name", NAME, "--max-model-len", "4096", "--enforce-eager",
        "--enable-prefix-caching", "--enable-prompt-tokens-details",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "2",
             "PYTHONPATH": ""}  # fmt: skip
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **quiet}
        )
        try:
            _wait(child, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.terminate()
            try:
                child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait(child: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if child.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise SystemExit(f"the server does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def version(python: str) -> str:
    """Of vLLM's build for CPUs in the environment of this interpreter."""
    code = "import importlib.metadata as m; print(m.version('vllm-cpu'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Modes are dtypes; `--server` is the interpreter of vLLM's environment."""
    args, work = arguments()
    from medexpert.verbs import open_engine

    log = args.out.with_suffix(".server.log")
    with serving(args.server, work["model"], args.mode, log) as address:
        options = [f"tokenizer={work['model']}", "concurrency=48", "read_timeout=1200"]
        engine, _ = open_engine(
            f"openai:{NAME}", dtype="float32", batch_tokens=4096, say=print, base_url=address,
            options=options,
        )  # fmt: skip
        engine.complete(["Warm up."], max_tokens=2)
        seconds, usage, made = timed(engine, strategy(work["max_tokens"]), read_questions(work))
        write(
            args, seconds=seconds, usage=usage, predictions=[p.choice for p in made],
            probabilities=[dict(p.probabilities) for p in made], facts=dict(engine.facts()),
            server={"vllm-cpu": version(args.server)},
        )  # fmt: skip


if __name__ == "__main__":
    main()
