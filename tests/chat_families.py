"""Chat formats of model families and tiny tokenizers with their special tokens, for tests.

The templates are written here, in the models' published formats, without tools. A tokenizer has the
256 bytes and a token for every word of the cases; it is made without training, so that its tokens
depend on nothing but this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "SYSTEM<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
).replace("SYSTEM", "You are a helpful AI assistant named SmolLM, trained by Hugging Face")
LLAMA3 = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
QWEN3 = """\
{%- set last = namespace(user=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set said = m.content.split('</think>')[-1].lstrip('\\n') if m.role == 'assistant'
        else m.content %}
    {%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n')
        if '</think>' in m.content else '' %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' and loop.index0 > last.user and (loop.last or thought) %}
        {{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- said + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
GEMMA3 = """\
{{ bos_token }}
{%- set system = messages[0]['content'] + '\\n\\n' if messages[0]['role'] == 'system' else '' %}
{%- for m in (messages[1:] if system else messages) %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}
    {{- (system if loop.first else '') + m['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}"""
GLM4 = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """`start` is what the tokenizer itself puts before a text; `template` "" = no chat template."""

    template: str
    special: tuple[str, ...]
    start: tuple[str, ...] = ()
    bos: str | None = None
    eos: str = ""
    newlines: bool = False
    """Newlines in a row are one word, as in the tokenizers since Llama 3; else as in GPT-2's."""


FAMILIES = {
    "smollm2": Family(
        CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), (), "<|im_start|>", "<|im_end|>"
    ),
    "llama3": Family(
        LLAMA3,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ("<|begin_of_text|>",),
        "<|begin_of_text|>",
        "<|eot_id|>",
        True,
    ),
    "qwen3": Family(
        QWEN3,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
        eos="<|im_end|>",
        newlines=True,
    ),
    "gemma3": Family(
        GEMMA3,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        ("<bos>",),
        "<bos>",
        "<eos>",
        True,
    ),
    "glm4": Family(
        GLM4,
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        ("[gMASK]", "<sop>"),
        eos="<|endoftext|>",
        newlines=True,
    ),
    "plain": Family("", ("<s>", "</s>"), ("<s>",), "<s>", "</s>"),
}

TALK = [
    {"role": "system", "content": "Answer shortly."},
    {"role": "user", "content": "What lowers blood pressure?"},
    {"role": "assistant", "content": "Less salt."},
    {"role": "user", "content": "And\nwhat else?"},
    {"role": "assistant", "content": "Walking. So the answer is walking."},
]
TALK_ZH = [
    {"role": "system", "content": "请简短回答。"},
    {"role": "user", "content": "什么能降低血压？"},
    {"role": "assistant", "content": "少吃盐。"},
    {"role": "user", "content": "还有吗？"},
    {"role": "assistant", "content": "步行。"},
]
THOUGHT = [
    {"role": "user", "content": "Is salt harmful?"},
    {"role": "assistant", "content": "<think>\nSalt holds water.\n</think>\n\nIn excess, yes."},
    {"role": "user", "content": "And water?"},
    {"role": "assistant", "content": "No."},
]
OPTIONS = {"A": "aspirin", "B": "insulin"}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qa": ("chat.qa", "en", {"question": "Does walking help?", "answer": "Yes, it does."}),
    "qa_zh": ("chat.qa", "zh", {"question": "步行有用吗？", "answer": "有用。"}),
    "reasoning": (
        "chat.reasoning",
        "en",
        {"question": "Is it?", "rationale": "Two trials agree.", "answer": "yes"},
    ),
    "reasoning_zh": (
        "chat.reasoning",
        "zh",
        {"question": "是吗？", "rationale": "两项试验一致。", "answer": "是"},
    ),
    "label": (
        "chat.mcq_label",
        "en",
        {"question": "What lowers glucose?", "options": OPTIONS, "answer_idx": "B"},
    ),
    "label_zh": (
        "chat.mcq_label",
        "zh",
        {"question": "什么降低血糖？", "options": {"A": "盐", "B": "胰岛素"}, "answer_idx": "B"},
    ),
    "talk": ("chat.conversation", "en", {"messages": TALK}),
    "talk_zh": ("chat.conversation", "zh", {"messages": TALK_ZH}),
    "thought": ("chat.conversation", "en", {"messages": THOUGHT}),
    "task": (
        "pubmedqa.lm_eval",
        "en",
        {"question": "Does it help?", "contexts": ["One.", "Two."], "answer": "maybe"},
    ),
}
"""Case -> template, language, fields."""
WORDS = "You are a helpful AI assistant named trained by Hugging Face user system model Abstract"
WORDS += " Question Instruction Answer the answer is So 因此 答案是 ###"
PATTERN = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


@cache
def alphabet() -> dict[int, str]:
    """Byte -> the character that stands for it in byte-level BPE."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = (b for b in range(256) if b not in shown)
    return {b: chr(b) for b in shown} | {b: chr(256 + n) for n, b in enumerate(hidden)}


def _texts(value: Any) -> Iterator[str]:
    """Every text of the cases, and the words of the templates with and without a space."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for part in value.values() for text in _texts(part))
    elif isinstance(value, list | tuple):
        yield from (text for part in value for text in _texts(part))
    if value is CASES:
        yield from (form + word for word in WORDS.split() for form in ("", " "))


def tokenizer(family: Family) -> Any:
    """A transformers tokenizer of this family, with its chat template."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
    )
    from transformers import PreTrainedTokenizerFast

    words = sorted(set(re.findall(r" ?[^\W\d_]+|[#。，？]+|\n+", "\n\n".join(_texts(CASES)))))
    vocabulary = {token: number for number, token in enumerate(family.special)}
    for character in alphabet().values():
        vocabulary.setdefault(character, len(vocabulary))
    for word in words:
        letters = "".join(alphabet()[byte] for byte in word.encode())
        vocabulary.setdefault(letters, len(vocabulary))
    raw = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if family.newlines:
        split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        raw.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in family.special])
    if family.start:
        raw.post_processor = processors.TemplateProcessing(
            single=" ".join([*family.start, "$A"]),
            special_tokens=[(token, vocabulary[token]) for token in family.start],
        )
    build: Any = PreTrainedTokenizerFast
    made = build(
        tokenizer_object=raw, bos_token=family.bos, eos_token=family.eos, pad_token=family.eos
    )
    if family.template:
        made.chat_template = family.template
    return made


def shown(tokenizer: Any, token: int) -> str:
    """A token as text; bytes that are no text alone as \\x.."""
    name = tokenizer.convert_ids_to_tokens(token)
    if token in tokenizer.all_special_ids or name in tokenizer.get_added_vocab():
        return str(name)
    byte = {character: value for value, character in alphabet().items()}
    return bytes(byte[character] for character in name).decode("utf-8", "backslashreplace")
