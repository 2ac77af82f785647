"""The HTTP engine on real servers: see make_servers.sh; skipped where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from http_servers import SERVERS, environments, label_agreement, serving, text_agreement
from medexpert.engines.base import NoLogprobs
from medexpert.engines.http import HttpEngine, HttpSettings
from medexpert.engines.tokenizer import Tokenizer
from medexpert.model.base import cached
from medexpert.model.catalogue import BASES
from medexpert.records import UserError

pytestmark = [pytest.mark.network, pytest.mark.enable_socket, pytest.mark.timeout(1800)]
WAY = {"transformers": "none", "llamacpp": "echo", "vllm": "forced"}
TOLERANCE = {"llamacpp": 0.5, "vllm": 0.01}
"""Nats; llama.cpp computes on 4-bit weights with 8-bit activations (results/http-engines)."""


@pytest.fixture(scope="module")
def model() -> Path:
    found = cached(BASES["smollm2-135m-instruct"])
    if found is None:
        pytest.skip("smollm2-135m-instruct is not on this machine")
    return found


@pytest.fixture(scope="module")
def local(model: Path) -> Any:
    from medexpert.engines.local import LocalEngine

    return LocalEngine.open(model)


@pytest.fixture(scope="module", params=SERVERS)
def engine(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HttpEngine]:
    folder = environments()
    if folder is None or not (folder / request.param / "ready").is_file():
        pytest.skip(f"no {request.param} in MEDEXPERT_SERVERS (make_servers.sh makes it)")
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(request.param, folder / request.param, model, log) as server:
        settings = HttpSettings(
            server.address, server.model, read_timeout=600, patience=1200, model_check="off"
        )
        made = HttpEngine(settings, Tokenizer(model), name=request.param)
        yield made
        made.close()


def test_what_the_probe_finds(engine: HttpEngine) -> None:
    assert engine.offer.labels == WAY[engine.name]


def test_greedy_text(engine: HttpEngine, local: Any) -> None:
    found = text_agreement(engine, local, 3)
    assert found["stream_equals_complete"]
    assert found["prompt_tokens"] == found["prompt_tokens_locally"]
    assert found["equal"] == 3 or engine.name == "llamacpp"


def test_labels(engine: HttpEngine, local: Any) -> None:
    if engine.name not in TOLERANCE:
        with pytest.raises(NoLogprobs):
            engine.choice_logprobs(["Q"], [" yes"])
        return
    found = label_agreement(engine, local, 3)
    assert isinstance(found, dict), found
    assert found["largest_difference"] < TOLERANCE[engine.name]


def test_a_prompt_beyond_the_context(engine: HttpEngine) -> None:
    engine.offer.__dict__["context"] = 0  # let the endpoint itself refuse
    with pytest.raises(UserError, match=r"context|cuts prompts|given up|refuses"):
        engine.complete(["word " * 9000], max_tokens=8)
