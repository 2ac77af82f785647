"""The renderer: what is learned, what is given, and that both are the tokenizer's own text."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.prompt import template
from medexpert.prompt.template import (
    ChatFormat,
    Segment,
    names,
    render,
    render_chat,
    render_choices,
    render_prompt,
    render_request,
    template_id,
)
from medexpert.records import Question, UserError

NONE = ChatFormat("", "", "</s>")
FIELDS: dict[str, Any] = {
    "question": "Is it?", "answer": "yes", "rationale": "Because.", "contexts": ["One.", "Two."],
    "long_answer": "It is.", "evidence": "One.", "options": {"A": "alpha", "B": "beta"},
    "answer_idx": "B", "explanation": "Beta fits.", "choices": ["yes", "no"], "choice": "B",
    "check": "A says too much.",
    "rationales": [("yes", "r1"), ("no", "r2")], "reasonings": ["One.", "Two."], "before": "So",
    "conclusion": "yes",
    "subject": "anatomy", "references": ["It is."], "answer_given": "It was.",
    "messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "See you"},
    ],
}  # fmt: skip
LEARNED = [n for n in names() if n != "voc.contradict"]


def joined(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def learned(segments: list[Segment]) -> list[str]:
    return [segment.text for segment in segments if segment.learn]


def test_pubmedqa_prompt_is_lm_evals_byte_for_byte(walking: Question) -> None:
    fields = {"question": walking.question, "contexts": walking.contexts}
    expected = (
        "Abstract: Half of 90 adults walked.\nWalkers improved.\n"
        "Question: Does walking help?\nAnswer:"
    )
    assert render_prompt("pubmedqa.lm_eval", fields, chat=NONE) == expected
    assert render_choices("pubmedqa.lm_eval", walking.choices) == [" yes", " no", " maybe"]
    segments = render("pubmedqa.lm_eval", {**fields, "answer": "yes"}, chat=NONE)
    assert segments == [Segment(expected, False), Segment(" yes</s>", True)]


def test_pubmedqa_variants() -> None:
    assert render_prompt("pubmedqa.question_only", FIELDS, chat=NONE) == "Question: Is it?\nAnswer:"
    assert render_prompt("pubmedqa.reasoning_free", FIELDS, chat=NONE) == (
        "Abstract: It is.\nQuestion: Is it?\nAnswer:"
    )


def test_chinese_labels_are_the_templates_own() -> None:
    assert render_choices("pubmedqa.lm_eval", ("yes", "no", "maybe"), lang="zh") == [
        "是", "否", "不确定",
    ]  # fmt: skip
    assert learned(render("pubmedqa.lm_eval", FIELDS, chat=NONE, lang="zh")) == ["是</s>"]
    assert "So the answer is yes." in joined(render("chat.reasoning", FIELDS, chat=NONE))
    assert "答案是yes" in joined(render("chat.reasoning", FIELDS, chat=NONE, lang="zh"))


@pytest.mark.parametrize("lang", template.LANGUAGES)
@pytest.mark.parametrize("name", LEARNED)
def test_evaluated_prompt_is_what_stands_before_the_learned_text(
    name: str, lang: str, smollm2: ChatFormat
) -> None:
    for chat in (NONE, smollm2):
        segments = render(name, FIELDS, chat=chat, lang=lang)
        assert any(segment.learn for segment in segments)
        assert all(segment.text for segment in segments)
        if name != "chat.conversation":
            assert segments[0] == Segment(render_prompt(name, FIELDS, chat=chat, lang=lang), False)
            assert chat.eos in segments[1].text


def test_chat_learns_answer_and_end_of_turn_only(smollm2: ChatFormat) -> None:
    segments = render("chat.qa", FIELDS, chat=smollm2)
    assert learned(segments) == ["yes<|im_end|>"]
    assert segments[-1] == Segment("\n", False)
    assert segments[0].text.endswith("<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n")


def test_every_assistant_turn_is_learned(smollm2: ChatFormat) -> None:
    segments = render("chat.conversation", FIELDS, chat=smollm2)
    assert learned(segments) == ["Hello<|im_end|>", "See you<|im_end|>"]


def test_multiple_choice_forms(smollm2: ChatFormat) -> None:
    label = render("chat.mcq_label", FIELDS, chat=smollm2)
    assert "Is it?\nA. alpha\nB. beta<|im_end|>" in joined(label)
    assert learned(label) == ["B<|im_end|>"]
    reason = render("chat.mcq_reason", FIELDS, chat=smollm2)
    assert learned(reason) == ["Beta fits.\n\nSo the answer is B. beta<|im_end|>"]


def test_plain_format_without_chat_template() -> None:
    segments = render("chat.qa", FIELDS, chat=NONE)
    assert segments == [
        Segment("### Question\nIs it?\n\n### Answer\n", False),
        Segment("yes</s>", True),
        Segment("\n\n", False),
    ]


@cache
def reference(chat: ChatFormat) -> Any:
    """A transformers tokenizer with this chat template; its vocabulary plays no part."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE({"a": 0}, []))
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=chat.bos, eos_token=chat.eos)
    made.chat_template = chat.template
    return made


message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]),
        "content": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    }
)


@settings(max_examples=150, deadline=None)
@given(messages=st.lists(message, min_size=1, max_size=6))
def test_segments_are_the_tokenizers_own_chat_text(
    smollm2: ChatFormat, messages: list[dict[str, str]]
) -> None:
    tokenizer = reference(smollm2)
    chat = smollm2
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert render_chat(messages, chat, reply=False) == whole
    assert render_chat(messages, chat, reply=True) == tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    turns = [m["content"] for m in messages if m["role"] == "assistant"]
    if not turns:
        with pytest.raises(UserError, match="has nothing to learn"):
            render("chat.conversation", {"messages": messages}, chat=chat)
        return
    if messages[0]["role"] == "assistant":
        with pytest.raises(UserError, match="opens with an assistant turn; allowed: user or"):
            render("chat.conversation", {"messages": messages}, chat=chat)
        return
    segments = render("chat.conversation", {"messages": messages}, chat=chat)
    assert joined(segments) == whole
    assert learned(segments) == [f"{turn}<|im_end|>" for turn in turns]


def test_template_that_trims_and_one_without_end_mark() -> None:
    trims = ChatFormat(
        "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}", "", "</s>",
    )  # fmt: skip
    turns = [{"role": "user", "content": " q "}, {"role": "assistant", "content": " a "}]
    assert learned(render("chat.conversation", {"messages": turns}, chat=trims)) == ["a</s>"]
    bare = trims._replace(template=trims.template.replace("{{ eos_token }}", ""))
    assert learned(render("chat.conversation", {"messages": turns}, chat=bare)) == ["a</s>"]


def test_generation_blocks_and_loop_controls_are_understood() -> None:
    chat = ChatFormat(
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}<{{ m.content }}>{% endgeneration %}{% endfor %}"
        "{% if add_generation_prompt %}{% endif %}"
    )
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert render_chat(turns, chat, reply=True) == "<q>"


def test_request_for_free_text_follows_the_chat_format(smollm2: ChatFormat) -> None:
    plain = render_request("voc.hypothesise", FIELDS, chat=NONE)
    assert plain.endswith("which findings support it.\nAnswer: B. beta\nExplanation:")
    chat = render_request("voc.hypothesise", FIELDS, chat=smollm2)
    assert chat.endswith(
        "which findings support it.\nAnswer: B. beta<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.CUE not in plain + chat


def test_user_text_is_never_read_as_a_template() -> None:
    fields = {"question": "{{ 1 + 1 }} [[learn]] {% if %}", "answer": "{{ answer }}"}
    text = joined(render("chat.qa", fields, chat=NONE))
    assert "{{ 1 + 1 }} [[learn]] {% if %}" in text
    assert "{{ answer }}</s>" in text


def test_ids_tell_name_and_text() -> None:
    assert re.fullmatch(r"pubmedqa\.lm_eval@[0-9a-f]{8}", template_id("pubmedqa.lm_eval"))
    assert template_id("pubmedqa.lm_eval") != template_id("pubmedqa.lm_eval", "zh")
    assert template.lookup("voc.verify").version == 2


@pytest.mark.parametrize(
    ("name", "fields", "lang", "error"),
    [
        ("chat.qq", FIELDS, "en", r"unknown template 'chat.qq'.*did you mean 'chat.qa'"),
        ("pubmedqa.lm_eval", FIELDS, "fr", "has no 'fr' version; allowed: en, zh"),
        ("chat.qa", {"answer": "a"}, "en", "template 'chat.qa': 'question' is undefined"),
        ("chat.qa", {"question": None, "answer": "a"}, "en", "'chat.qa': a field is null"),
        ("chat.mcq_reason", {**FIELDS, "answer_idx": "Z"}, "en", "chat.mcq_reason.*'Z'"),
        ("pubmedqa.lm_eval", {**FIELDS, "contexts": "One."}, "en", "a text, not a list of texts"),
        ("chat.conversation", {"messages": []}, "en", "not a list with a message in it"),
        ("chat.conversation", {"messages": ["x"]}, "en", "message 1 is not an object"),
        ("chat.conversation", {"messages": [{"role": "bot"}]}, "en",
         "message 1 has role 'bot'; allowed: user, assistant, system"),
        ("chat.conversation", {"messages": [{"role": "user"}]}, "en", "no text as 'content'"),
    ],
)  # fmt: skip
def test_faults_are_named(name: str, fields: dict[str, Any], lang: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        render(name, fields, chat=NONE, lang=lang)


def test_chat_templates_that_fail_or_rewrite_are_refused() -> None:
    turns = {"messages": FIELDS["messages"]}
    refuses = ChatFormat("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UserError, match="chat template fails: roles must alternate"):
        render("chat.conversation", turns, chat=refuses)
    last_only = ChatFormat(
        "{% for m in messages %}{% if loop.last %}[{{ m.content }}]{% endif %}{% endfor %}"
    )
    with pytest.raises(UserError, match="changes earlier text when assistant turn 2 is added"):
        render("chat.conversation", turns, chat=last_only)
    broken = ChatFormat("{% for m in messages %}")
    with pytest.raises(UserError, match="chat template fails"):
        render("chat.qa", FIELDS, chat=broken)
