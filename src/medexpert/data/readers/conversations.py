"""Dialogue formats -> Example with messages in turn: MedDialog, ShareGPT, UltraMedical, our rows.

Chat templates want user and assistant in turn, the user first. Neighbouring turns of one role are
joined, empty turns removed, an assistant's opening and a user's closing turn cut off; each is a
counted change. A dialogue in which the only doctor's turn is that opening has no answer to learn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medexpert.data.readers.examples import Item, answered, example, name_of, strings_of
from medexpert.data.readers.json_rows import json_array
from medexpert.data.readers.mcq import is_parquet
from medexpert.data.readers.rows import (
    Change,
    Drop,
    Fault,
    Part,
    Reader,
    Row,
    has_half_pair,
    id_of,
    jsonl,
    kind_of,
    list_of,
    object_of,
    text_of,
)
from medexpert.data.readers.streams import lines, open_stream
from medexpert.data.readers.tables import parquet_rows
from medexpert.records import UserError

ROLES = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "patient": "user",
    "doctor": "assistant",
}
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_SPEAKERS = {
    "patient": "user",
    "doctor": "assistant",
    "病人": "user",
    "患者": "user",
    "医生": "assistant",
}
_SPOKEN = re.compile(rf"\s*({'|'.join(_SPEAKERS)})\s*[:：]\s*", re.IGNORECASE)
_RAW_ID = re.compile(r"id\s*=\s*(\d+)\s*")
_RAW_LIMIT = 4 << 20  # characters of one dialogue; the longest published ones have some 100,000

Turn = dict[str, str]


def turn(role: str, content: str, roles: Mapping[str, str], where: str) -> tuple[Turn, list[str]]:
    """One message and the change made to its role. Raises UserError for an unknown role."""
    known = role if role in roles else role.strip().lower()
    if known not in roles:
        raise UserError(f"unknown role {role[:40]!r}", where=where, allowed=", ".join(roles))
    changes = ["role_normalised"] if known != role else []
    return {"role": roles[known], "content": content.strip()}, changes


def alternate(turns: Sequence[Turn]) -> tuple[list[Turn], list[str]]:
    """(messages in turn, what was changed); the messages may be empty."""
    changes = []
    filled = [message for message in turns if message["content"]]
    if len(filled) != len(turns):
        changes.append("empty_turn_removed")
    system = [message for message in filled[:1] if message["role"] == "system"]
    rest = filled[len(system) :]
    start = next((i for i, message in enumerate(rest) if message["role"] == "user"), len(rest))
    if start:
        changes.append("opening_assistant_turn_removed")
    joined: list[Turn] = []
    for message in rest[start:]:
        if joined and joined[-1]["role"] == message["role"]:
            content = f"{joined[-1]['content']}\n{message['content']}"
            joined[-1] = {**message, "content": content}
            changes.append("neighbouring_turns_joined")
        else:
            joined.append(message)
    while joined and joined[-1]["role"] != "assistant":
        joined.pop()
        changes.append("closing_user_turn_removed")
    return system + joined, changes


def dialogue(
    row: Mapping[str, Any],
    where: str,
    identifier: str,
    turns: Sequence[tuple[Turn, list[str]]],
    *,
    lang: str = "",
    ids: Mapping[str, str] | None = None,
) -> Iterator[Item]:
    """A conversation example with its changes, or a Drop when there is nothing to learn."""
    given = [message for message, _ in turns]
    messages, changes = alternate(given)
    for what in dict.fromkeys(what for _, made in turns for what in made):
        yield Change(identifier, what)
    for what in changes:
        yield Change(identifier, what)
    if any(message["role"] == "assistant" for message in messages):
        fields = {"messages": messages}
        template = "chat.conversation"
        yield example(row, where, identifier, "conversation", template, fields, lang=lang, ids=ids)
    elif given and given[0]["role"] == "assistant" and len(given) > 1:
        # The doctor asks, the patient answers, and there it ends.
        yield Drop(identifier, "no_answer_after_the_opening")
    else:
        yield Drop(identifier, "no_answer")


# -- one function a schema -----------------------------------------------------------------------


def conversations(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """`{id, messages: [{role, content}]}`, roles user/assistant/system or patient/doctor."""
    turns = []
    for position, raw in enumerate(list_of(row, "messages", where)):
        message = object_of(raw, f"messages[{position}]", where)
        role, content = text_of(message, "role", where), text_of(message, "content", where)
        turns.append(turn(role, content, ROLES, where))
    yield from dialogue(row, where, id_of(row, where), turns)


def sharegpt_turns(row: Mapping[str, Any], where: str) -> list[tuple[Turn, list[str]]]:
    """The messages of `conversations: [{from, value}]`. Raises UserError."""
    turns = []
    for position, raw in enumerate(list_of(row, "conversations", where)):
        message = object_of(raw, f"conversations[{position}]", where)
        role, content = text_of(message, "from", where), text_of(message, "value", where)
        turns.append(turn(role, content, SHAREGPT_ROLES, where))
    return turns


def sharegpt(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """ShareGPT: `{id?, conversations: [{from: human | gpt | system, value}]}`."""
    turns = sharegpt_turns(row, where)
    first = turns[0][0]["content"] if turns else ""
    yield from dialogue(row, where, name_of(row, where, first, "id"), turns)


def ultramedical(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """UltraMedical: `{id, type, conversations: [{from, value}], answer, score}`.

    One question and one answer are a question with an answer; more turns a conversation.
    """
    identifier = name_of(row, where, "", "id", prefix="ultramedical-")
    ids = {"qid": id_of(row, where)}
    turns = sharegpt_turns(row, where)
    told = {**row, "source": None}
    if [message["role"] for message, _ in turns] == ["user", "assistant"]:
        question, answer = (message["content"] for message, _ in turns)
        yield answered(told, where, identifier, question, answer, lang="en", ids=ids)
    else:
        yield from dialogue(told, where, identifier, turns, lang="en", ids=ids)


def meddialog(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """MedDialog: `{id?, description?, utterances: ["patient: ...", "doctor: ..."]}`, in Chinese
    病人： and 医生：, or the hub's `{dialogue_id, dialogue_turns: {speaker, utterance}}`."""
    spoken = _hub_turns(row, where) if "dialogue_turns" in row else _utterances(row, where)
    first = spoken[0][0]["content"] if spoken else ""
    chinese = bool(re.search("[\u4e00-\u9fff]", first))
    identifier = name_of(row, where, first, "id", prefix="meddialog-")
    yield from dialogue(row, where, identifier, spoken, lang="zh" if chinese else "en")


def _utterances(row: Mapping[str, Any], where: str) -> list[tuple[Turn, list[str]]]:
    turns = []
    for position, utterance in enumerate(strings_of(row, "utterances", where)):
        found = _SPOKEN.match(utterance)
        if found is None:
            what = f"utterances[{position}] names no speaker"
            raise UserError(what, where=where, allowed=", ".join(f"{name}:" for name in _SPEAKERS))
        content = utterance[found.end() :]
        turns.append(turn(found[1].lower(), content, _SPEAKERS, where))
    return turns


def _hub_turns(row: Mapping[str, Any], where: str) -> list[tuple[Turn, list[str]]]:
    """Speakers count from 0 (patient, doctor) in the hub's files."""
    raw = row["dialogue_turns"]
    if isinstance(raw, dict):
        speakers, texts = list_of(raw, "speaker", where), strings_of(raw, "utterance", where)
        if len(speakers) != len(texts):
            raise UserError("field 'dialogue_turns': lists of unlike length", where=where)
        raw = [{"speaker": s, "utterance": t} for s, t in zip(speakers, texts, strict=True)]
    if not isinstance(raw, list):
        what = f"field 'dialogue_turns': a list is expected, not {kind_of(raw)}"
        raise UserError(what, where=where)
    turns = []
    for position, item in enumerate(raw):
        spoken = object_of(item, f"dialogue_turns[{position}]", where)
        speaker = spoken.get("speaker")
        if speaker in (0, 1) and not isinstance(speaker, bool):
            speaker = ("patient", "doctor")[speaker]
        if not isinstance(speaker, str):
            raise UserError(f"unknown speaker {speaker!r}", where=where, allowed="0, 1")
        content = text_of(spoken, "utterance", where)
        turns.append(turn(speaker.lower(), content, _SPEAKERS, where))
    return turns


# -- rows ----------------------------------------------------------------------------------------


def meddialog_rows(part: Part) -> Iterator[Row | Fault]:
    """JSON list (objects, or lists of utterances), the raw text form, or the hub's parquet."""
    if is_parquet(part):
        columns = ("dialogue_turns",)
        yield from parquet_rows(columns, ("dialogue_id", "dialogue_url", "file_name"))(part)
    elif starts_with(part.path, b"["):
        yield from json_array(under="utterances")(part)
    else:
        yield from _raw_dialogues(part)


def starts_with(path: str, mark: bytes) -> bool:
    """Whether the first character of a (packed) file that is no blank is `mark`."""
    with open_stream(path) as stream:
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(mark)


def _raw_dialogues(part: Part) -> Iterator[Row | Fault]:
    """The raw text: `id=1`, a URL, `Description` and text, `Dialogue`, then `Patient:` and
    `Doctor:` lines, each above its text."""
    number, start, size = -1, 0, 0
    found: list[str] = []
    for line_number, raw in lines(part.path):
        where = f"{part.path}:{line_number}"
        line = "" if raw is None else raw.decode("utf-8", "surrogateescape").strip()
        if raw is None or (not line.isascii() and has_half_pair(line)):
            # A bad line belongs to the dialogue that it stands in; before the first, to that one.
            if part.has(max(number, 0)):
                yield Fault(where, "the line is too long" if raw is None else "not UTF-8")
            continue
        if _RAW_ID.fullmatch(line):
            if start and part.has(number):
                yield _raw_dialogue(part.path, start, found, size)
            number, start, size, found = number + 1, line_number, 0, []
        elif not start and line:
            raise UserError("a MedDialog text file opens with a line id=1", where=where)
        size += len(line)
        if size <= _RAW_LIMIT:
            found.append(line)
    if start and part.has(number):
        yield _raw_dialogue(part.path, start, found, size)


def _raw_dialogue(path: str, start: int, found: Sequence[str], size: int) -> Row | Fault:
    where = f"{path}:{start}"
    if size > _RAW_LIMIT:
        return Fault(where, f"a dialogue of more than {_RAW_LIMIT >> 20} million characters")
    if "Dialogue" not in found:
        return Fault(where, "a dialogue without a line 'Dialogue'")
    utterances: list[str] = []
    for line in found[found.index("Dialogue") + 1 :]:
        if line.startswith(("Diagnosis and suggestions", "Diagnosis and Suggestions")):
            break
        if line.rstrip(":：").lower() in _SPEAKERS and line.endswith((":", "：")):
            utterances.append(f"{line.rstrip(':：')}:")
        elif line and utterances:
            utterances[-1] = f"{utterances[-1]}\n{line}"
        elif line:
            return Fault(where, "a dialogue's text begins without a speaker")
    return where, {"utterances": utterances}


def list_or_lines(part: Part) -> Iterator[Row | Fault]:
    """Rows of a JSON list or of JSON lines, told by the first character."""
    yield from (json_array() if starts_with(part.path, b"[") else jsonl)(part)


def _sharegpt_rows(part: Part) -> Iterator[Row | Fault]:
    if is_parquet(part):
        yield from parquet_rows(("conversations",), ("id", "type", "answer", "score"))(part)
    else:
        yield from list_or_lines(part)


READERS: dict[str, Reader] = {
    "conversations": Reader(jsonl, conversations),
    "sharegpt": Reader(_sharegpt_rows, sharegpt),
    "ultramedical": Reader(_sharegpt_rows, ultramedical),
    "meddialog": Reader(meddialog_rows, meddialog),
}
