"""What of an exchange is trained: by marks, by prefixes, by character; stop tokens, cuts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_decoder import MARKED, TEMPLATE, conversations, pairs, tokenizer, write_rows
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lora_search.data.chat import load_chat
from lora_search.data.chat_encoding import UNTRAINED, EncodedExchanges, encode_chat, rows_of_tokens
from lora_search.errors import DataError, InputError, ModelError
from lora_search.spec.experiment import DataSpec

TALK = [
    {"role": "system", "content": "the film"},
    {"role": "user", "content": "a plot ?"},
    {"role": "assistant", "content": "dull"},
    {"role": "user", "content": "it ?"},
    {"role": "assistant", "content": "witty"},
]


def encoded(
    folder: Path, rows: list[dict[str, Any]], template: str | None = TEMPLATE, length: int = 64, **keys: Any
) -> EncodedExchanges:
    return encoded_by(tokenizer(template), folder, rows, length, **keys)


def encoded_by(
    made: PreTrainedTokenizerBase, folder: Path, rows: list[dict[str, Any]], length: int = 64, **keys: Any
) -> EncodedExchanges:
    dataset = load_chat(DataSpec(train=str(write_rows(folder / "rows.jsonl", rows)), **keys), seed=0)
    return encode_chat(dataset, made, length)


def byte_level(post_processor: processors.PostProcessor) -> PreTrainedTokenizerFast:
    """Bytes, and up to eight blanks, are tokens; a blank before an a or b is one with it."""
    known = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("ĠĠĠĠ", "ĠĠĠĠ"), ("Ġ", "a"), ("Ġ", "b"), ("Ġ", "Ċ")]
    known += [one + two for one, two in merges]
    inner = Tokenizer(models.BPE({token: number for number, token in enumerate(known)}, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = post_processor
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def trained_of(data: EncodedExchanges, example: int = 0) -> list[str]:
    wanted = data.targets[example]
    return list(tokenizer().convert_ids_to_tokens(wanted[wanted != UNTRAINED].tolist()))


@pytest.mark.parametrize("template", [TEMPLATE, MARKED])
def test_every_turn_of_the_assistant_is_trained_with_its_stop_token(tmp_path: Path, template: str) -> None:
    data = encoded(tmp_path, [{"messages": TALK[1:]}], template)
    assert trained_of(data) == ["dull", "</s>", "witty", "</s>"]
    shown = "<user>a plot ?</s><bot>⟦dull</s>⟧<user>it ?</s><bot>⟦witty</s>⟧"
    assert data.shown(tokenizer()) == shown
    said = " ".join(data.report.sentences())
    assert "The loss is on what the assistant says alone." in said
    assert ("has no marks" in said) == (template == TEMPLATE)
    assert data.report.warnings() == ()


@pytest.mark.parametrize("template", [TEMPLATE, MARKED])
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_a_turn_of_weight_0_is_not_trained(tmp_path: Path, template: str, column: str) -> None:
    who, what, bot = ("role", "content", "assistant") if column == "messages" else ("from", "value", "gpt")
    names = {"user": "user", "assistant": bot}
    turns = [{who: names[turn["role"]], what: turn["content"]} for turn in TALK[1:]]
    turns[1]["weight"], turns[3]["weight"] = 0, 1
    assert trained_of(encoded(tmp_path, [{column: turns}], template)) == ["witty", "</s>"]
    turns[1]["weight"], turns[3]["weight"] = 1, 0
    assert trained_of(encoded(tmp_path, [{column: turns}], template)) == ["dull", "</s>"]


def test_a_turn_of_weight_0_is_not_trained_where_a_template_marks_parts_of_turns(tmp_path: Path) -> None:
    twice = MARKED.replace(
        "+ '</s>' }}{% endgeneration %}", "}}{% endgeneration %}{% generation %}{{ '</s>' }}{% endgeneration %}"
    )
    turns = [*TALK[1:3], TALK[3], {**TALK[4], "weight": 0}]
    assert trained_of(encoded(tmp_path, [{"messages": TALK[1:]}], twice)) == ["dull", "</s>", "witty", "</s>"]
    assert trained_of(encoded(tmp_path, [{"messages": turns}], twice)) == ["dull", "</s>"]


def test_the_targets_are_those_of_transformers(tmp_path: Path) -> None:
    data = encoded(tmp_path, [{"messages": TALK[1:]}], MARKED)
    theirs = tokenizer(MARKED).apply_chat_template(
        TALK[1:], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert data.input_ids[0].tolist() == theirs["input_ids"]
    labels = np.where(np.array(theirs["assistant_masks"]) == 1, theirs["input_ids"], UNTRAINED)
    assert data.targets[0, :-1].tolist() == labels[1:].tolist()


def test_of_a_prompt_of_messages_the_completion_alone_is_trained(tmp_path: Path) -> None:
    data = encoded(tmp_path, [{"prompt": TALK[:4], "completion": TALK[4:]}])
    assert trained_of(data) == ["witty", "</s>"]


def test_of_a_pair_the_completion_and_the_end_are_trained(tmp_path: Path) -> None:
    data = encoded(tmp_path, [{"prompt": "a plot ? ", "completion": "dull and witty"}])
    assert trained_of(data) == ["dull", " ", "and", " ", "witty", "</s>"]
    assert "The loss is on the completion, and '</s>' behind it." in data.report.sentences()


def test_of_a_text_every_token_but_the_first_is_trained(tmp_path: Path) -> None:
    data = encoded(tmp_path, [{"text": "a dull plot"}])
    assert trained_of(data) == [" ", "dull", " ", "plot", "</s>"]
    assert data.report.trained == 5
    assert data.report.tokens == 6


def test_a_token_over_the_border_is_not_trained_and_told(tmp_path: Path) -> None:
    data = encoded(tmp_path, [{"prompt": "a du", "completion": "ll plot"}])
    assert trained_of(data) == [" ", "plot", "</s>"]
    (warning,) = data.report.warnings()
    assert warning.startswith("Warning: 1 example has a token that runs over from prompt to completion")


BORDERED = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])


@pytest.mark.parametrize("trim", [False, True])
def test_blanks_are_trained_like_all_else(tmp_path: Path, trim: bool) -> None:
    made = byte_level(processors.ByteLevel(trim_offsets=trim))
    data = encoded_by(made, tmp_path, [{"prompt": "a:\n", "completion": "        b \n         a"}])
    assert data.shown(made) == "a:\n⟦        b \n         a</s>⟧"
    assert data.report.warnings() == ()


@pytest.mark.parametrize("trim", [False, True])
def test_a_blank_over_the_border_is_a_token_that_runs_over(tmp_path: Path, trim: bool) -> None:
    made = byte_level(processors.ByteLevel(trim_offsets=trim))
    data = encoded_by(made, tmp_path, [{"prompt": "a ", "completion": "bb"}, {"prompt": "a ", "completion": "   :"}])
    assert data.shown(made) == "a  ⟦  :</s>⟧"
    assert (data.targets[0] != UNTRAINED).tolist() == [False, True, True, False, False, False]
    (warning,) = data.report.warnings()
    assert warning.startswith("Warning: 2 examples have a token that runs over from prompt to completion")


_TEXTS = st.text(" ab\n\té😀", min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=4), bordered=st.booleans())
def test_what_is_trained_does_not_depend_on_what_a_tokenizer_leaves_out_of_its_tokens(
    rows: list[tuple[str, str]], bordered: bool
) -> None:
    table = [{"prompt": prompt, "completion": completion} for prompt, completion in rows]
    found = []
    for trim in (True, False):
        one = processors.ByteLevel(trim_offsets=trim)
        made = byte_level(processors.Sequence([one, BORDERED]) if bordered else one)
        before = made("  b", return_offsets_mapping=True)
        with TemporaryDirectory() as folder:
            found.append(encoded_by(made, Path(folder), table))
        assert made("  b", return_offsets_mapping=True) == before
    assert np.array_equal(found[0].targets, found[1].targets)
    assert found[0].report.warnings() == found[1].report.warnings()


def test_an_end_that_the_tokenizer_puts_there_itself_is_trained(tmp_path: Path) -> None:
    made = byte_level(BORDERED)
    data = encoded_by(made, tmp_path, [{"prompt": "a:", "completion": "b"}])
    assert data.shown(made) == "<s>a:⟦b</s>⟧"
    assert "The loss is on the completion, and '</s>' behind it." in data.report.sentences()
    assert list(rows_of_tokens(data, np.arange(1), made)) == [data.input_ids[0].tolist()]
    data = encoded_by(made, tmp_path, [{"text": "a"}])
    assert data.shown(made) == "<s>⟦a</s>⟧"


@pytest.mark.parametrize("template", [TEMPLATE, MARKED])
@pytest.mark.parametrize("asked", ["strftime_now('%d %b %Y')", 'strftime_now( format="%d %b" ) + " 2024"'])
def test_a_template_that_asks_for_the_day_is_told_the_same_every_day(tmp_path: Path, template: str, asked: str) -> None:
    dated = f"{{% if strftime_now is defined %}}{{{{ '<system>' + {asked} + '</s>' }}}}{{% endif %}}" + template
    data = encoded(tmp_path, [{"messages": TALK[1:]}], dated)
    assert data.texts == ("<system>26 Jul 2024</s><user>a plot ?</s><bot>dull</s><user>it ?</s><bot>witty</s>",)
    assert trained_of(data) == ["dull", "</s>", "witty", "</s>"]
    told = "here it is 26 July 2024 in every conversation"
    assert told in " ".join(data.report.sentences())
    assert told not in " ".join(encoded(tmp_path, [{"messages": TALK[1:]}], template).report.sentences())


def test_what_is_too_long_is_cut_at_its_end_and_told(tmp_path: Path) -> None:
    data = encoded(tmp_path, [{"text": "a dull plot"}, {"text": "a film"}], length=5)
    assert trained_of(data) == [" ", "dull", " ", "plot"]
    assert trained_of(data, 1) == [" ", "film", "</s>"]
    assert "1 example is cut at 5 tokens (50.0%)." in data.report.sentences()


def test_blanks_behind_a_stop_token_are_not_trained(tmp_path: Path) -> None:
    template = TEMPLATE.replace("+ '</s>' }}", "+ '</s>' + ' ' }}")
    assert trained_of(encoded(tmp_path, [{"messages": TALK[1:]}], template)) == ["dull", "</s>", "witty", "</s>"]


def test_what_never_teaches_to_stop_is_told(tmp_path: Path) -> None:
    outside = MARKED.replace("+ '</s>' }}{% endgeneration %}", "}}{% endgeneration %}{{ '</s>' }}")
    data = encoded(tmp_path, [{"messages": TALK[1:]}], outside)
    assert trained_of(data) == ["dull", "witty"]
    assert data.report.warnings() == (
        "Warning: 2 turns have the stop token outside what is trained: the model will not learn when to stop.",
    )
    nowhere = TEMPLATE.replace("+ '</s>' }}", "+ ' ' }}")
    (warning,) = encoded(tmp_path, [{"messages": TALK[1:3]}], nowhere).report.warnings()
    assert warning == "Warning: 1 turn ends with no special token: nothing teaches the model when to stop."


LAST_ONLY = (
    "{% for message in messages %}{% if loop.last or message['role'] == 'user' %}{{ '<user>' + message['content'] }}"
    "{% else %}{{ 'it' }}{% endif %}{% endfor %}"
)
REFUSED: dict[str, tuple[dict[str, Any], str | None, dict[str, Any], type[InputError], str]] = {
    "no template": (
        {"messages": TALK},
        None,
        {},
        ModelError,
        "model.base: must have a chat template for conversations, got a tokenizer without one; name a model tuned to"
        " instructions, or give prompt and completion",
    ),
    "a template that refuses": (
        {"messages": TALK},
        "{{ raise_exception('no system role here') }}",
        {},
        DataError,
        "data.messages: must be a conversation that the chat template takes, got no system role here in data row 1",
    ),
    "a template that changes turns": (
        {"messages": TALK[1:]},
        LAST_ONLY,
        {},
        DataError,
        "data.messages: must be written so that each turn goes on with the text before it; give one exchange per"
        " example, got a chat template that changes earlier turns in data row 1",
    ),
    "nothing left to train": (
        {"messages": TALK},
        TEMPLATE,
        {"length": 6},
        DataError,
        "data.max_length: must leave a trained token of every example within 6 tokens, got none of data row 1; raise"
        " it, or leave these examples out",
    ),
    "marks around nothing": (
        {"messages": TALK},
        "{{ '<user>it' }}{% generation %}{% endgeneration %}",
        {},
        DataError,
        "data.max_length: must leave a trained token of every example within 64 tokens, got none of data row 1; raise"
        " it, or leave these examples out",
    ),
    "two beginnings": (
        {"text": "<s><s>a dull plot"},
        TEMPLATE,
        {},
        DataError,
        "data.train: must begin with one '<s>', got two in data row 1; the tokenizer, or its chat template, puts it"
        " there: leave it out of the data",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_trained_is_one_line(tmp_path: Path, what: str) -> None:
    row, template, arguments, kind, line = REFUSED[what]
    with pytest.raises(kind) as caught:
        encoded(tmp_path, [row], template, **arguments)
    assert caught.value.mistakes == (line,)


@pytest.mark.parametrize("rows", [pairs(6), conversations(6), [{"text": "a dull plot"}]])
def test_another_tokenizer_of_the_same_files_makes_the_same_tokens(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    data = encoded(tmp_path, rows, length=17)
    again = list(rows_of_tokens(data, np.arange(len(data)), tokenizer()))
    assert again == [ids.tolist() for ids in data.input_ids]


def test_of_several_templates_one_must_be_the_default(tmp_path: Path) -> None:
    made = tokenizer()
    made.chat_template = {"tools": TEMPLATE, "plain": TEMPLATE}
    dataset = load_chat(DataSpec(train=str(write_rows(tmp_path / "rows.jsonl", [{"messages": TALK}]))), seed=0)
    with pytest.raises(ModelError, match=r"^model.base: must have a default chat template, got "):
        encode_chat(dataset, made, 64)


def test_the_fingerprint_is_of_what_is_trained(tmp_path: Path) -> None:
    rows = [{"prompt": "a ", "completion": "plot", "text": "a plot"}]
    one = encoded(tmp_path, rows)
    assert one.fingerprint == encoded(tmp_path, rows).fingerprint
    assert one.fingerprint != encoded(tmp_path, rows, format="text").fingerprint
