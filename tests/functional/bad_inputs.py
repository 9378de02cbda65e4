"""More than a hundred bad inputs, each small enough to be written by hand. What each gets is in bad_inputs.txt.

Every case is a change to one experiment that is right: its file (``spec``), its data (``data``), its model folder
(``model``) or the command line (``arguments``). Where the wording of a mistake changes, look at every line of
``python tests/functional/bad_inputs.py``, and then write them to bad_inputs.txt.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bad_answers import ANSWERS, in_table, json_file, labelled, rows
from tiny_decoder import write_decoder
from tiny_world import sentences, write_model

# after these a library gives its reasons, in words that change with its version
_REASONS = re.compile(
    r"(cannot be read(?: as parquet)?|transformers can load, got '[^']*'|is not JSON|damaged or foreign file): .*"
)
RECORD = Path(__file__).with_suffix(".txt")
PLAIN = "text,label\n" + "".join(f"{text},{label}\n" for text, label in sentences(24))


@dataclass(frozen=True)
class Bad:
    """One case.

    Attributes:
        about: what is wrong, in a few words; no two are the same.
        spec: tables of the experiment to change, or the whole file as text or bytes.
        data: content of ``data.train``, with the name of the file; a function may make it in the folder.
        model: what to do to the folder of the model.
        arguments: of the command line, instead of ``plan spec.toml``.
    """

    about: str
    spec: dict[str, Any] | str | bytes | None = None
    data: tuple[str, bytes | str] | Callable[[Path], str] | None = None
    model: Callable[[Path], None] | None = None
    arguments: tuple[str, ...] = ("plan", "spec.toml")
    before: Callable[[Path], None] | None = field(default=None)


def base_spec() -> dict[str, Any]:
    return {
        "name": "films",
        "model": {"base": "model"},
        "data": {"train": "data.csv"},
        "cv": {"folds": 2},
        "search": {"rank": [1], "targets": ["query+value"], "layers": ["all"], "trials": 1},
        "training": {"epochs": 1, "precision": "fp32"},
        "verdict": {"metric": "accuracy"},
    }


def chats(*rows: Any) -> tuple[str, str]:
    return "data.jsonl", "".join(json.dumps(row) + "\n" for row in rows)


def said_by(*turns: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in map(str.split, turns)]}


def decoder(**config: Any) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        shutil.rmtree(folder)
        write_decoder(folder, **config)

    return replace


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def folder_as_data(folder: Path) -> str:
    (folder / "rows").mkdir()
    return "rows"


def no_data(folder: Path) -> str:
    return "nowhere.csv"


def edit(path: Path, **values: Any) -> None:
    kept = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))


def config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **values)


def file(name: str, content: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def one_down(folder: Path) -> None:
    (folder / "0_Transformer").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(folder / "0_Transformer" / path.name)


def torn(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def added_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)


def beside(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text("mine")


def a_study_of_another_kind(folder: Path) -> None:
    (folder / "results" / "films").mkdir(parents=True)
    (folder / "results" / "films" / "study.db").write_bytes(b"no database")


LONG = "x" * 5000
DEEP = "[" * 5000

FILE = [
    Bad("no TOML", "name = ["),
    Bad("an empty file", ""),
    Bad("bytes that are no text", b"name = \xff\xfe"),
    Bad("a table twice", "[model]\nbase = 'a'\n[model]\nbase = 'b'\n"),
    Bad("a key twice", "name = 'a'\nname = 'b'\n"),
    Bad("a path with backslashes in double quotes", '[data]\ntrain = "C:\\Users\\kim\\data.csv"\n'),
    Bad("lists in lists in lists", f"name = {DEEP}"),
    Bad("a number of thousands of digits", f"seed = {'9' * 5000}"),
    Bad("a hexadecimal number of thousands of digits", f"seed = 0x{'f' * 5000}"),
    Bad("another file format", '{"name": "films"}'),
    Bad("a name that leaves the folder", {"name": "../films"}),
    Bad("a name that is a path", {"name": "/tmp/films"}),
    Bad("a name with a folder in it", {"name": "a/b"}),
    Bad("a name of two dots", {"name": ".."}),
    Bad("a hidden name", {"name": ".films"}),
    Bad("a name with a line break", {"name": "films\n"}),
    Bad("a name with a null byte", {"name": "films\0"}),
    Bad("a name with a space", {"name": "my films"}),
    Bad("a name too long", {"name": LONG}),
    Bad("no name", {"name": ""}),
    Bad("a name that is a number", {"name": 7}),
    Bad("a seed below zero", {"seed": -1}),
    Bad("a seed beyond 32 bits", {"seed": 2**32}),
    Bad("a seed with a point", {"seed": 1.5}),
    Bad("a table that is a value", {"cv": 5}),
    Bad("a table that is a list", {"data": [1]}),
    Bad("a misspelt table", {"serch": {"rank": [1]}}),
    Bad("a misspelt key", in_table("search", ranks=[1])),
    Bad("a key in the wrong table", in_table("training", rank=[1])),
    Bad("a key of five thousand letters", {LONG: 1}),
    Bad("no base", in_table("model", base="")),
    Bad("an unknown task", in_table("model", task="translation")),
    Bad("quantization to 8 bits", in_table("model", quantization="int8")),
    Bad("trust that is no truth value", in_table("model", trust_remote_code="yes")),
    Bad("a rank of zero", in_table("search", rank=[1, 0])),
    Bad("a rank that is text", in_table("search", rank=["8"])),
    Bad("a rank that is true", in_table("search", rank=[True])),
    Bad("no ranks", in_table("search", rank=[])),
    Bad("a rank twice", in_table("search", rank=[2, 2])),
    Bad("a rank too large for any model", in_table("search", rank=[10**6])),
    Bad("a ratio of zero", in_table("search", alpha_over_rank=[0])),
    Bad("a misspelt group of targets", in_table("search", targets=["atention"])),
    Bad("a target that is no name", in_table("search", targets=["q proj"])),
    Bad("an empty list of layers", in_table("search", layers=[[]])),
    Bad("layers from below", in_table("search", layers=["bottom-2"])),
    Bad("a share of layers above one", in_table("search", layers=["top-3/2"])),
    Bad("a layer below zero", in_table("search", layers=[[-1]])),
    Bad("a range upside down", in_table("search", learning_rate={"low": 0.1, "high": 0.01})),
    Bad("half a range", in_table("search", learning_rate={"low": 0.1})),
    Bad("a learning rate in words", in_table("search", learning_rate="small")),
    Bad("a dropout of one", in_table("search", dropout=[1.0])),
    Bad("a DoRA in words", in_table("search", use_dora=["yes"])),
    Bad("a DoRA twice", in_table("search", use_dora=[True, True])),
    Bad("ranks by a kind that is none", in_table("search", rank_pattern=["atention:2"])),
    Bad("ranks of PEFT's own form", in_table("search", rank_pattern={"q_proj": 4})),
    Bad("a kind without a factor", in_table("search", rank_pattern=["mlp"])),
    Bad("a factor of nothing", in_table("search", rank_pattern=["attention:2,mlp:0"])),
    Bad("a factor below zero", in_table("search", rank_pattern=["mlp:-1"])),
    Bad("a kind with two factors", in_table("search", rank_pattern=["mlp:2,mlp:3"])),
    Bad("EVA misspelt", in_table("search", rank_pattern=["evaa"])),
    Bad("one rank in two spellings", in_table("search", rank_pattern=["uniform", "mlp:1"])),
    Bad("alphas by module in PEFT's words", in_table("search", alpha_pattern={"q_proj": 4})),
    Bad("biases of all modules", in_table("search", bias="all")),
    Bad("a scale in PEFT's words", in_table("search", use_rslora=True)),
    Bad("an initialisation that changes the base", in_table("search", init_lora_weights="pissa")),
    Bad("B's rate in another table", in_table("search", loraplus_lr_ratio=16)),
    Bad("a B slower than A", in_table("training", loraplus_lr_ratio=0.5)),
    Bad("no trials", in_table("search", trials=0)),
    Bad("more trials than anybody has time for", in_table("search", trials=10**12)),
    Bad("one fold", in_table("cv", folds=1)),
    Bad("folds with a point", in_table("cv", folds=2.5)),
    Bad("no epochs", in_table("training", epochs=0)),
    Bad("more epochs than anybody has time for", in_table("training", epochs=10**9)),
    Bad("a batch of none", in_table("training", batch_size=0)),
    Bad("an unknown precision", in_table("training", precision="fp16")),
    Bad("warm-up to the end", in_table("training", warmup_ratio=1.0)),
    Bad("a hold-out of all", in_table("data", holdout=1.0)),
    Bad("a sample of three", in_table("data", max_examples=3)),
    Bad("texts of three tokens", in_table("data", max_length=3)),
    Bad("an unknown engine", in_table("execution", engine="rya")),
    Bad("an address of no cluster", in_table("execution", address="auto")),
    Bad("no workers", in_table("execution", workers=0)),
    Bad("half a CPU", in_table("execution", cpus_per_worker=0.5)),
    Bad("a worker on two GPUs", in_table("execution", gpus_per_worker=2)),
    Bad("an unknown key of the execution", in_table("execution", worker=2)),
    Bad("an unknown metric", in_table("verdict", metric="acuracy")),
    Bad("a margin in percent", in_table("verdict", margin=5)),
    Bad("a margin that is no number", "name = 'a'\n[verdict]\nmetric = 'accuracy'\nmargin = nan\n"),
    Bad("a confidence of one", in_table("verdict", confidence=1.0)),
    Bad("a value far too long", in_table("verdict", metric=LONG)),
]

DATA = [
    Bad("no such data", data=no_data),
    Bad("a folder of nothing", data=folder_as_data),
    Bad("a format nobody reads", data=("data.xlsx", b"PK")),
    Bad("no ending", data=("data", PLAIN)),
    Bad("a package that is not there", in_table("data", train="package:no_such_package/data.csv")),
    Bad("a package and no file", in_table("data", train="package:json")),
    Bad("a file outside its package", in_table("data", train="package:json/../os.py")),
    Bad("a hub name that is none", in_table("data", train="hub:a b")),
    Bad("data of five thousand letters", in_table("data", train=LONG)),
    Bad("data with a null byte", in_table("data", train="a\0.csv")),
    Bad("an empty table", data=("data.csv", "")),
    Bad("a header and no rows", data=rows("")),
    Bad("semicolons", data=("data.csv", PLAIN.replace(",", ";"))),
    Bad("a comma in a text without quotes", data=rows("good, very,a\nbad,b\n")),
    Bad("a stray quote", data=rows('one,a\n"two,b\nthree,a\n"four,b\n')),
    Bad("a stray quote that takes rows in", data=rows('one,a\n"two,b\nthree,a\nfour",b\nfive,a\n')),
    Bad("a quote never closed", data=rows('one,a\n"two,b\nthree,a\n')),
    Bad("a text that goes on after its quote", data=rows('"Great" film,a\nbad,b\n')),
    Bad("Latin-1", data=("data.csv", "text,label\ncafé,a\n".encode("latin-1"))),
    Bad("UTF-16", data=("data.csv", PLAIN.encode("utf-16"))),
    Bad("a column that is not there", in_table("data", text="txet")),
    Bad("two columns that are not there", in_table("data", text="quote", label="kind")),
    Bad("a column twice", data=rows("a,b,c\n", header="text,text,label")),
    Bad("the label as the text", in_table("data", text="label")),
    Bad("a column of five thousand letters", data=rows("a,b\n", header=f"{LONG},label")),
    Bad("missing labels", data=labelled("a", "b", "", "a", "b", "")),
    Bad("labels that cannot be seen", data=labelled("a", "b", "\u200b", "a", "b")),
    Bad("empty texts", data=rows("one,a\n,b\n  ,a\nfour,b\n")),
    Bad("one class", data=labelled(*"aaaa")),
    Bad("a label for every row", data=labelled(*(f"{number / 7:.3f}" for number in range(30)))),
    Bad("a text as long as a book for a label", data=labelled(*(f"{n} {LONG}" for n in range(30)))),
    Bad("too few of a class", in_table("cv", folds=4), data=labelled(*"aaaabbb")),
    Bad("too few of many classes", in_table("cv", folds=4), data=labelled(*(f"c{n // 3:02}" for n in range(60)))),
    Bad("too few of a class that looks like another", data=labelled(*"aaaabbb", "B")),
    Bad(
        "a group that holds a class",
        in_table("data", group="who"),
        data=rows("".join(f"film {n},{'ab'[n < 3]},{min(n, 3)}\n" for n in range(2, 20)), header="text,label,who"),
    ),
    Bad("a label to drop that is not there", in_table("data", drop_labels=["c"])),
    Bad("every class dropped", in_table("data", drop_labels=["fresh", "rotten"])),
    Bad("a sample without a class", in_table("data", max_examples=4), data=labelled(*"aaaaaaaaaab")),
    Bad("a hold-out of everything but a few", in_table("data", holdout=0.89)),
    Bad("a split of a csv file", in_table("data", split="test")),
    Bad("a configuration of a csv file", in_table("data", config="plain")),
    Bad("json that is none", data=("data.json", "{")),
    Bad("two objects in json", data=("data.json", '{"text": "a"} {"text": "b"}\n')),
    Bad("json without a table", data=json_file({"version": 1})),
    Bad("json with several tables", data=json_file({"one": [{"text": "a"}], "two": [{"text": "b"}]})),
    Bad("json with uneven columns", data=json_file({"text": ["a"], "label": ["b", "c"]})),
    Bad("json nested too deeply", data=("data.json", DEEP)),
    Bad("a list in jsonl", data=("data.jsonl", '["a"]\n')),
    Bad("a torn line in jsonl", data=("data.jsonl", '{"text": "a", "label": "b"}\n{"text": \n')),
    Bad("texts that are numbers", data=json_file([{"text": 1, "label": "a"}, {"text": 2, "label": "b"}])),
    Bad("labels that are lists", data=json_file([{"text": "a", "label": list(range(5000))}])),
    Bad("labels with a point", data=json_file([{"text": "a", "label": 0.5}, {"text": "b", "label": 1.5}])),
    Bad("half a character", data=json_file([{"text": "\ud800", "label": "a"}])),
    Bad("parquet that is none", data=("data.parquet", b"PAR1")),
    Bad("gzip that is none", data=("data.csv.gz", b"text,label\n")),
    Bad("gzip cut short", data=("data.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)[:-20])),
    Bad("bzip2 that is none", data=("data.csv.bz2", bz2.compress(PLAIN.encode())[:20])),
    Bad("xz that is none", data=("data.csv.xz", lzma.compress(PLAIN.encode())[5:])),
    Bad("zstandard that is none", data=("data.csv.zst", b"text,label\n")),
    Bad("an archive of two files", data=("data.zip", zipped(**{"a.csv": PLAIN, "b.csv": PLAIN}))),
    Bad("an archive of nothing to read", data=("data.zip", zipped(**{"a.txt": PLAIN}))),
]

MODEL = [
    Bad("no such model", in_table("model", base="./nowhere")),
    Bad("a model of the hub that is not here", in_table("model", base="owner/bert")),
    Bad("a revision of a folder", in_table("model", revision="main")),
    Bad("a file for a model", in_table("model", base="model/config.json")),
    Bad("a GGUF file outside the folder", in_table("model", gguf_file="../x.gguf")),
    Bad("a GGUF file that is not there", in_table("model", gguf_file="x.gguf")),
    Bad("a model without config", model=without("config.json")),
    Bad("a config that is no JSON", model=file("config.json", "{")),
    Bad("a config of an unknown kind", model=config(model_type="unheard_of")),
    Bad("a model without weights", model=without("model.safetensors")),
    Bad("pickled weights", model=pickled),
    Bad("torn weights", model=torn),
    Bad("a model one folder down", model=one_down),
    Bad("a model without tokenizer", model=without("tokenizer.json", "tokenizer_config.json")),
    Bad("a tokenizer that is no JSON", model=file("tokenizer.json", "{")),
    Bad("a model with an adapter", model=file("adapter_config.json", '{"base_model_name_or_path": "owner/bert"}')),
    Bad("quantized weights", model=config(quantization_config={"quant_method": "gptq", "bits": 4})),
    Bad(
        "weights quantized to 8 bits",
        model=config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
    ),
    Bad("code of its own", model=config(model_type="own", auto_map={"AutoConfig": "own.Config"})),
    Bad("weights of an encoder as an encoder-decoder's", model=config(model_type="bart", architectures=["BartModel"])),
    Bad("layers that share their weights", model=config(model_type="albert", architectures=["AlbertModel"])),
    Bad("two stacks of layers", model=config(model_type="flaubert", architectures=["FlaubertModel"])),
    Bad("layers the checkpoint lacks", model=config(num_hidden_layers=9)),
    Bad("tokens without embeddings", data=("data.csv", PLAIN.replace("film", "zebra")), model=added_tokens),
    Bad("a module that is not there", in_table("search", targets=["q_proj"])),
    Bad("a module of five thousand letters", in_table("search", targets=[LONG])),
    Bad("a layer that is not there", in_table("search", layers=[[7]])),
    Bad("ranks that differ nowhere", in_table("search", rank_pattern=["uniform", "mlp:0.5"], targets=["attention"])),
    Bad("half of rank 1", in_table("search", rank_pattern=["mlp:0.5"], rank=[1], targets=["all-linear"])),
    Bad(
        "a rank times a factor too large",
        in_table("search", rank_pattern=["mlp:64"], rank=[128], targets=["mlp", "all-linear"]),
    ),
    Bad("EVA of one module", in_table("search", rank_pattern=["eva"], targets=["query"], layers=["top-1"])),
    Bad("more layers than there are", in_table("search", layers=["top-9"])),
    Bad(
        "texts that are all the same once cut",
        in_table("data", max_length=4),
        data=("data.csv", PLAIN.replace("\n", "\nthe film ").removesuffix("the film ")),
    ),
    Bad("texts of unknown words", data=rows("".join(f"ልጅ{n},{'ab'[n % 2]}\n" for n in range(9)))),
]

COMMAND = [
    Bad("no such file", arguments=("plan", "spce.toml")),
    Bad("a folder for a file", arguments=("plan", "model")),
    Bad("an override without a value", arguments=("plan", "spec.toml", "--set", "cv.folds")),
    Bad("an override without a key", arguments=("plan", "spec.toml", "--set", "=3")),
    Bad("an override of an unknown key", arguments=("plan", "spec.toml", "--set", "cv.fold=3")),
    Bad("an override that breaks a rule", arguments=("plan", "spec.toml", "--set", "cv.folds=1")),
    Bad("an override with a line break", arguments=("plan", "spec.toml", "--set", "cv.folds=3\nseed=1")),
    Bad("an override that is no text", arguments=("plan", "spec.toml", "--set", "name=\udcff")),
    Bad("no trials on the command line", arguments=("plan", "spec.toml", "--trials", "0")),
    Bad("targets of nothing", arguments=("targets", "")),
    Bad("targets of a file", arguments=("targets", "data.csv")),
    Bad("targets of a hub name that is none", arguments=("targets", "a b/c")),
    Bad("results that are a file", before=beside("results"), arguments=("run", "spec.toml", "--quiet")),
    Bad("the status of nothing", arguments=("status", "results/films")),
    Bad("the verdict of a file", arguments=("verdict", "data.csv")),
    Bad("the report of a folder of something else", arguments=("report", "model")),
    Bad("the export of a study that is none", arguments=("export", "results/films", "out"),
        before=a_study_of_another_kind),
    Bad("a run into a study that is none", arguments=("run", "spec.toml", "--quiet"), before=a_study_of_another_kind),
]  # fmt: skip

CHAT = {"model": {"task": "causal-lm"}, "verdict": {"metric": "completion_loss"}}
GOOD_CHATS = [said_by("user film", f"assistant {word}") for word in ("dull", "witty", "stale", "bright")]
COMPLETIONS = [
    Bad("chats of no known columns", CHAT, chats({"question": "a", "answer": "b"})),
    Bad("an unknown role", CHAT, chats(said_by("user film", "bot dull"))),
    Bad("a role out of order", CHAT, chats(*GOOD_CHATS, said_by("user film", "user plot", "assistant dull"))),
    Bad("an assistant who begins", CHAT, chats(*GOOD_CHATS, said_by("assistant dull"))),
    Bad("an empty completion", CHAT, chats({"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": " "})),
    Bad("messages that are texts", CHAT, chats({"messages": "film"})),
    Bad("a metric of classes for a language model", {**CHAT, "verdict": {"metric": "accuracy"}}, chats(*GOOD_CHATS)),
    Bad("a label for a language model", {**CHAT, "data": {"label": "kind"}}, chats(*GOOD_CHATS)),
    Bad("a language model without its head", CHAT, chats(*GOOD_CHATS)),
    Bad("no chat template", CHAT, chats(*GOOD_CHATS), decoder(template=None)),
    Bad(
        "a chat template that refuses", CHAT, chats(*GOOD_CHATS), decoder(template="{{ raise_exception('no users') }}")
    ),
    Bad("nothing to train within the limit", {**CHAT, "data": {"max_length": 4}}, chats(*GOOD_CHATS), decoder()),
]

ALL = [*FILE, *DATA, *MODEL, *COMPLETIONS, *(Bad(*case) for case in ANSWERS), *COMMAND]


def said(bad: Bad, folder: Path, model: Path) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a case, tried in an empty folder.

    Args:
        bad: the case.
        folder: where to put its files.
        model: the folder of a small model.
    """
    from lora_search import cli
    from lora_search.spec.toml import toml_document

    shutil.copytree(model, folder / "model")
    spec = base_spec()
    name, content = bad.data if isinstance(bad.data, tuple) else ("data.csv", PLAIN)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    spec["data"]["train"] = bad.data(folder) if callable(bad.data) else name
    if isinstance(bad.spec, dict):
        for key, value in bad.spec.items():
            merged = isinstance(value, dict) and isinstance(spec.get(key), dict)
            spec[key] = {**spec[key], **value} if merged else value
    document = bad.spec if isinstance(bad.spec, str | bytes) else toml_document(spec)
    (folder / "spec.toml").write_bytes(document.encode() if isinstance(document, str) else document)
    if bad.model is not None:
        bad.model(folder / "model")
    if bad.before is not None:
        bad.before(folder)
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["lora-search", *bad.arguments]
    code: Any = 0
    try:
        with chdir(folder), redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as exit_:
        code = exit_.code
    finally:
        sys.argv = before
    told = err.getvalue().replace(str(folder), "FOLDER")
    return code, out.getvalue(), _REASONS.sub(r"\1: REASON", told)


def recorded() -> dict[str, str]:
    """What each case gets, by what it is about."""
    found: dict[str, str] = {}
    for block in RECORD.read_text(encoding="utf-8").split("\n# ")[1:]:
        about, _, lines = block.partition("\n")
        found[about] = lines.strip("\n") + "\n"
    return found


def record(model: Path) -> Iterator[str]:
    """The lines of bad_inputs.txt."""
    yield "Bad inputs and what each gets on standard error. Made by bad_inputs.py.\n"
    for bad in ALL:
        with TemporaryDirectory() as folder:
            code, _, err = said(bad, Path(folder).resolve(), model)
        yield f"\n# {bad.about}\n{err}" + ("" if code == 2 else f"EXIT {code}\n")


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        sys.stdout.writelines(record(write_model(Path(place) / "model")))
