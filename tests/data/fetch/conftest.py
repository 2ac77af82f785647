"""A server on this machine that fails as it is told, and a source to fetch from it."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from medexpert.data import catalogue
from medexpert.data.catalogue import Origin, SourceEntry


@dataclass
class Server:
    """What the server gives, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    etag: str = '"one"'
    ranges: bool = True
    kind: str = "application/octet-stream"
    cut: list[int] = field(default_factory=list)  # bytes after which a connection is closed
    statuses: list[int] = field(default_factory=list)  # answers before the right one
    silent: float = 0.0  # seconds before an answer
    wait: float = 0.0  # seconds between pieces
    piece: int = 1 << 16
    redirect: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def ranges_asked(self) -> list[str]:
        return [headers.get("range", "") for _, headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    """Answers as the `Server` in `state` says."""

    state: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        state, path = self.state, self.path
        headers = {key.lower(): value for key, value in self.headers.items()}
        state.asked.append((path, headers))
        time.sleep(state.silent)
        if state.statuses:
            self.answer(state.statuses.pop(0), {}, b"")
        elif path in state.redirect:
            extra = state.headers.get(path, {})
            self.answer(302, {"Location": state.redirect[path], **extra}, b"")
        elif path not in state.files:
            self.answer(404, {}, b"")
        else:
            self.give(state.files[path], headers)

    def give(self, body: bytes, headers: dict[str, str]) -> None:
        state = self.state
        extra = {"Content-Type": state.kind} | ({"ETag": state.etag} if state.etag else {})
        found = re.match(r"bytes=(\d+)-", headers.get("range", ""))
        same = headers.get("if-range", state.etag) == state.etag
        if not (found and state.ranges and same):
            self.answer(200, extra, body)
        elif (start := int(found[1])) >= len(body):
            self.answer(416, {}, b"")
        else:
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.answer(206, extra, body[start:])

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        state = self.state
        end = state.cut.pop(0) if state.cut and body else len(body)
        for at in range(0, end, state.piece):
            self.wfile.write(body[at : min(at + state.piece, end)])
            self.wfile.flush()
            time.sleep(state.wait)
        self.close_connection = True

    def handle(self) -> None:
        # the client may be killed or give up; that is the test
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()


@contextlib.contextmanager
def running(state: Server) -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    http.daemon_threads = True
    state.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as state:
        yield state


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serving() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """serving(files=...) -> another server for the time of a `with`."""
    return lambda **values: running(Server(**values))


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SourceEntry]:
    """make(origin, ..., licence=...) -> a source "demo" that is in the catalogue for this test."""

    def build(*origin: Origin, **changes: Any) -> SourceEntry:
        values: dict[str, Any] = {"licence": "MIT", "files": ("demo/a.bin",), **changes}
        entry = SourceEntry("demo", "knowledge", "en", reader="documents", origin=origin, **values)
        monkeypatch.setitem(catalogue.SOURCES, "demo", entry)
        return entry

    return build
