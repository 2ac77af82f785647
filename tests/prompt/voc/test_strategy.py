"""Verification-of-Choice with a scripted engine: transcripts, filters, decision, languages."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt import STRATEGIES
from medexpert.prompt.template import ChatFormat
from medexpert.prompt.voc import Voc, fault
from medexpert.records import Question, UserError
from voc_prompts import DIRECT, ORDERS, REASONS, hypothesise, ptrue, scripted, verify

REQUIRED = "reasoning-required"


def test_transcript(walking: Question) -> None:
    engine = scripted()
    (found,) = Voc(permutations="cyclic").predict([walking], engine, protocol=REQUIRED, seed=5)
    first, second = engine.calls
    assert first.prompts == tuple(hypothesise(c) for c in walking.choices)
    assert first.settings == {
        "max_tokens": 128, "stop": ("\n\n",), "temperature": 0.0, "top_p": 1.0, "seed": 5,
    }  # fmt: skip
    assert second.prompts == tuple(verify(order) for order in ORDERS)
    assert second.choices == (" yes", " no", " maybe")
    products = [0.6 * 0.2 * 0.8, 0.3 * 0.7 * 0.1, 0.1**3]
    shares = [p ** (1 / 3) for p in products]
    assert list(found.probabilities.values()) == pytest.approx([s / sum(shares) for s in shares])
    assert found.choice == "yes"
    trace = found.trace
    assert trace["flip_rate"] == pytest.approx(1 / 3)
    assert [row["order"] for row in trace["verify"]] == list(ORDERS)
    assert {c: r["text"] for c, r in trace["rationales"].items()} == REASONS
    assert {c: r["fault"] for c, r in trace["rationales"].items()} == {
        "yes": "", "no": "", "maybe": "names_another_choice",
    }  # fmt: skip
    assert all(r["shown"] for r in trace["rationales"].values())  # the last one always stays
    generated = sum(len(text.split()) for text in REASONS.values())
    words = sum(len(p.split()) for call in engine.calls for p in call.prompts)
    assert trace["tokens"] == {"prompt": words, "generated": generated}
    assert trace["calls"] == 6
    assert [name.split("@")[0] for name in trace["templates"]] == ["voc.hypothesise", "voc.verify"]
    assert "verdict" not in trace
    assert "parse" not in trace


def test_likelihood_mixes_three_equally(walking: Question) -> None:
    engine = scripted()
    (found,) = STRATEGIES["voc-likelihood"].predict([walking], engine, protocol=REQUIRED, seed=0)
    asked = [(call.kind, call.prompts, call.choices) for call in engine.calls]
    assert asked[0] == ("choice_logprobs", (DIRECT,), (" yes", " no", " maybe"))
    assert asked[3] == (
        "choice_logprobs", tuple(map(ptrue, walking.choices)), (" yes", " no"),
    )  # fmt: skip
    features = found.trace["features"]
    assert set(features) == set(found.trace["weights"]) == {"ptrue", "verify", "direct"}
    odds = {c: math.exp(features["ptrue"][c] - features["ptrue"]["no"]) for c in walking.choices}
    assert odds == pytest.approx({"yes": math.e, "no": 1.0, "maybe": math.exp(-2)})
    mixed = {c: math.exp(sum(f[c] for f in features.values()) / 3) for c in walking.choices}
    total = sum(mixed.values())
    assert found.probabilities == pytest.approx({c: v / total for c, v in mixed.items()})


def test_weights_are_the_mixture(walking: Question) -> None:
    only = Voc(mode="likelihood", w_ptrue=0.0, w_verify=0.0, w_direct=2.0)
    (found,) = only.predict([walking], scripted(), protocol=REQUIRED, seed=0)
    raised = [math.exp(2 * value) for value in (-2.0, -1.0, -9.0)]
    assert list(found.probabilities.values()) == pytest.approx([r / sum(raised) for r in raised])


def test_ptrue_alone_asks_no_verify_pass(walking: Question) -> None:
    engine = scripted()
    (found,) = Voc(mode="ptrue").predict([walking], engine, protocol=REQUIRED, seed=0)
    assert [call.prompts[0] for call in engine.calls] == [hypothesise("yes"), ptrue("yes")]
    assert found.choice == "yes"
    assert found.probabilities["yes"] / found.probabilities["no"] == pytest.approx(math.e)
    assert "flip_rate" not in found.trace


def test_letters_where_choices_are_no_verdict_words(walking: Question) -> None:
    engine = ScriptedEngine(
        lambda p: "Eight words or more are needed for this one.",
        lambda p, cs: [-float(n) for n, _ in enumerate(cs)],
    )
    asked = replace(walking, choices=("a drug", "no drug", "rest", "diet", "both"))
    (found,) = Voc(permutations="cyclic").predict([asked], engine, protocol=REQUIRED, seed=0)
    opening = (
        "Context: Half of 90 adults walked.\nWalkers improved.\nQuestion: Does walking help?\n"
        "A. a drug\nB. no drug\nC. rest\nD. diet\nE. both\n"
    )
    assert engine.calls[0].prompts[1] == (
        f"{opening}Suppose that the answer below is correct. Using only facts stated in the"
        " context, explain in 2-4 sentences which findings support it.\nAnswer: B. no drug\n"
        "Explanation:"
    )
    assert engine.calls[1].choices == (" A", " B", " C", " D", " E")
    assert "\n[B] Eight words" in engine.calls[1].prompts[0]
    assert len(engine.calls[1].prompts) == 5
    assert found.choice == "a drug"
    assert found.trace["labels"]["both"] == "E"
    assert set(found.probabilities) == set(asked.choices)


def test_batches_stream_in_order(walking: Question, chinese: Question) -> None:
    engine = ScriptedEngine(lambda p: "some text", lambda p, cs: [-1.0, -2.0, -3.0])
    asked = [replace(q, id=str(n)) for n, q in enumerate([walking, chinese, walking])]
    stream = Voc(batch=2).predict(asked, engine, protocol=REQUIRED, seed=0)
    assert next(stream).id == "0"
    assert len(engine.calls[0].prompts) == 6
    assert [p.id for p in stream] == ["1", "2"]


def test_chinese_question_gets_chinese_prompts_and_labels(chinese: Question) -> None:
    engine = ScriptedEngine(lambda p: "答案是否。", lambda p, cs: [-1.0, -2.0, -3.0][: len(cs)])
    voc = Voc(contradictions=True, mode="likelihood")
    (found,) = voc.predict([chinese], engine, protocol=REQUIRED, seed=0)
    direct, generation, scoring, true, against = engine.calls
    assert direct.prompts == ("摘要：步行者好转。\n问题：步行有用吗？\n答案：",)
    assert "选项：是 / 否 / 不确定。\n假设下面的答案正确。" in generation.prompts[0]
    assert "答案：不确定（证据不足" in generation.prompts[2]
    assert scoring.choices == ("是", "否", "不确定")
    assert true.choices == ("是", "否")
    assert "[否] 答案是否。" in scoring.prompts[0]
    assert not any(word in p for c in engine.calls for p in c.prompts for word in ("yes", "maybe"))
    assert found.trace["rationales"]["yes"]["fault"] == "names_another_choice"
    assert found.trace["rationales"]["no"]["fault"] == "too_short"
    assert found.trace["against"]["no"] == "答案是否。"
    assert len(against.prompts) == 3


def test_all_prompts_of_a_question_begin_alike(walking: Question, smollm2: ChatFormat) -> None:
    """The context, the question and the choices: the part that an engine may encode once."""
    for chat, before in (
        (ChatFormat(""), ""),
        (smollm2, smollm2.template.split("'")[5].replace("\\n", "\n")),
    ):
        engine = ScriptedEngine(
            lambda p: "Eight words or more are needed for this one.",
            lambda p, cs: [-float(n) for n, _ in enumerate(cs)],
            chat=chat,
        )
        voc = Voc(mode="likelihood", contradictions=True, verdict="scored")
        lettered = replace(walking, choices=("one", "two", "three"))
        for question in (walking, lettered):
            engine.calls.clear()
            list(voc.predict([question], engine, protocol=REQUIRED, seed=0))
            list(Voc(verdict="generated").predict([question], engine, protocol=REQUIRED, seed=0))
            prompts = [p for call in engine.calls for p in call.prompts]
            shared = prompts[1][: prompts[1].index("Suppose that")]
            assert before in shared
            listed = "A. one\nB. two\nC. three\n" if question is lettered else "yes / no / maybe.\n"
            assert shared.endswith(listed)
            others = [p for p in prompts if p is not prompts[0]]
            assert all(p.startswith(shared) for p in others)
            if not chat.template:  # direct is the same plain text whatever the model
                assert prompts[0].startswith(shared.partition("Choices:")[0])


def test_a_chat_model_is_asked_in_its_chat_and_opens_the_verdict(
    walking: Question, smollm2: ChatFormat
) -> None:
    engine = ScriptedEngine(lambda p: "text", lambda p, cs: [-1.0, -2.0, -3.0], chat=smollm2)
    list(Voc().predict([walking], engine, protocol=REQUIRED, seed=0))
    assert all(p.endswith("<|im_start|>assistant\n") for p in engine.calls[0].prompts)
    end = "explanation remains.<|im_end|>\n<|im_start|>assistant\nFinal answer:"
    assert all(p.endswith(end) for p in engine.calls[1].prompts)
    engine.calls.clear()
    list(Voc(form="plain").predict([walking], engine, protocol=REQUIRED, seed=0))
    assert engine.calls[0].prompts[0] == hypothesise("yes")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Walking helped the adults who walked, as the abstract plainly says.", ""),
        ("It helps. The answer is no. Walkers did not improve in any of the groups.",
         "names_another_choice"),
        ("Walkers improved.", "too_short"),
        ("they did improve a lot " * 5, "repeats_itself"),
        ("步行者 的 情况 都 有所 好转， 其他人 没有 任何 变化。", "wrong_language"),
        ("", "too_short"),
    ],
)  # fmt: skip
def test_faults_of_rationales(walking: Question, text: str, reason: str) -> None:
    assert fault(text, "yes", walking, len(text.split())) == reason


def test_english_in_answer_to_a_chinese_question_is_a_fault(chinese: Question) -> None:
    text = "The walkers improved while all of the others did not."
    assert fault(text, "yes", chinese, 10) == "wrong_language"
    assert fault("每天 30 min 步行使 HbA1c 下降，步行者好转明显。", "yes", chinese, 10) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "verfy"}, "unknown mode of voc 'verfy'.*did you mean 'verify'"),
        ({"verdict": "parsed"}, "unknown verdict of voc 'parsed'; allowed: generated, scored"),
        ({"permutations": "3"}, "unknown permutations of voc '3'; allowed: 1, all, cyclic"),
        ({"control": "shuffle"}, "unknown control of voc 'shuffle'.*did you mean 'shuffled'"),
        ({"form": "chats"}, "unknown form of voc"),
        ({"pick": "knn"}, "unknown pick of voc 'knn'; allowed: fixed, nearest"),
        ({"k": 0}, "option k of voc: 0; allowed: 1 or more"),
        ({"shots": -1}, "option shots of voc: -1"),
        ({"w_direct": math.nan}, "weights .* of voc; allowed: finite numbers, not all 0"),
        ({"w_ptrue": 0.0, "w_verify": 0.0, "w_direct": 0.0}, "weights"),
        ({"verdict": "generated", "mode": "ptrue"}, "verdict=generated of voc; allowed: mode=ver"),
        ({"verdict": "generated", "pmi": True}, "verdict=generated of voc; allowed: mode=verify"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(Voc(), **options)  # type: ignore[arg-type]
