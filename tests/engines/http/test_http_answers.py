"""Answers 200 that are not what the protocol says: what is asked again, and who is to blame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from endpoint import Endpoint, Handler, raw
from medexpert.engines.base import PromptError
from medexpert.engines.http import HttpEngine
from medexpert.engines.http.client import EndpointError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
Opened = Callable[..., HttpEngine]


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


NO_JSON = {
    b'{"choices": [': "the answer is not JSON",
    b"": "the answer is not JSON",
    b"<html><body>502 Bad Gateway</body></html>": "HTML, not JSON: is the address right",
}


@pytest.mark.parametrize("body", NO_JSON)
def test_an_answer_that_is_no_json_is_asked_again_and_no_fault_of_a_prompt(
    endpoint: Endpoint, opened: Opened, body: bytes
) -> None:
    engine = opened()
    endpoint.faults = [raw(body), raw(body)]
    assert engine.complete(["x"], max_tokens=3)[0].text == " said of it"
    assert engine.facts()["retries"] == 2
    endpoint.always = raw(body)
    for ask in (
        lambda: engine.complete(["x", "y"], max_tokens=3),
        lambda: engine.choice_logprobs(["x"], [" yes", " no"]),
    ):
        with pytest.raises(EndpointError, match=NO_JSON[body]) as caught:
            ask()
        assert "given up after 4 tries" in one_line(caught.value)


def test_a_page_in_place_of_completions_leaves_chat(
    endpoint: Endpoint, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may answer every path that it does not know with its start page."""
    plain = Handler.do_POST

    def post(handler: Any) -> None:
        if handler.path != "/v1/completions":
            return plain(handler)
        handler.rfile.read(int(handler.headers["Content-Length"]))
        return raw(b"<html>Welcome</html>")(handler)

    monkeypatch.setattr(Handler, "do_POST", post)
    facts = opened().facts()
    assert facts["api"] == "chat"
    assert "HTML, not JSON" in facts["probes"]["completions"]


def test_control_characters_inside_an_answer_are_read(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    endpoint.faults = [raw(b'{"choices": [{"text": " a\x07b", "finish_reason": "stop"}]}')]
    assert engine.complete(["x"], max_tokens=3)[0].text == " a\x07b"


WRONG = {
    b"[]": "no choices; one was asked for",
    b'{"choices": []}': "no choices; one was asked for",
    b'{"choices": ["text"]}': "no choices; one was asked for",
    b'{"choices": [{"index": 0}]}': "has no text",
    b'{"choices": [{"text": 7}]}': "has no text",
    b'{"error": {"message": "it cannot", "code": 422}}': r"refuses the request \(422\): it cannot",
    b'{"error": {"message": "flagged", "code": 403}}': r"refuses the request \(403\): flagged",
}


@pytest.mark.parametrize("body", WRONG)
def test_wrong_answers_name_the_prompt(endpoint: Endpoint, opened: Opened, body: bytes) -> None:
    engine = opened()
    endpoint.change = lambda answer: (
        answer if answer["choices"][0]["text"] != " bad" else {"choices": []}
    )
    calls = iter([raw(body)])
    engine.complete(["good"], max_tokens=3)
    endpoint.faults = [next(calls)]
    with pytest.raises(PromptError, match=WRONG[body]) as caught:
        engine.complete(["x"], max_tokens=3)
    assert caught.value.index == 0
    one_line(caught.value)
