"""An OpenAI-compatible endpoint on this machine, which offers and fails as it is told.

Its answers come from a mind: `Words` (words as tokens, a scripted reply) or `TinyModel` (a real
model, so that what comes over HTTP can be compared with the local engine).
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

EVERYTHING = frozenset(
    {
        "completions",
        "chat",
        "echo",
        "ids",
        "prompt_logprobs",
        "forced",
        "choice",
        "top",
        "tokenize",
        "usage",
    }
)


class Words:
    """A word with the space before it is a token; ln p = -(its length); the reply is scripted."""

    def __init__(self, reply: Callable[[str], str] = lambda prompt: " said of it") -> None:
        self.reply = reply
        self.known: list[str] = []
        self.top = {" yes": -0.4, "yes": -2.0, " no": -1.5, " ma": -3.0, "Zebra": -9.0}

    def encode(self, text: str) -> list[int]:
        pieces = re.findall(r"\s*\S+|\s+$", text)
        self.known += [p for p in dict.fromkeys(pieces) if p not in self.known]
        return [self.known.index(piece) for piece in pieces]

    def text(self, ids: list[int]) -> list[str]:
        return [self.known[number] for number in ids]

    def logprobs(self, ids: list[int]) -> list[float | None]:
        return [None, *(-float(len(piece)) for piece in self.text(ids)[1:])]

    def write(self, ids: list[int], limit: int, stop: list[str]) -> tuple[str, int, str]:
        pieces = re.findall(r"\s*\S+", self.reply("".join(self.text(ids))))
        made = "".join(pieces[:limit])
        ends = [at for mark in stop if (at := made.find(mark)) >= 0]
        finish = "stop" if ends or len(pieces) <= limit else "length"
        return made[: min(ends)] if ends else made, min(len(pieces), limit), finish


class TinyModel:
    """The model behind a local engine."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.lock = engine, threading.Lock()
        self.top: dict[str, float] = {}

    def encode(self, text: str) -> list[int]:
        found: list[int] = self.engine.tokenizer(text)["input_ids"]
        return found

    def text(self, ids: list[int]) -> list[str]:
        return [self.engine.tokenizer.decode([number]) for number in ids]

    def logprobs(self, ids: list[int]) -> list[float | None]:
        import torch

        with self.lock, torch.inference_mode():
            rows = self.engine.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return [None, *(rows[k, ids[k + 1]].item() for k in range(len(ids) - 1))]

    def write(self, ids: list[int], limit: int, stop: list[str]) -> tuple[str, int, str]:
        prompt = self.engine.tokenizer.decode(ids)
        with self.lock:
            (made,) = self.engine.complete([prompt], max_tokens=limit, stop=stop)
        return made.text, made.tokens, made.finish


@dataclass
class Endpoint:
    """What is offered, and what was asked. `faults` come before the right answers, one a POST."""

    mind: Any = field(default_factory=Words)
    offers: frozenset[str] = EVERYTHING
    models: tuple[str, ...] = ("tiny",)
    context: int = 256
    key: str = ""
    refusal: int = 401  # status for another key
    window: int = 0  # prompts are cut to so many tokens, as some servers do
    faults: list[Callable[[Any], None]] = field(default_factory=list)
    always: Callable[[Any], None] | None = None  # the fault of every POST
    change: Callable[[dict[str, Any]], Any] = lambda answer: answer
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    address: str = ""
    busy: int = 0
    most_busy: int = 0

    def posts(self) -> list[dict[str, Any]]:
        """The bodies of requests for text, probes left out when `asked` was cleared."""
        return [body for path, body in self.asked if path.endswith("completions")]


class Handler(BaseHTTPRequestHandler):
    """Answers as the `Endpoint` in `state` says."""

    state: Endpoint
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    counting = threading.Lock()

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def value(self, value: Any, status: int = 200, **headers: str) -> None:
        self.send(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def fail(self, status: int, message: str, **headers: str) -> None:
        self.value({"error": {"message": message}}, status, **headers)

    def allowed(self) -> bool:
        if self.state.key and self.headers.get("Authorization") != f"Bearer {self.state.key}":
            self.fail(self.state.refusal, f"bad key {self.headers.get('Authorization', '')}")
            return False
        return True

    def do_GET(self) -> None:
        if not self.allowed():
            return
        if self.path == "/v1/models" and self.state.models:
            context = self.state.context
            rows = [{"id": m, "max_model_len": context or None} for m in self.state.models]
            self.value({"object": "list", "data": rows})
        elif self.path == "/version" and "forced" in self.state.offers:
            self.value({"version": "0.1.test"})
        else:
            self.fail(404, "no such page")

    def do_POST(self) -> None:
        state = self.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        state.asked.append((self.path, body))
        with self.counting:
            state.busy += 1
            state.most_busy = max(state.most_busy, state.busy)
        try:
            if state.faults:
                state.faults.pop(0)(self)
            elif state.always is not None:
                state.always(self)
            else:
                self.serve(body)
        finally:
            with self.counting:
                state.busy -= 1

    def serve(self, body: dict[str, Any]) -> None:
        state, offers = self.state, self.state.offers
        if self.path == "/tokenize" and "tokenize" in offers:
            ids = state.mind.encode(body["prompt"])
            self.value({"count": len(ids), "tokens": ids})
        elif self.path == "/v1/completions" and "completions" in offers:
            self.text(body, body["prompt"], chat=False)
        elif self.path == "/v1/chat/completions" and "chat" in offers:
            self.text(body, "\n".join(m["content"] for m in body["messages"]), chat=True)
        else:
            self.fail(404, "no such page")

    def text(self, body: dict[str, Any], prompt: Any, *, chat: bool) -> None:
        state = self.state
        mind, offers = state.mind, state.offers
        if isinstance(prompt, list) and "ids" not in offers:
            self.fail(400, "prompt: a text is expected")
            return
        ids = prompt if isinstance(prompt, list) else mind.encode(prompt)
        if state.window:
            ids = ids[-state.window :]
        limit = body.get("max_tokens", 16)
        if state.context and len(ids) + limit > state.context:
            self.fail(400, f"This model's maximum context length is {state.context} tokens.")
            return
        text, tokens, finish = mind.write(ids, limit, body.get("stop", []))
        forced = body.get("allowed_token_ids") if "forced" in offers else None
        one_of = body.get("structured_outputs", {}).get("choice") if "choice" in offers else None
        if forced:
            (text,), tokens, finish = mind.text(forced), 1, "length"
        elif one_of:
            text, tokens, finish = one_of[0], len(mind.encode(one_of[0])), "stop"
        answer: dict[str, Any] = {"text": text, "index": 0, "finish_reason": finish}
        if body.get("logprobs"):
            self.tell(answer, body, ids, forced or [], chat)
        if "prompt_logprobs" in body and "prompt_logprobs" in offers:
            rows = zip(mind.text(ids), mind.logprobs(ids), strict=True)
            told = [{"7": {"logprob": v, "rank": 1, "decoded_token": t}} for t, v in rows]
            answer["prompt_logprobs"] = [None, *told[1:]]
        if chat:
            answer["message"] = {"role": "assistant", "content": answer.pop("text")}
        whole: dict[str, Any] = {"choices": [answer]}
        if "usage" in offers:
            whole["usage"] = {"prompt_tokens": len(ids), "completion_tokens": tokens}
        if body.get("stream"):
            self.stream(whole, chat)
        else:
            self.value(state.change(whole))

    def tell(
        self,
        answer: dict[str, Any],
        body: dict[str, Any],
        ids: list[int],
        forced: list[int],
        chat: bool,
    ) -> None:
        """Put log-probabilities into an answer, where they are offered."""
        mind, offers = self.state.mind, self.state.offers
        if forced:
            values = mind.logprobs([*ids, *forced])[len(ids) :]
            pairs, top = list(zip(mind.text(forced), values, strict=True)), {}
        elif body.get("echo") and "echo" in offers:
            pairs = list(zip(mind.text(ids), mind.logprobs(ids), strict=True))
            pairs, top = [*pairs, ("<new>", -0.5)], {}
            answer["text"] = "".join(t for t, _ in pairs)
        elif "top" in offers:
            count = body.get("top_logprobs", body["logprobs"] if not chat else 0)
            top = dict(sorted(mind.top.items(), key=lambda p: -p[1])[:count])
            pairs = [(" yes", -0.4)]
        else:
            return
        if chat:
            tops = [{"token": t, "logprob": v} for t, v in top.items()]
            rows = [{"token": t, "logprob": v, "top_logprobs": tops} for t, v in pairs]
            answer["logprobs"] = {"content": rows}
        else:
            texts, values = zip(*pairs, strict=True)
            answer["logprobs"] = {
                "tokens": list(texts), "token_logprobs": list(values), "top_logprobs": [top],
            }  # fmt: skip

    def stream(self, whole: dict[str, Any], chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        (choice,) = whole["choices"]
        text = choice["message"]["content"] if chat else choice["text"]
        for at in range(0, len(text), 3):
            piece = text[at : at + 3]
            part = {"delta": {"content": piece}} if chat else {"text": piece}
            self.event({"choices": [part]})
        end = {"delta": {}} if chat else {"text": ""}
        self.event({"choices": [{**end, "finish_reason": choice["finish_reason"]}]})
        self.event({"choices": [], "usage": whole.get("usage")})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, value: Any) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())


# -- faults ----------------------------------------------------------------------------------------


def status(code: int, words: str = "out of order", **headers: str) -> Callable[[Any], None]:
    """An answer with this status."""
    return lambda handler: handler.fail(code, words, **headers)


def raw(body: bytes, kind: str = "application/json") -> Callable[[Any], None]:
    """This body with status 200."""
    return lambda handler: handler.send(200, body, Content_Type=kind)


def silent(seconds: float) -> Callable[[Any], None]:
    """Nothing for so long, then an error."""

    def wait(handler: Any) -> None:
        time.sleep(seconds)
        handler.fail(500, "too late")

    return wait


def torn(body: bytes, *, promised: int = 10_000) -> Callable[[Any], None]:
    """The connection closes before the promised length has come."""

    def cut(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(promised))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return cut


def torn_stream(*events: Any) -> Callable[[Any], None]:
    """A stream that ends after these events, without its last."""

    def cut(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for value in events:
            handler.event(value)
        handler.close_connection = True

    return cut


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # more connections at once than the default 5 would wait a second
    daemon_threads = True


@contextlib.contextmanager
def running(state: Endpoint) -> Iterator[Endpoint]:
    """The endpoint answers at `state.address` for the time of the block."""
    http = _Server(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    state.address = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
