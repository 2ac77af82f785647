"""Engines opened on an endpoint of this machine; waiting between tries is made short."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from endpoint import Endpoint, running
from medexpert.engines.http import HttpEngine, HttpSettings, pace


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_WAIT", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running(Endpoint()) as state:
        yield state


@pytest.fixture
def opened(endpoint: Endpoint) -> Iterator[Callable[..., HttpEngine]]:
    """opened(tokenizer, api=..., ...) -> an engine on the endpoint; its probes are forgotten."""
    with contextlib.ExitStack() as stack:

        def make(tokenizer: Any = None, **settings: Any) -> HttpEngine:
            values = {"base_url": endpoint.address, "model": "tiny", "retries": 3, **settings}
            engine = HttpEngine(HttpSettings(**values), tokenizer)
            stack.callback(engine.close)
            endpoint.asked.clear()
            return engine

        yield make
