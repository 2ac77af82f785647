"""Generation over HTTP: what is sent, what is counted, what the facts tell."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from endpoint import EVERYTHING, Endpoint, Words, status, torn_stream
from medexpert.engines.base import PromptError
from medexpert.engines.http import HttpEngine, HttpSettings
from medexpert.engines.http.loop import Loop
from medexpert.engines.http.requests import CHAT, estimate, seeds
from medexpert.prompt import template
from medexpert.records import UserError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
Opened = Callable[..., HttpEngine]


def test_completions_are_sent_as_rendered(endpoint: Endpoint, opened: Opened) -> None:
    endpoint.mind = Words(lambda prompt: f" heard {len(prompt.split())} words\n\nmore")
    engine = opened()
    made = engine.complete(["one two", "three"], max_tokens=9, stop=["\n\n"])
    assert [c.text for c in made] == [" heard 2 words", " heard 1 words"]
    assert {c.finish for c in made} == {"stop"}
    body = next(b for b in endpoint.posts() if b["prompt"] == "one two")
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.0, 9, ["\n\n"])
    assert "seed" not in body  # greedy: its repeats are one request
    assert engine.complete(["x"], max_tokens=2)[0].finish == "length"


def test_what_the_server_would_add_to_sampling_is_switched_off(
    endpoint: Endpoint, opened: Opened
) -> None:
    opened().complete(["x"], max_tokens=2, temperature=0.7, top_p=0.9, seed=5)
    (body,) = endpoint.posts()
    assert body["repetition_penalty"] == 1.0
    assert body["top_k"] == 0
    assert (body["temperature"], body["top_p"]) == (0.7, 0.9)
    endpoint.asked.clear()
    for way in ("echo", "prompt_logprobs", "top", "choice"):
        opened(labels=way).choice_logprobs(["Q"], [" yes", " no"])
    assert {body["repetition_penalty"] for body in endpoint.posts()} == {1.0}


def test_seeds_tell_repeated_prompts_and_calls_apart(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    engine.complete(["a", "a", "b"], max_tokens=1, temperature=1.0, seed=1)
    engine.complete(["a"], max_tokens=1, temperature=1.0, seed=2)
    engine.complete(["a"], max_tokens=1, temperature=1.0, seed=1)
    sent = [(body["prompt"], body["seed"]) for body in endpoint.posts()]
    assert sent[-1][1] in {seed for prompt, seed in sent[:3] if prompt == "a"}
    assert len({seed for _, seed in sent}) == 4
    assert all(0 <= seed < 2**31 for _, seed in sent)
    assert seeds(["a"], 1) == seeds(["a", "b"], 1)[:1]


def test_chat_sends_the_messages_that_were_rendered(endpoint: Endpoint, opened: Opened) -> None:
    endpoint.offers = EVERYTHING - {"completions"}
    engine = opened()
    assert engine.offer.api == "chat"
    assert engine.chat == CHAT
    talk = [
        {"role": "system", "content": "Be brief: <b>&'\"é是"},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Two?"},
    ]
    prompt = template.render_chat(talk, engine.chat, reply=True)
    assert engine.complete([prompt], max_tokens=4)[0].text == " said of it"
    engine.complete(["plain text"], max_tokens=4)
    first, second = endpoint.posts()
    assert first["messages"] == talk
    assert second["messages"] == [{"role": "user", "content": "plain text"}]
    assert engine.count_tokens(prompt) == engine.count_tokens(
        "\n".join(message["content"] for message in talk)
    )


def test_a_completion_may_be_empty(endpoint: Endpoint, opened: Opened) -> None:
    endpoint.mind = Words(lambda prompt: "")
    engine = opened()
    assert engine.complete(["x"], max_tokens=4)[0].text == ""
    assert engine.facts()["notes"]["empty completions"] == 1
    endpoint.offers = EVERYTHING - {"completions"}
    endpoint.change = lambda a: {**a, "choices": [{"message": {"content": None}}]}
    assert opened(labels="none").complete(["x"], max_tokens=4)[0].text == ""


def test_requests_run_side_by_side_up_to_the_concurrency(
    endpoint: Endpoint, opened: Opened
) -> None:
    def slow(prompt: str) -> str:
        time.sleep(0.05)
        return " done"

    endpoint.mind = Words(slow)
    engine = opened(concurrency=4)
    made = engine.complete([f"p{n}" for n in range(12)], max_tokens=3)
    assert len(made) == 12
    assert endpoint.most_busy == 4


def test_usage_is_the_endpoints_own_and_priced(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened(price_in=2.0, price_out=10.0, price_cached=0.5)
    before = engine.usage()
    assert before.calls == 0  # probes are not work
    endpoint.change = lambda a: {
        **a,
        "usage": {"prompt_tokens": 100, "completion_tokens": 7,
                  "prompt_tokens_details": {"cached_tokens": 60}},
    }  # fmt: skip
    engine.complete(["one two three"], max_tokens=9)
    used = engine.usage().since(before)
    assert (used.calls, used.prompt_tokens, used.prefilled_tokens) == (1, 100, 40)
    assert used.generated_tokens == 7
    assert used.cost == pytest.approx((40 * 2 + 60 * 0.5 + 7 * 10) / 1e6)
    assert used.seconds > 0


def test_answers_without_usage_are_counted_here_and_told(
    endpoint: Endpoint, opened: Opened
) -> None:
    endpoint.offers = EVERYTHING - {"usage", "tokenize"}
    engine = opened()
    assert engine.complete(["one two three"], max_tokens=9)[0].tokens == estimate(" said of it")
    facts = engine.facts()
    assert facts["notes"]["answers without usage, counted here"] == 1
    assert "estimate" in facts["tokens_counted_by"]
    assert engine.usage().prompt_tokens == estimate("one two three")
    assert engine.usage().generated_tokens == estimate(" said of it")
    list(engine.stream("one two three", max_tokens=9))
    assert engine.usage().generated_tokens == 2 * estimate(" said of it")
    before = engine.usage()
    engine.choice_logprobs(["Q: x\nA:"], [" yes"])
    assert engine.usage().since(before).generated_tokens == 1  # the one token asked for
    endpoint.change = lambda a: {**a, "usage": {"prompt_tokens": 77}}
    before = engine.usage()
    engine.complete(["one two three"], max_tokens=9)
    assert engine.usage().since(before).prompt_tokens == 77


def test_a_refused_stream_costs_nothing_and_names_its_prompt(
    endpoint: Endpoint, opened: Opened
) -> None:
    engine = opened(price_in=1.0)
    with pytest.raises(PromptError, match="it does not fit the context of tiny") as caught:
        list(engine.stream("word " * 300, max_tokens=2))
    assert caught.value.index == 0
    assert (engine.usage().calls, engine.usage().cost) == (0, 0.0)


def test_work_of_several_threads_adds_up(endpoint: Endpoint, opened: Opened) -> None:
    link = opened()._link
    given = link.given(0, "x", 1)
    turns, before = 2000, sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        jobs = [lambda: link.count({}, given, 1), lambda: link.took(1.0)] * 3
        threads = [
            threading.Thread(target=lambda job=job: [job() for _ in range(turns)]) for job in jobs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert (link.usage.calls, link.usage.seconds) == (3 * turns, 3.0 * turns)


def test_the_endpoint_counts_tokens_where_it_can(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    assert engine.count_tokens("one two three") == 3
    assert engine.count_tokens("one two three") == 3
    assert [path for path, _ in endpoint.asked] == ["/tokenize"]  # the second is remembered


def test_stream_gives_the_text_of_complete(endpoint: Endpoint, opened: Opened) -> None:
    endpoint.mind = Words(lambda prompt: " a rather long answer\n\nand more")
    for offers in (EVERYTHING, EVERYTHING - {"completions"}):
        endpoint.offers = offers
        engine = opened(labels="none")
        pieces = list(engine.stream("say", max_tokens=20))
        assert len(pieces) > 3
        assert "".join(pieces) == engine.complete(["say"], max_tokens=20)[0].text
        assert engine.usage().calls == 2
        assert engine.usage().generated_tokens == 2 * 6


def test_stream_holds_back_what_may_be_a_stop_string(endpoint: Endpoint, opened: Opened) -> None:
    endpoint.mind.write = lambda ids, limit, stop: (" yes, and\n\nnever this", 5, "stop")
    pieces = list(opened().stream("say", max_tokens=20, stop=["\n\n"]))
    assert "".join(pieces) == " yes, and"


def test_streamed_events_of_another_shape(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    for choices in (["text"], {"text": "x"}, 7):
        endpoint.faults = [torn_stream({"choices": choices})]
        with pytest.raises(UserError, match="a streamed event has no choices"):
            list(engine.stream("x", max_tokens=9))
    end = {"text": "", "finish_reason": "stop"}
    endpoint.faults = [torn_stream({"choices": [{"text": 7}]}, {"choices": [end]})]
    assert list(engine.stream("x", max_tokens=9)) == []


def test_facts_and_errors_never_hold_the_key(
    endpoint: Endpoint, opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    secret = "sk-very-secret-1234"
    monkeypatch.setenv("MY_KEY", secret)
    endpoint.key = secret
    engine = opened(api_key_env="MY_KEY", cache=str(tmp_path))
    engine.complete(["x"], max_tokens=2)
    told = json.dumps(engine.facts()) + repr(engine.settings) + repr(engine.offer)
    told += "".join(file.read_text() for file in tmp_path.rglob("*.json"))
    assert secret not in told
    endpoint.faults = [status(400, f"the key {secret} may not do that")]
    with pytest.raises(PromptError, match=r"the key \*\*\* may not") as caught:
        engine.complete(["y"], max_tokens=2)
    assert secret not in str(caught.value)


def test_an_engine_works_from_several_threads(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = engine.complete([f"thread {number}"], max_tokens=3)[0].text

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found.values()) == {" said of it"}
    assert engine.usage().calls == 5


def test_under_a_running_event_loop(endpoint: Endpoint, opened: Opened) -> None:

    async def notebook() -> str:
        return opened().complete(["x"], max_tokens=3)[0].text

    assert asyncio.run(notebook()) == " said of it"


def test_closing_ends_the_thread(endpoint: Endpoint, opened: Opened) -> None:
    engine = opened()
    thread = engine._link.loop._thread
    engine.close()
    assert not thread.is_alive()
    engine.close()  # a second time does nothing


def test_an_engine_that_is_forgotten_ends_its_thread(endpoint: Endpoint) -> None:
    engine = HttpEngine(HttpSettings(endpoint.address))
    thread = engine._link.loop._thread
    engine.complete(["x"], max_tokens=2)
    del engine
    gc.collect()
    thread.join(timeout=2)
    assert not thread.is_alive()


def test_a_loop_may_be_closed_from_its_own_thread() -> None:
    loop = Loop()

    async def forget() -> None:
        loop.close()

    asyncio.run_coroutine_threadsafe(forget(), loop._loop)
    loop._thread.join(timeout=2)
    assert not loop._thread.is_alive()
