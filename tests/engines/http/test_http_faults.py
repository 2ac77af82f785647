"""Every way an endpoint fails is one clear line; what may pass is asked again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endpoint import EVERYTHING, Endpoint, Handler, raw, silent, status, torn, torn_stream
from medexpert.engines.base import NoLogprobs, PromptError
from medexpert.engines.http import HttpEngine, HttpSettings
from medexpert.engines.http.client import EndpointError
from medexpert.records import UserError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
Opened = Callable[..., HttpEngine]
ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_endpoint_down() -> None:
    address = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(EndpointError, match="cannot connect: is the endpoint running") as caught:
        HttpEngine(HttpSettings(address, "m"))
    assert one_line(caught.value).startswith(f"{address}/models: ")


def test_slow_answers_are_given_up(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened(read_timeout=0.1, retries=1)
    endpoint.always = silent(0.4)
    with pytest.raises(EndpointError, match=r"no answer within 0.1 s \(read_timeout\).*2 tries"):
        engine.complete(["x"], max_tokens=2)


def test_patience_bounds_a_request_with_its_retries(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened(patience=0.5, retries=100)
    endpoint.always = status(503)
    started = time.monotonic()
    with pytest.raises(EndpointError, match=r"answers 503: out of order; given up after \d+ tries"):
        engine.complete(["x"], max_tokens=2)
    assert time.monotonic() - started < 2


def test_a_trickle_does_not_outlast_the_patience(endpoint: Endpoint, opened: Opened) -> None:
    def trickle(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    engine = opened(patience=0.3, retries=0, read_timeout=5)
    endpoint.always = trickle
    with pytest.raises(EndpointError, match="has not answered in time"):
        engine.complete(["x"], max_tokens=2)


@pytest.mark.parametrize("code", [401, 403])
def test_key_refused(endpoint: Endpoint, code: int) -> None:
    endpoint.key, endpoint.refusal = "right", code
    with pytest.raises(EndpointError, match=rf"refuses the key \({code}\).*api_key_env") as caught:
        HttpEngine(HttpSettings(endpoint.address, "tiny"))
    one_line(caught.value)


def test_key_variable_not_set(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match="the environment variable NO_SUCH_KEY is not set"):
        HttpEngine(HttpSettings(endpoint.address, "tiny", api_key_env="NO_SUCH_KEY"))


def test_unknown_model_lists_those_served(endpoint: Endpoint) -> None:
    endpoint.models = ("tiny-7b", "large-70b")
    with pytest.raises(UserError, match="unknown model 'tinny-7b'") as caught:
        HttpEngine(HttpSettings(endpoint.address, "tinny-7b"))
    assert "allowed: large-70b, tiny-7b; did you mean 'tiny-7b'?" in one_line(caught.value)
    with pytest.raises(UserError, match="unknown model ''"):
        HttpEngine(HttpSettings(endpoint.address))


def test_a_model_that_is_not_listed_may_be_asked_for(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened(model="of-my-own", model_check="off")
    assert engine.facts()["probes"]["models"] == "1 told, not this one"
    assert engine.name == "of-my-own"


def test_the_only_model_needs_no_name(endpoint: Endpoint) -> None:
    engine = HttpEngine(HttpSettings(endpoint.address))
    assert engine.name == "tiny"
    engine.close()


def test_no_list_of_models(endpoint: Endpoint, opened: Opened) -> None:
    endpoint.models = ()
    assert "not told" in opened().facts()["probes"]["models"]
    with pytest.raises(UserError, match="does not tell its models: name one"):
        HttpEngine(HttpSettings(endpoint.address))


def test_a_list_of_models_that_breaks(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Handler.do_GET

    def get(handler: Any) -> None:
        status(500)(handler) if handler.path.endswith("/models") else broken(handler)

    monkeypatch.setattr(Handler, "do_GET", get)
    assert opened().facts()["probes"]["models"] == "not told (500)"


def test_429_is_asked_again_as_late_as_it_wants(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    endpoint.faults = [status(429, Retry_After="0.3")]
    started = time.monotonic()
    assert engine.complete(["x"], max_tokens=3)[0].text == " said of it"
    assert time.monotonic() - started >= 0.3
    assert engine.facts()["retries"] == 1


def test_429_for_ever(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    endpoint.always = status(429, "slow down", Retry_After="0")
    with pytest.raises(EndpointError, match="answers 429: slow down; given up after 4 tries"):
        engine.complete(["x"], max_tokens=3)
    endpoint.always = status(429, "slow down", Retry_After="7200")
    endpoint.asked.clear()
    with pytest.raises(EndpointError, match="it asks to wait 7200 s; given up after 1 try"):
        engine.complete(["x"], max_tokens=3)
    assert len(endpoint.posts()) == 1


@pytest.mark.parametrize("code", [500, 502, 503, 504, 529])
def test_server_errors_pass(endpoint: Endpoint, opened: Opened, code: int) -> None:
    engine = opened()
    endpoint.faults = [status(code), status(code)]
    assert engine.complete(["x"], max_tokens=3)[0].text == " said of it"
    assert engine.usage().calls == 1


def test_server_errors_for_ever(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    endpoint.always = status(500, "it broke")
    with pytest.raises(EndpointError, match="answers 500: it broke; given up after 4 tries"):
        engine.complete(["x"], max_tokens=3)


def test_torn_answers_are_asked_again(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    endpoint.faults = [torn(b'{"choices": [{"te'), torn(b"")]
    assert engine.complete(["x"], max_tokens=3)[0].text == " said of it"
    endpoint.always = torn(b"{")
    with pytest.raises(EndpointError, match="the connection broke off"):
        engine.complete(["x"], max_tokens=3)


def test_torn_stream(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    endpoint.faults = [torn_stream({"choices": [{"text": " one two"}]})]
    pieces = engine.stream("x", max_tokens=9)
    assert next(pieces) == " one two"
    with pytest.raises(EndpointError, match="ended before the text was complete"):
        list(pieces)
    endpoint.faults = [torn_stream({"error": {"message": "no memory"}})]
    with pytest.raises(EndpointError, match="the stream reports an error: no memory"):
        list(engine.stream("x", max_tokens=9))


@pytest.mark.parametrize(
    "fault",
    [
        status(402, "your credit is used up"),
        status(429, "insufficient_quota: your credit is used up"),
        status(404, "your credit is used up"),
        raw(b'{"error": {"message": "your credit is used up", "code": 402}}'),
    ],
)
def test_what_no_prompt_is_to_blame_for_is_no_fault_of_a_prompt(
    endpoint: Endpoint, opened: Opened, fault: Any
) -> None:
    engine = opened()
    endpoint.always = fault
    with pytest.raises(EndpointError, match="your credit is used up") as caught:
        engine.complete(["x", "y"], max_tokens=3)
    assert not isinstance(caught.value, PromptError)
    with pytest.raises(EndpointError) as caught:
        list(engine.stream("x", max_tokens=3))
    assert not isinstance(caught.value, PromptError)


def test_an_error_that_may_pass_inside_an_answer_is_asked_again(
    endpoint: Endpoint, opened: Opened
) -> None:
    engine = opened()
    endpoint.faults = [raw(b'{"error": {"message": "overloaded", "code": 502}}')]
    assert engine.complete(["x"], max_tokens=3)[0].text == " said of it"
    assert engine.facts()["retries"] == 1


@pytest.mark.parametrize(
    "models", [{"data": 7}, {"data": [{"id": "tiny", "max_model_len": "many"}]}, {"data": ["x"]}]
)
def test_a_list_of_models_of_another_shape(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, models: Any
) -> None:
    plain = Handler.do_GET

    def get(handler: Any) -> None:
        handler.value(models) if handler.path.endswith("/models") else plain(handler)

    monkeypatch.setattr(Handler, "do_GET", get)
    assert opened().facts()["context"] == 0


def test_an_html_page_instead_of_an_endpoint(endpoint: Endpoint) -> None:
    with pytest.raises(UserError, match=r"no such page|is the address right"):
        HttpEngine(HttpSettings(endpoint.address.removesuffix("/v1") + "/wrong", "tiny"))


def test_the_context_exceeded_names_the_prompt(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    long = "word " * 300
    with pytest.raises(PromptError, match="it does not fit the context of tiny") as caught:
        engine.complete(["short", long, "short"], max_tokens=3)
    assert caught.value.index == 1
    assert caught.value.where == "prompt 2"
    assert "allowed: 256 tokens" in one_line(caught.value)
    with pytest.raises(PromptError, match="it does not fit the context"):
        engine.choice_logprobs([long], [" yes"])


def test_an_empty_prompt(endpoint: Endpoint, opened: Opened) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        opened().complete(["x", ""], max_tokens=2)
    assert endpoint.posts() == []


@pytest.mark.parametrize(
    ("value", "told"), [("NaN", "nan"), ("null", "missing"), ("0.5", "0.5"), ('"x"', "missing")]
)
def test_bad_log_probabilities(endpoint: Endpoint, opened: Opened, value: str, told: str) -> None:
    engine = opened()

    def spoil(answer: dict[str, Any]) -> Any:
        rows = answer["choices"][0]["logprobs"]["token_logprobs"]
        rows[-2] = json.loads(value)
        return answer

    endpoint.change = spoil
    with pytest.raises(PromptError, match=f"log-probability of token ' yes' is {told}"):
        engine.choice_logprobs(["Q: one\nA:"], [" yes"])


def test_log_probabilities_missing_after_all(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    endpoint.offers = EVERYTHING - {"echo", "top"}
    with pytest.raises(PromptError, match="the log-probabilities are missing from the answer"):
        engine.choice_logprobs(["Q: one\nA:"], [" yes"])


def test_an_endpoint_without_log_probabilities(endpoint: Endpoint, opened: Opened) -> None:
    endpoint.offers = frozenset({"completions", "usage"})
    engine = opened()
    with pytest.raises(NoLogprobs, match="tiny gives no log-probabilities"):
        engine.choice_logprobs(["Q"], [" yes"])
    with pytest.raises(NoLogprobs, match="scoring whole texts needs the model's tokenizer"):
        engine.text_logprobs(["some text"])
    assert engine.complete(["x"], max_tokens=2)[0].text == " said of"


@pytest.mark.parametrize("way", ["echo", "prompt_logprobs", "forced", "top", "choice"])
def test_a_declared_way_that_is_not_offered(endpoint: Endpoint, way: str) -> None:
    endpoint.offers = frozenset({"completions", "usage"})
    with pytest.raises(UserError, match=f"does not offer labels = '{way}'"):
        HttpEngine(HttpSettings(endpoint.address, "tiny", labels=way))


def test_neither_completions_nor_chat(endpoint: Endpoint) -> None:
    endpoint.offers = frozenset({"tokenize"})
    with pytest.raises(EndpointError, match=r"refuses the request \(404\): no such page"):
        HttpEngine(HttpSettings(endpoint.address, "tiny"))


def test_one_failure_stops_the_others(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened(concurrency=1)
    endpoint.faults = [status(400, "not this one")]
    with pytest.raises(PromptError, match="not this one"):
        engine.complete([f"p{n}" for n in range(50)], max_tokens=2)
    assert len(endpoint.posts()) < 5
    assert engine.complete(["x"], max_tokens=3)[0].text == " said of it"  # it still works


def test_interrupted_in_the_middle(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened(read_timeout=60)
    endpoint.always = silent(5.0)
    # A shell's background jobs ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.complete([f"p{n}" for n in range(20)], max_tokens=2)
    finally:
        signal.signal(signal.SIGINT, before)
    engine.close()
    assert time.monotonic() - started < 4.5
    assert not [t for t in threading.enumerate() if t.name == "http"]


def test_ctrl_c_ends_the_process(endpoint: Endpoint) -> None:
    """A program that waits for a silent endpoint ends at once, with no thread left to wait for."""
    code = textwrap.dedent("""
        import signal, sys
        from medexpert.engines.http import HttpEngine, HttpSettings
        signal.signal(signal.SIGINT, signal.default_int_handler)
        engine = HttpEngine(HttpSettings(sys.argv[1], "tiny"))
        print("open", flush=True)
        sys.stdin.readline()
        print("asking", flush=True)
        engine.complete(["x"] * 20, max_tokens=2)
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", code, endpoint.address],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    endpoint.always = silent(9.0)
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "asking\n"
    while not endpoint.busy:
        time.sleep(0.01)
    started = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, words = child.communicate(timeout=20)
    assert time.monotonic() - started < 8.5
    assert words.strip().endswith("KeyboardInterrupt")
