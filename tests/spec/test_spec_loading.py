"""What a person sees who gets an experiment file wrong, and what the program sees when it is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_search.errors import ExperimentError
from lora_search.spec import Range, load_experiment

SMALLEST = """
name = "reviews"
[model]
base = "hub:owner/model"
[data]
train = "hub:owner/data"
[verdict]
metric = "accuracy"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The smallest experiment, as ``a.toml`` in the current directory."""
    monkeypatch.chdir(tmp_path)
    path = Path("a.toml")
    path.write_text(SMALLEST)
    return path


def mistakes(path: Path, *overrides: str, trials: int | None = None) -> tuple[str, ...]:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path, overrides, trials)
    return caught.value.mistakes


def with_line(path: Path, table: str, *lines: str) -> Path:
    """The smallest experiment with lines added to one table (``""``: before all tables)."""
    added = "\n".join(lines) + "\n"
    text = path.read_text()
    if not table:
        text = added + text
    elif f"[{table}]\n" in text:
        text = text.replace(f"[{table}]\n", f"[{table}]\n{added}")
    else:
        text += f"[{table}]\n{added}"
    path.write_text(text)
    return path


def test_the_smallest_file_gets_every_default(file: Path) -> None:
    experiment = load_experiment(file)
    assert experiment.search.rank == (1, 2, 4, 8, 16)
    assert experiment.search.learning_rate == "auto"
    assert (experiment.cv.folds, experiment.search.trials, experiment.verdict.margin) == (5, 24, 0.01)


def test_one_value_stands_for_a_list_of_one(file: Path) -> None:
    with_line(file, "search", "rank = 8", "alpha_over_rank = 2", 'targets = "mlp"', 'layers = "all"', "dropout = 0.1")
    with_line(file, "data", 'drop_labels = "plot"')
    experiment = load_experiment(file)
    search = experiment.search
    assert (search.rank, search.alpha_over_rank, search.dropout) == ((8,), (2.0,), (0.1,))
    assert (search.targets, search.layers, experiment.data.drop_labels) == (("mlp",), ("all",), ("plot",))


def test_bare_layer_numbers_are_one_choice(file: Path) -> None:
    with_line(file, "search", "layers = [4, 3]")
    assert load_experiment(file).search.layers == ("3,4",)


def test_choices_are_brought_to_one_spelling(file: Path) -> None:
    with_line(file, "search", 'layers = ["top-2/6", [5, 3]]', 'targets = [["v_proj", "q_proj"], "attention"]')
    search = load_experiment(file).search
    assert search.layers == ("top-1/3", "3,5")
    assert search.targets == ("q_proj,v_proj", "attention")


def test_all_mistakes_come_at_once_one_line_each(file: Path) -> None:
    file.write_text("""
name = "two words"
sede = 1
[model]
base = "x"
[data]
train = "hub:a/b"
text = 3
[cv]
folds = 1
[search]
rank = [1, 2, 0, "8", true]
learning_rate = { low = 0, high = 0.1 }
trials = 1.5
[training]
precision = "fp23"
gradient_checkpointing = "on"
weight_decay = nan
[verdict]
metric = "acuracy"
margin = 1
""")
    assert mistakes(file) == (
        'a.toml: name: must be letters, digits, ".", "_" and "-", starting with a letter or a digit, got "two words"',
        "a.toml: data.text: must be text, got 3",
        "a.toml: cv.folds: must be at least 2, got 1",
        "a.toml: search.rank[2]: must be at least 1, got 0",
        'a.toml: search.rank[3]: must be a whole number, got "8"',
        "a.toml: search.rank[4]: must be a whole number, got true",
        "a.toml: search.learning_rate.low: must be above 0, got 0",
        "a.toml: search.trials: must be a whole number, got 1.5",
        "a.toml: training.weight_decay: must be a finite number, got nan",
        'a.toml: training.precision: must be auto, fp32 or bf16, got "fp23", did you mean "fp32"?',
        'a.toml: training.gradient_checkpointing: must be auto, true or false, got "on"',
        "a.toml: verdict.metric: must be accuracy, macro_f1, matthews_correlation, micro_f1, subset_accuracy, "
        "entity_f1, entity_precision, entity_recall, entity_f1_lenient, token_accuracy, completion_loss, "
        'completion_accuracy, pearson, spearman or rmse, got "acuracy", did you mean "accuracy"?',
        "a.toml: verdict.margin: must be below 1, got 1",
        "a.toml: sede: unknown key, did you mean seed?",
    )


def test_an_empty_file_lacks_every_required_key(file: Path) -> None:
    file.write_text("")
    assert mistakes(file) == (
        "a.toml: name: is missing",
        "a.toml: model.base: is missing",
        "a.toml: data.train: is missing",
        "a.toml: verdict.metric: is missing",
    )


@pytest.mark.parametrize(
    ("table", "line", "expected"),
    [
        ("search", "rnak = 1", "search.rnak: unknown key, did you mean search.rank?"),
        ("", "rank = 1", "rank: unknown key, did you mean search.rank?"),
        ("training", "learning_rate = 1e-3", "training.learning_rate: unknown key, did you mean search.learning_rate?"),
        ("data", "lora_dropout = 1", "data.lora_dropout: unknown key, did you mean search.dropout?"),
        ("serch", "rank = 1", "serch: unknown key, did you mean search?"),
        ("data", "zzz = 1", "data.zzz: unknown key"),
        ("", "number = 3", "number: unknown key"),
        ("range", "low = 1", "range: unknown key"),
        ("word", "", "word: unknown key"),
        ("search", "range = 1", "search.range: unknown key, did you mean search.rank?"),
        (
            "search",
            "learning_rate = { low = 1e-4, range = 1e-3, high = 0.1 }",
            "search.learning_rate.range: unknown key",
        ),
        ("data", '"a b" = 1', 'data."a b": unknown key'),
        (
            "search",
            "learning_rate = { low = 1e-4, hihg = 1e-3, high = 0.1 }",
            "search.learning_rate.hihg: unknown key, ",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_meant(file: Path, table: str, line: str, expected: str) -> None:
    (mistake,) = mistakes(with_line(file, table, line))
    assert mistake.startswith(f"a.toml: {expected}")


def test_an_override_of_an_unknown_key_may_have_any_name(file: Path) -> None:
    for name in ("number", "range", "word"):
        (mistake,) = mistakes(file, f"{name}=3")
        assert mistake.startswith(f"--set: {name}: unknown key")


def test_a_misspelt_table_is_one_mistake(file: Path) -> None:
    file.write_text(SMALLEST.replace("[model]", "[modle]"))
    assert mistakes(file) == ("a.toml: modle: unknown key, did you mean model?",)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("learning_rate = 0", "search.learning_rate: must be above 0, got 0"),
        (
            'learning_rate = "fast"',
            'search.learning_rate: must be "auto", a number, or a range { low = ..., high = ... }, got "fast"',
        ),
        ("learning_rate = { low = 1e-4 }", "search.learning_rate.high: is missing"),
        (
            "learning_rate = { low = 2, high = 1 }",
            "search.learning_rate: low must be below high, got { low = 2, high = 1 }",
        ),
        ("rank = 0", "search.rank: must be at least 1, got 0"),
        ("rank = []", "search.rank: must not be empty, got []"),
        ("rank = [4, 2, 4]", "search.rank: must not repeat a choice, got [4, 2, 4]"),
        ('layers = ["top-1/2", "top-2/4"]', 'search.layers: must not repeat a choice, got ["top-1/2", "top-2/4"]'),
        (
            "layers = [3, -1]",
            'search.layers: must be "all", "top-N", "top-A/B" (at most 1) or a list of layer indices from 0, '
            "got [3, -1]",
        ),
        (
            'layers = ["all", "top1/2"]',
            'search.layers[1]: must be "all", "top-N", "top-A/B" (at most 1) or a list of layer indices from 0, '
            'got "top1/2", did you mean "top-1/2"?',
        ),
        (
            'targets = ["mlp", "atention"]',
            "search.targets[1]: must be one of query+value, attention, mlp, all-linear, or module names, "
            'got "atention", did you mean "attention"?',
        ),
        (
            'targets = "all_linear"',
            "search.targets: must be one of query+value, attention, mlp, all-linear, or module names, "
            'got "all_linear", did you mean "all-linear"?',
        ),
        ("dropout = 1", "search.dropout: must be below 1, got 1"),
        ('scaling = "rs-lora"', 'search.scaling: must be lora or rslora, got "rs-lora", did you mean "rslora"?'),
    ],
)
def test_each_rule_of_the_search_is_one_clean_line(file: Path, line: str, expected: str) -> None:
    assert mistakes(with_line(file, "search", line)) == (f"a.toml: {expected}",)


def test_a_long_value_is_cut_short(file: Path) -> None:
    (mistake,) = mistakes(with_line(file, "search", f"rank = {list(range(-1, -60, -1))}"))[:1]
    assert mistake == "a.toml: search.rank[0]: must be at least 1, got -1"
    (mistake,) = mistakes(file, f"search.rank={[1] * 60}")
    assert mistake.endswith("1, 1...")
    assert len(mistake) < 140


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "a"\nseed 0\n', "a.toml: line 2, column 6: expected '=' after a key in a key/value pair"),
        ('name = "a"\n[model', "a.toml: line 2, at its end: expected ']' at the end of a table declaration"),
        ("", "a.toml: name: is missing"),
    ],
)
def test_broken_toml_is_one_line_with_its_line_number(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    assert mistakes(file)[0] == expected


def test_files_that_are_no_experiment(file: Path, tmp_path: Path) -> None:
    assert mistakes(Path("b.toml")) == ("b.toml: no such file, did you mean a.toml?",)
    assert mistakes(Path("nowhere/else.toml")) == ("nowhere/else.toml: no such file",)
    assert mistakes(tmp_path) == (f"{tmp_path}: must be an experiment file, got a folder",)
    file.write_bytes(b"name = '\xff'")
    assert mistakes(file) == ("a.toml: must be UTF-8 text, got other bytes at position 8",)


def test_a_byte_order_mark_is_no_mistake(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert load_experiment(file).name == "reviews"


def test_overrides_are_toml_or_else_text(file: Path) -> None:
    experiment = load_experiment(
        file,
        [
            "search.rank=[2, 4]",
            "search.learning_rate={low = 1e-4, high = 1e-2}",
            "data.text = quote",
            'data.label="category"',
            "cv.folds=3",
            "cv.folds=4",
            "data.split=train\nname = 'smuggled'",
        ],
    )
    assert experiment.search.rank == (2, 4)
    assert experiment.search.learning_rate == Range(low=1e-4, high=1e-2)
    assert (experiment.data.text, experiment.data.label, experiment.cv.folds) == ("quote", "category", 4)
    assert (experiment.name, experiment.data.split) == ("reviews", "train\nname = 'smuggled'")


def test_an_override_can_change_one_end_of_a_range(file: Path) -> None:
    with_line(file, "search", "learning_rate = { low = 1e-4, high = 1e-3 }")
    assert load_experiment(file, ["search.learning_rate.high=0.5"]).search.learning_rate == Range(low=1e-4, high=0.5)


def test_an_override_mends_the_file(file: Path) -> None:
    with_line(file, "search", "rank = 0")
    assert load_experiment(file, ["search.rank=1"]).search.rank == (1,)


def test_mistakes_say_where_the_value_came_from(file: Path) -> None:
    with_line(file, "cv", "folds = 1")
    found = mistakes(file, "rank", "search.rank=[1, 0]", "search.rnak=1", "=3", "verdict.margin=9", trials=0)
    assert found == (
        '--set: must be KEY=VALUE, got "rank"',
        '--set: must be KEY=VALUE, got "=3"',
        "a.toml: cv.folds: must be at least 2, got 1",
        "--set: search.rank[1]: must be at least 1, got 0",
        "--trials: search.trials: must be at least 1, got 0",
        "--set: search.rnak: unknown key, did you mean search.rank?",
        "--set: verdict.margin: must be below 1, got 9",
    )


def test_overrides_are_checked_even_when_the_file_is_missing(file: Path) -> None:
    assert mistakes(Path("nowhere/b.toml"), "oops") == (
        "nowhere/b.toml: no such file",
        '--set: must be KEY=VALUE, got "oops"',
    )


def test_trials_wins_over_file_and_override(file: Path) -> None:
    assert load_experiment(file, ["search.trials=5"], trials=7).search.trials == 7


def test_local_paths_are_found_from_here_first_and_then_from_the_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    elsewhere = tmp_path / "project" / "a.toml"
    elsewhere.write_text(SMALLEST.replace("hub:owner/data", "train.csv").replace("hub:owner/model", "model"))
    assert load_experiment(elsewhere).data.train == "train.csv"

    (tmp_path / "project" / "train.csv").touch()
    (tmp_path / "project" / "model").mkdir()
    experiment = load_experiment(elsewhere)
    assert experiment.data.train == str(tmp_path / "project" / "train.csv")
    assert experiment.model.base == str(tmp_path / "project" / "model")

    (tmp_path / "train.csv").touch()
    assert load_experiment(elsewhere).data.train == str(tmp_path / "train.csv")


def test_hub_ids_and_package_files_stay_as_written(file: Path, tmp_path: Path) -> None:
    (tmp_path / "hub:owner").mkdir()
    (tmp_path / "hub:owner" / "data").touch()
    assert load_experiment(file).data.train == "hub:owner/data"
    assert load_experiment(file, ["data.train=package:name/file.csv"]).data.train == "package:name/file.csv"
    assert load_experiment(file, [f"model.base={'x' * 5000}"]).model.base == "x" * 5000
