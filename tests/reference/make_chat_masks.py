"""Which tokens of a chat carry loss, by transformers' own route; run by hand, output committed.

    python tests/reference/make_chat_masks.py

Writes tests/train/golden/chat_masks.json: family -> case -> texts -> [token, learned] pairs. Here
whole texts are tokenised and transformers' `apply_chat_template(return_assistant_tokens_mask=True)`
tells what stands between the `{% generation %}` marks of the templates below, which are written
apart from those of `chat_families.py`. medexpert is not imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from chat_families import CASES, FAMILIES, shown, tokenizer  # noqa: E402

OUT = HERE.parent / "train" / "golden" / "chat_masks.json"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
MARKED = {
    "smollm2": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n"
        "{%+ endif %}{% for m in messages %}<|im_start|>{{ m.role }}{{ '\n' }}"
        "{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    ),
    "llama3": (
        "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
        "{{ '\n\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|eot_id|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}"
    ),
    # One text a turn: only the last turn is learned, behind what the model is asked with.
    "qwen3": (
        "{% for m in messages %}<|im_start|>{{ m.role }}{{ '\n' }}"
        "{% if m.role != 'assistant' %}{{ m.content }}<|im_end|>"
        "{% elif not loop.last %}{{ m.content.split('</think>\n\n')[-1] }}<|im_end|>"
        "{% elif '</think>' in m.content %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ '<think>\n\n</think>\n\n' }}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% endif %}{{ '\n' }}{% endfor %}"
    ),
    "gemma3": (
        "<bos>{% for m in messages %}{% if m.role == 'system' %}"
        "<start_of_turn>user{{ '\n' + m.content + '\n\n' }}"
        "{% elif m.role == 'user' %}"
        "{% if loop.first or messages[loop.index0 - 1].role != 'system' %}"
        "<start_of_turn>user{{ '\n' }}{% endif %}{{ m.content }}<end_of_turn>{{ '\n' }}"
        "{% else %}<start_of_turn>model{{ '\n' }}"
        "{% generation %}{{ m.content }}<end_of_turn>{% endgeneration %}{{ '\n' }}{% endif %}"
        "{% endfor %}"
    ),
    # An answer ends where the model gives the word back: with the token of the user's turn.
    "glm4": (
        "[gMASK]<sop>{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>"
        "{% generation %}{{ '\n' + m.content }}<|user|>{% endgeneration %}"
        "{% elif m.role == 'user' %}"
        "{% if loop.first or messages[loop.index0 - 1].role != 'assistant' %}<|user|>{% endif %}"
        "{{ '\n' + m.content }}{% else %}<|system|>{{ '\n' + m.content }}{% endif %}{% endfor %}"
    ),
    "plain": (
        "<s>{% for m in messages %}{% if m.role == 'assistant' %}### Answer{{ '\n' }}"
        "{% generation %}{{ m.content }}</s>{% endgeneration %}"
        "{% elif m.role == 'user' %}### Question{{ '\n' + m.content }}"
        "{% else %}### Instruction{{ '\n' + m.content }}{% endif %}{{ '\n\n' }}{% endfor %}"
    ),
}
TASK = (
    "{{ start + messages[0].content }}{% generation %}{{ messages[1].content }}{% endgeneration %}"
)


def turns(name: str, fields: dict[str, Any], eos: str) -> list[dict[str, str]]:
    """The messages of a case, spelt out."""
    if "messages" in fields:
        return list(fields["messages"])
    question, answer = str(fields["question"]), str(fields.get("answer", ""))
    if "options" in fields:
        question += "".join(f"\n{letter}. {text}" for letter, text in fields["options"].items())
        answer = str(fields["answer_idx"])
    if "rationale" in fields:
        chinese = not fields["rationale"].isascii()
        ending = f"因此，答案是{answer}。" if chinese else f"So the answer is {answer}."
        answer = f"{fields['rationale']}\n\n{ending}"
    if "contexts" in fields:
        text = "\n".join(fields["contexts"])
        question = f"Abstract: {text}\nQuestion: {question}\nAnswer:"
        answer = f" {answer}{eos}"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def main() -> None:
    goldens: dict[str, dict[str, list[Any]]] = {}
    for family, made in FAMILIES.items():
        words = tokenizer(made)
        for case, (name, _, fields) in CASES.items():
            messages = turns(name, fields, made.eos)
            texts = [messages]
            if family == "qwen3":
                replies = [n for n, m in enumerate(messages, 1) if m["role"] == "assistant"]
                texts = [messages[:n] for n in replies]
            for text in texts:
                found = words.apply_chat_template(
                    text,
                    chat_template=TASK if case == "task" else MARKED[family],
                    return_assistant_tokens_mask=True,
                    return_dict=True,
                    start="".join(made.start),
                )
                pairs = [
                    [shown(words, token), learned]
                    for token, learned in zip(
                        found["input_ids"], found["assistant_masks"], strict=True
                    )
                ]
                goldens.setdefault(family, {}).setdefault(case, []).append(pairs)
    lines = [
        f'  {json.dumps(family)}: {{\n' + ",\n".join(
            f"    {json.dumps(case)}: {json.dumps(texts, ensure_ascii=False)}"
            for case, texts in cases.items()
        ) + "\n  }"
        for family, cases in goldens.items()
    ]  # fmt: skip
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
