"""Rows of tables as exchanges: who says what, or what a text begins with and how it goes on; and what is wrong there.

Nothing is known here of tokenizers: whether a conversation can be written as one text, its template says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_search.data.wording import rows_phrase
from lora_search.errors import DataError, Mistake
from lora_search.spec.quoting import quoted

Message = tuple[str, str]
"""(role, content)."""

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLE_NAMES = {name: name for name in ROLES}
_CALLS = ("tool_calls", "function_call")
_FIRST = ("system", "developer")
_SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
"""Who speaks, in the words of ShareGPT's files."""
_MAY_FOLLOW = {
    "": ("system", "developer", "user"),
    "system": ("user",),
    "developer": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


@dataclass(frozen=True)
class Exchange:
    """One example: messages, of which what the assistant says is trained, or a prompt with its completion.

    Attributes:
        messages: in order; empty for a prompt with its completion.
        prompt: what is given; empty for a plain text.
        completion: what is trained.
        last_only: whether of the messages the last alone is trained, those before being its prompt.
        untrained: places of messages of the assistant that are not trained, as their weight of 0 says.
    """

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    completion: str = ""
    last_only: bool = False
    untrained: tuple[int, ...] = ()

    def is_trained(self, place: int) -> bool:
        """Whether the message at a place is."""
        if self.messages[place][0] != "assistant" or place in self.untrained:
            return False
        return not self.last_only or place == len(self.messages) - 1

    @property
    def text(self) -> str:
        """All of it, as a person reads it."""
        if not self.messages:
            return self.prompt + self.completion
        return "\n".join(f"{role}: {content}" for role, content in self.messages)


class _Refused(Exception):
    """A row that cannot be used: (key, rule, what it has)."""


def exchanges_of(shape: str, columns: Mapping[str, Sequence[Any]]) -> list[Exchange]:
    """Every row as an exchange.

    Args:
        shape: as in ``data.format``.
        columns: what a column is -> its values: ``messages``; ``prompt``, ``completion``; ``instruction``, ``output``
            and perhaps ``input``; ``text``.

    Raises:
        DataError: every kind of mistake found, each with its rows.
    """
    make = _MAKERS[shape]
    found: list[Exchange] = []
    refused: dict[tuple[str, str, str], list[int]] = {}
    for row, values in enumerate(zip(*columns.values(), strict=True), start=1):
        try:
            found.append(make(dict(zip(columns, values, strict=True))))
        except _Refused as reason:
            key, rule, got = reason.args
            refused.setdefault((key, rule, got), []).append(row)
    if refused:
        raise DataError(
            Mistake(rule, key, f"{got} in {rows_phrase(rows)}") for (key, rule, got), rows in refused.items()
        )
    return found


def _from_messages(row: Mapping[str, Any]) -> Exchange:
    return _conversation("data.messages", row["messages"], "role", "content", _ROLE_NAMES)


def _from_sharegpt(row: Mapping[str, Any]) -> Exchange:
    return _conversation("data.messages", row["messages"], "from", "value", _SPEAKERS)


def _from_pair(row: Mapping[str, Any]) -> Exchange:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        exchange = _conversation(
            "data.completion", [*prompt, *completion], "role", "content", _ROLE_NAMES, last_only=True
        )
        if len(completion) != 1 or not prompt:
            rule = "must be one message of the assistant after those of data.prompt"
            raise _Refused("data.completion", rule, f"{len(completion)} after {len(prompt)}")
        return exchange
    given = "" if prompt is None else _string("data.prompt", prompt)
    return Exchange(prompt=given, completion=_filled("data.completion", completion))


def _from_alpaca(row: Mapping[str, Any]) -> Exchange:
    instruction, given = _filled("instruction", row["instruction"]), row.get("input")
    asked = instruction if given is None or not str(given).strip() else f"{instruction}\n\n{_string('input', given)}"
    return Exchange((("user", asked), ("assistant", _filled("output", row["output"]))))


def _from_text(row: Mapping[str, Any]) -> Exchange:
    return Exchange(completion=_filled("data.text", row["text"]))


_MAKERS = {
    "messages": _from_messages,
    "sharegpt": _from_sharegpt,
    "prompt-completion": _from_pair,
    "alpaca": _from_alpaca,
    "text": _from_text,
}


def _string(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _Refused(key, "must be a string", "none" if value is None else type(value).__name__)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _Refused(key, "must be a string", "text that is not valid Unicode") from None
    return value


def _filled(key: str, value: Any) -> str:
    text = "" if value is None else _string(key, value)
    if not text.strip():
        raise _Refused(key, "must be filled in", "an empty one")
    return text


def calls_of_tools(columns: Mapping[str, Sequence[Any]]) -> int:
    """Messages that call a tool: what they call is in no content, and not read."""
    turns = (turn for values in columns.values() for value in values if isinstance(value, list) for turn in value)
    return sum(isinstance(turn, dict) and _calls(turn) for turn in turns)


def _calls(turn: Mapping[str, Any]) -> bool:
    return any(turn.get(key) for key in _CALLS)


def _conversation(
    key: str, turns: Any, who: str, what: str, names: Mapping[str, str], last_only: bool = False
) -> Exchange:
    """Messages in an order that a conversation has, the last of them the assistant's."""
    if not isinstance(turns, list):
        raise _Refused(key, "must be a list of messages", "none" if turns is None else type(turns).__name__)
    messages: list[Message] = []
    untrained: list[int] = []
    before = ""
    for turn in turns:
        if not isinstance(turn, dict) or who not in turn or what not in turn:
            raise _Refused(key, f"every message must have {who!r} and {what!r}", _shown(turn))
        role = names.get(str(turn[who]))
        if role is None:
            raise _Refused(key, f"{who!r} must be one of {', '.join(dict.fromkeys(names))}", quoted(str(turn[who])))
        if turn[what] is None and _calls(turn):
            raise _Refused(key, "must be a string, for calls of tools are not read", "none beside a call")
        content = _string(key, turn[what])
        if role == "assistant" and not content.strip():
            raise _Refused(key, "what the assistant says must be filled in", "an empty message")
        if role not in _MAY_FOLLOW[before]:
            place = f"after {before!r}" if before else "first"
            rule = "must begin with the user (after a system message, if any) and take turns"
            raise _Refused(key, rule, f"{role!r} {place}")
        if role == "assistant" and _weight(key, turn) == 0:
            untrained.append(len(messages))
        messages.append((role, content))
        before = role
    if before != "assistant":
        raise _Refused(key, "must end with what the assistant says", f"{before!r} last" if before else "no message")
    exchange = Exchange(tuple(messages), last_only=last_only, untrained=tuple(untrained))
    if not any(map(exchange.is_trained, range(len(messages)))):
        raise _Refused(key, "must have a message to be trained", "a weight of 0 for all that the assistant says")
    return exchange


def _weight(key: str, turn: Mapping[str, Any]) -> float:
    """0 for a message that is not trained, as in OpenAI's files; 1 where nothing is said."""
    weight = turn.get("weight")
    if weight is None:
        return 1
    if isinstance(weight, str) or weight not in (0, 1):
        raise _Refused(key, "the weight of a message must be 0 or 1", quoted(weight))
    return float(weight)


def _shown(turn: Any) -> str:
    return f"keys {', '.join(map(str, turn))}" if isinstance(turn, dict) else type(turn).__name__
