"""Label log-probabilities by each way an endpoint may offer, against what the local engine says."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint import EVERYTHING, Endpoint, TinyModel, running
from medexpert.engines.base import PromptError
from medexpert.engines.http import HttpEngine, HttpSettings
from medexpert.engines.http.answers import Token, behind, by_first_token, first_top, tokens_of
from medexpert.engines.tokenizer import Tokenizer

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
Opened = Callable[..., HttpEngine]
PROMPTS = ["Question: is it so?\nAnswer:", "是否有效？\nAnswer:", "x"]
CHOICES = [" yes", " no", " maybe"]


@pytest.fixture
def tokenizer(engine: Any, tmp_path: Path) -> Tokenizer:
    engine.tokenizer.save_pretrained(tmp_path / "tiny")
    return Tokenizer(tmp_path / "tiny")


@pytest.fixture
def served(engine: Any, tokenizer: Tokenizer) -> Iterator[Callable[..., HttpEngine]]:
    """served(offers, with_tokenizer=..., labels=...) -> the tiny model over HTTP."""
    with contextlib.ExitStack() as stack:

        def make(offers: frozenset[str], *, own: bool = True, **settings: Any) -> HttpEngine:
            state = stack.enter_context(running(Endpoint(TinyModel(engine), offers)))
            made = HttpEngine(
                HttpSettings(state.address, "tiny", **settings), tokenizer if own else None
            )
            stack.callback(made.close)
            return made

        yield make


def close_to(rows: list[list[float]], expected: list[list[float]]) -> bool:
    return all(
        math.isclose(a, b, abs_tol=1e-4)
        for row, right in zip(rows, expected, strict=True)
        for a, b in zip(row, right, strict=True)
    )


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("way", ["echo", "prompt_logprobs"])
def test_echoed_labels_are_those_of_the_local_engine(
    served: Any, engine: Any, way: str, ids: bool, own: bool
) -> None:
    # Without our own tokens the Chinese prompt is cut within characters, so tokens are counted.
    offers = EVERYTHING if ids else EVERYTHING - {"ids"}
    asked = served(offers, own=own, labels=way)
    assert (asked.offer.labels, asked.offer.ids) == (way, ids and own)
    rows = asked.choice_logprobs(PROMPTS, CHOICES)
    assert close_to(rows, engine.choice_logprobs(PROMPTS, CHOICES))


def test_forced_labels_are_those_of_the_local_engine(served: Any, engine: Any) -> None:
    asked = served(EVERYTHING, labels="forced")
    rows = asked.choice_logprobs(PROMPTS, CHOICES)
    assert close_to(rows, engine.choice_logprobs(PROMPTS, CHOICES))


def test_texts_score_as_in_the_local_engine(served: Any, engine: Any) -> None:
    texts = ["some text", "是", "", "a longer text " * 10]
    found, right = served(EVERYTHING).text_logprobs(texts), engine.text_logprobs(texts)
    assert [(s.tokens, s.bytes) for s in found] == [(s.tokens, s.bytes) for s in right]
    assert [s.logprob for s in found] == pytest.approx([s.logprob for s in right], abs=1e-3)


def test_tokens_score_as_in_the_local_engine(served: Any, engine: Any) -> None:
    texts = ["some text", "", "a longer text " * 10]
    for way in ("echo", "prompt_logprobs"):
        found = served(EVERYTHING, labels=way).token_logprobs(texts)
        assert found[1] == []
        assert close_to(found, engine.token_logprobs(texts))


def test_greedy_text_is_that_of_the_local_engine(served: Any, engine: Any) -> None:
    asked = served(EVERYTHING)
    assert asked.complete(PROMPTS, max_tokens=12) == engine.complete(PROMPTS, max_tokens=12)


def test_forced_labels_are_asked_token_by_token(served: Any, engine: Any) -> None:
    asked = served(EVERYTHING, labels="forced")
    before = asked.usage()
    asked.choice_logprobs(["Q: a\nA:"], [" yes", " maybe"])
    assert asked.usage().since(before).calls == 1 + len(engine.tokenizer(" maybe")["input_ids"])


def test_auto_takes_the_first_that_is_offered(
    served: Any, endpoint: Endpoint, opened: Opened
) -> None:
    order = ["forced", "echo", "prompt_logprobs", "top"]
    for number, way in enumerate([*order, "none"]):
        # A tiny model has no likeliest tokens to tell.
        wanted = "none" if way == "top" else way
        assert served(EVERYTHING - set(order[:number])).offer.labels == wanted
    for number, way in enumerate([*order[1:], "none"]):  # without a tokenizer
        endpoint.offers = EVERYTHING - set(order[1:][:number])
        assert opened().offer.labels == way
    endpoint.offers = EVERYTHING - {"completions"}
    assert opened().offer.labels == "top"


def test_a_server_that_forgets_the_models_own_probabilities_is_not_believed(
    engine: Any, tokenizer: Tokenizer
) -> None:
    def after_forcing(answer: dict[str, Any]) -> Any:
        for told in [answer["choices"][0].get("logprobs")]:
            if told and len(told["token_logprobs"]) == 1:
                told["token_logprobs"] = [-1e-6]
        return answer

    with running(Endpoint(TinyModel(engine), change=after_forcing)) as state:
        asked = HttpEngine(HttpSettings(state.address, "tiny"), tokenizer)
        assert asked.offer.labels == "echo"
        assert asked.offer.tried["forced"] == "log-probabilities are those after forcing"
        asked.close()


def test_the_choice_way_decides_and_is_never_taken_by_itself(
    endpoint: Endpoint, opened: Opened
) -> None:
    endpoint.offers = EVERYTHING - {"completions"}
    engine = opened(labels="choice")
    assert engine.choice_logprobs(["Q"], [" yes", " no"]) == [[0.0, -math.inf]]
    (body,) = endpoint.posts()
    assert body["structured_outputs"] == {"choice": ["yes", "no"]}
    endpoint.change = lambda a: {**a, "choices": [{"message": {"content": "perhaps"}}]}
    with pytest.raises(PromptError, match="answered 'perhaps', which is none of the choices"):
        engine.choice_logprobs(["Q"], [" yes", " no"])


def test_top_tokens_of_a_chat(endpoint: Endpoint, opened: Opened) -> None:
    endpoint.offers = frozenset({"chat", "top", "usage"})
    engine = opened(top_logprobs=4)
    ((yes, no, maybe),) = engine.choice_logprobs(["Q"], [" yes", " no", " maybe"])
    assert yes == pytest.approx(math.log(math.exp(-0.4) + math.exp(-2.0)))
    assert (no, maybe) == pytest.approx((-1.5, -3.0))
    ((_, absent),) = engine.choice_logprobs(["Q"], ["yes", "never"])
    assert absent == -math.inf
    assert engine.facts()["notes"]["choices not among the top tokens"] == 1
    with pytest.raises(PromptError, match="none of the choices is among the 4 most likely"):
        engine.choice_logprobs(["Q"], ["never", "always"])


def test_a_prompt_whose_end_joins_the_choice(served: Any) -> None:
    for own in (True, False):
        way = "forced" if own else "echo"
        with pytest.raises(PromptError, match="the tokenizer joins the prompt's end") as caught:
            served(EVERYTHING, own=own, labels=way).choice_logprobs(["ok:", "is it y"], ["es"])
        assert caught.value.index == 1


def test_another_models_tokenizer_is_noticed(endpoint: Endpoint, tokenizer: Tokenizer) -> None:
    with pytest.raises(Exception, match="it is another model's"):
        HttpEngine(HttpSettings(endpoint.address, "tiny", tokenizer="wrong"), tokenizer)


def test_a_tokenizer_beside_an_endpoint_that_counts_nothing(served: Any, engine: Any) -> None:
    asked = served(EVERYTHING - {"usage"})
    assert "do not tell how many tokens" in asked.facts()["probes"]["token ids"]
    assert (asked.offer.ids, asked.offer.labels) == (False, "echo")
    rows = asked.choice_logprobs(PROMPTS, CHOICES)
    assert close_to(rows, engine.choice_logprobs(PROMPTS, CHOICES))


def test_an_endpoint_that_cuts_prompts_is_noticed(engine: Any, tokenizer: Tokenizer) -> None:
    state = Endpoint(TinyModel(engine), EVERYTHING - {"ids"}, context=0, window=40)
    with running(state):
        asked = HttpEngine(HttpSettings(state.address, "tiny"), tokenizer)
        asked.complete(["short"], max_tokens=2)
        with pytest.raises(PromptError, match="read 40 tokens of a prompt of 60: it cuts prompts"):
            asked.complete(["short", "x" * 60], max_tokens=2)
        with pytest.raises(PromptError, match="read 40 tokens of a prompt of 60: it cuts prompts"):
            list(asked.stream("x" * 60, max_tokens=2))
        asked.close()
        trusting = HttpEngine(HttpSettings(state.address, "tiny", cut_check="off"), tokenizer)
        assert len(trusting.complete(["x" * 60], max_tokens=2)) == 1
        trusting.close()


def test_a_known_context_is_checked_before_anything_is_sent(
    engine: Any, tokenizer: Tokenizer
) -> None:
    state = Endpoint(TinyModel(engine), context=64)
    with running(state):
        asked = HttpEngine(HttpSettings(state.address, "tiny"), tokenizer)
        state.asked.clear()
        with pytest.raises(PromptError, match="60 tokens and 5 to follow do not fit") as caught:
            asked.complete(["short", "x" * 60], max_tokens=5)
        assert (caught.value.index, state.posts()) == (1, [])
        asked.close()


# -- reading answers -------------------------------------------------------------------------------


def test_both_forms_of_log_probabilities_are_read() -> None:
    lists = {"logprobs": {"tokens": ["a", "b"], "token_logprobs": [None, -1],
                          "top_logprobs": [{"a": -0.1, "c": -2}]}}  # fmt: skip
    assert tokens_of(lists) == [Token("a", None), Token("b", -1.0)]
    assert first_top(lists) == {"a": -0.1, "c": -2.0}
    told = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "z", "logprob": -1}]}
    rows = {"logprobs": {"content": [told]}}
    assert tokens_of(rows) == [Token("a", -0.5)]
    assert first_top(rows) == {"z": -1.0}
    odd = [{"content": [{"top_logprobs": tops}]} for tops in (7, ["x"], {"token": "a"})]
    for found in odd:
        assert first_top({"logprobs": found}) == {}
    for bad in ({}, {"logprobs": None}, {"logprobs": {"tokens": ["a"]}}, {"logprobs": []}):
        assert tokens_of(bad) == []
        assert first_top(bad) == {}


@given(st.lists(st.text("ab \n是", min_size=1, max_size=4), min_size=2, max_size=8), st.data())
def test_the_tail_is_found_by_its_text(pieces: list[str], data: Any) -> None:
    cut = data.draw(st.integers(1, len(pieces) - 1))
    prompt, choice = "".join(pieces[:cut]), "".join(pieces[cut:])
    tokens = [Token(piece, -1.0) for piece in pieces]
    written = Token("new", -0.1)
    expected = tokens[cut:]
    assert behind([*tokens, written], prompt, choice) == expected
    assert behind([Token("<s>", None), *tokens, written], prompt, choice) == expected
    joined = [*tokens[: cut - 1], Token(pieces[cut - 1] + pieces[cut], -1.0), *tokens[cut + 1 :]]
    assert behind(joined, prompt, choice) == []
    assert behind([Token("�", -1.0), *tokens[1:]], prompt, choice) is None


def test_first_tokens_of_choices_that_share_a_beginning() -> None:
    log = math.log
    top = {"no": log(0.4), " not": log(0.2), "n": log(0.1), "None": log(0.05), "a": log(0.01)}
    found = by_first_token(top, ["no", "not sure"])
    assert [math.exp(value) for value in found] == pytest.approx([0.4, 0.2])
    # A letter is not found in the article "a".
    assert by_first_token({" A": log(0.3), " a": log(0.5)}, ["A", "B"]) == [
        pytest.approx(log(0.3)), -math.inf,
    ]  # fmt: skip
    assert by_first_token({"Yes": log(0.5)}, ["yes", "no"])[0] == pytest.approx(log(0.5))


@given(
    st.dictionaries(st.text("abAB ", max_size=3), st.floats(-30, 0), max_size=8),
    st.lists(st.text("abAB", min_size=1, max_size=3), min_size=1, max_size=4, unique=True),
)
def test_shares_of_first_tokens_never_exceed_what_was_told(
    top: dict[str, float], choices: list[str]
) -> None:
    shares = [math.exp(value) for value in by_first_token(top, choices)]
    assert sum(shares) <= sum(math.exp(value) for value in top.values()) + 1e-9


def test_facts_are_json(endpoint: Endpoint, opened: Opened) -> None:
    facts = json.loads(json.dumps(opened().facts()))
    assert facts["server"] == "vllm 0.1.test"
    assert facts["probes"]["echo"] == "offered"
    assert facts["probes"]["forced"].startswith("needs a tokenizer")
    assert (facts["api"], facts["context"]) == ("completions", 256)
