"""The ``lora-search`` command: parse, call one function, print.

Exit codes: 0 done; 2 the user's input is wrong (one line per mistake on standard error, with file and key path);
130 interrupted and 143 terminated (what was finished is recorded); 1 a bug, with its traceback.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from lora_search.errors import InputError


@contextmanager
def _interruptible() -> Iterator[None]:
    """An interrupt inside says how to go on, and ends with the exit code that shells give its signal."""
    try:
        yield
    except KeyboardInterrupt as interrupted:
        folder = getattr(interrupted, "folder", None)
        _say(f"Interrupted. {f'Everything finished is in {folder}; go' if folder else 'Go'} on with:")
        _say("  " + _command_line())
        # a run has told apart which signal it was; elsewhere the class of the interrupt does
        terminated = getattr(interrupted, "terminated", type(interrupted) is not KeyboardInterrupt)
        raise typer.Exit(143 if terminated else 130) from None


class _Commands(TyperGroup):
    """All commands; whichever is interrupted, and wherever in it, says so in two lines."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _interruptible():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _interruptible():
                return super().invoke(ctx)
        except BrokenPipeError:  # else it ends as a failure
            _write_nothing_more()
            raise typer.Exit(0) from None


app = typer.Typer(
    name="lora-search",
    cls=_Commands,
    help="Which LoRA rank do you need? The smallest adapter that is not worse than the best, with evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _check_results_path(results: Path) -> Path:
    """Told at once, and not when data and model are loaded."""
    from lora_search.spec.paths import kind_of
    from lora_search.spec.quoting import quoted_path

    if kind_of(results, key="--results", error=InputError) == "file":
        raise InputError.about("--results", "must be a folder, or nothing yet", got=f"{quoted_path(results)}, a file")
    return results


def _check_storage(storage: str | None) -> str | None:
    """Before anything else is done that might repeat it: it may hold a password."""
    from lora_search.store.address import checked_storage

    return None if storage is None else checked_storage(storage)


SpecPath = Annotated[Path, typer.Argument(metavar="SPEC.toml", help="The experiment.", show_default=False)]
StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder: results/NAME.", show_default=False)]
Results = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="Where study folders are.", callback=_check_results_path)
]
_STORAGE = typer.Option(
    "--storage",
    metavar="postgresql://...",
    envvar="LORA_SEARCH_STORAGE",
    help="The database that keeps studies, without a password: that is in ~/.pgpass or PGPASSWORD.",
    callback=_check_storage,
)
Trials = Annotated[int | None, typer.Option("--trials", metavar="N", help="Total trials, instead of the file's.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the file; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("lora-search"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def run(
    spec: SpecPath,
    results: Results = Path("results"),
    storage: Annotated[str | None, _STORAGE] = None,
    trials: Trials = None,
    overrides: Overrides = None,
    join: Annotated[
        bool, typer.Option("--join", help="Where another run has the study, wait, and go on in its place if it ends.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the verdict only.")] = False,
) -> None:
    """Run a study, or go on with it; print the verdict."""
    from lora_search.spec import load_experiment, naming_sources

    experiment = load_experiment(spec, overrides or (), trials)  # told before torch takes seconds to import
    from lora_search.statistics.judging import judge
    from lora_search.study import run_study

    with naming_sources(spec, overrides or ()):
        tables = run_study(experiment, results, progress=False if quiet else None, storage=storage, join=join)
    _print_verdict(judge(tables))
    if not quiet:
        print(f"\n{tables.folder} holds the study; figures and a page: lora-search report {tables.folder}")


@app.command()
def plan(spec: SpecPath, trials: Trials = None, overrides: Overrides = None) -> None:
    """Check everything, estimate time and memory; train nothing."""
    from lora_search.spec import load_experiment, naming_sources

    experiment = load_experiment(spec, overrides or (), trials)
    from lora_search.study import plan_study

    with naming_sources(spec, overrides or ()):
        lines = plan_study(experiment).lines()
    for line in lines:
        print(line)


@app.command()
def targets(
    model: Annotated[str, typer.Argument(help="Hub id, folder or package:NAME/PATH.", show_default=False)],
    rank: Annotated[
        list[int] | None, typer.Option("--rank", min=1, help="Count parameters for it; repeatable.")
    ] = None,
) -> None:
    """List what of a model can be adapted, and parameters per rank."""
    from lora_search.models import fused_notes, structure_notes, targets_table
    from lora_search.tasks import TASKS, structure_with_any_head

    if not model:
        raise InputError.about("MODEL", "must not be empty", got='""')
    task, structure = structure_with_any_head(model)
    ranks = rank or [1, 8, 16]
    header = ["module", "in x out", "layers", "groups", *(f"rank {r}" for r in ranks)]
    rows = [
        [
            row.leaf,
            f"{row.in_features} x {row.out_features}",
            _layers(row.layers),
            ", ".join(row.groups),
            *(f"{row.parameters_per_rank * r:,}" for r in ranks),
        ]
        for row in targets_table(structure)
    ]
    _print_table(header, rows)
    if structure.head_modules:
        print(f"\nhead: {', '.join(structure.head_modules)} ({structure.head_parameters:,} parameters with 2 labels)")
    if task != next(iter(TASKS)):
        print(f"\nfor model.task = '{task}': it has no head for {next(iter(TASKS))}")
    for note in (*structure_notes(structure), *fused_notes(structure)):
        print(f"note: {note}")


@app.command()
def status(study: StudyPath, as_json: AsJson = False) -> None:
    """Say how far a study is."""
    from lora_search.store.reader import read_study
    from lora_search.store.status import study_status

    found = study_status(read_study(study))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print("\n".join(found.lines()))


@app.command()
def verdict(
    study: StudyPath,
    as_json: AsJson = False,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Instead of the experiment's; 0.01 is one point of a hundred.")
    ] = None,
    confidence: Annotated[float | None, typer.Option("--confidence", help="Instead of the experiment's.")] = None,
) -> None:
    """Judge a study from what is recorded; train nothing."""
    from lora_search.statistics.judging import judge
    from lora_search.store.reader import read_study

    with _naming_options({"verdict.margin": "--margin", "verdict.confidence": "--confidence"}):
        judged = judge(read_study(study), margin=margin, confidence=confidence)
    if as_json:
        print(json.dumps(judged.to_dict(), indent=2))
    else:
        _print_verdict(judged)


@app.command()
def attach(
    storage: Annotated[str, _STORAGE],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="All studies without.")] = None,
    results: Results = Path("results"),
) -> None:
    """Make folders for studies of a database, so that every command takes them here too."""
    from lora_search.store.storages import attach_studies

    for folder in attach_studies(results, storage, names or ()):
        print(folder)


@app.command()
def report(
    study: StudyPath,
    texts: Annotated[
        bool, typer.Option("--texts", help="Keep the examples' texts in the page, for all to read.")
    ] = False,
) -> None:
    """Write figures/*.png and *.svg and report.html."""
    from lora_search.reporting import write_report

    kept = None
    if texts:
        from lora_search.study.examples import study_examples

        kept = [example.text for example in study_examples(study)]
    print(write_report(study, texts=kept))


@app.command()
def examples(
    study: StudyPath,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="All without.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the examples a study was made on, by the numbers its predictions name them."""
    from lora_search.study.examples import study_examples

    found = study_examples(study)
    for number in numbers or ():
        if not 0 <= number < len(found):
            raise InputError.about("NUMBER", f"must be between 0 and {len(found) - 1}", got=number)
    shown = [found[number] for number in numbers] if numbers else found
    if as_json:
        print(json.dumps([vars(example) for example in shown]))
    else:
        for example in shown:
            print(f"{example.number}\t{example.label}\t{' '.join(example.text.split())}")


@app.command()
def dashboard(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A folder of studies, or a study's.")] = Path(
        "results"
    ),
    host: Annotated[str, typer.Option("--host", help="Elsewhere than 127.0.0.1 a token is needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any free one.")] = 8787,
    control: Annotated[
        bool, typer.Option("--control", help="Let the page stop and resume runs; needs a token.")
    ] = False,
    optuna: Annotated[bool, typer.Option("--optuna", help="Start optuna-dashboard beside it.")] = False,
) -> None:
    """Show studies in a browser while they run."""
    from lora_search.dashboard import serve

    with _interruptible_quietly():
        serve(results, host, port, control=control, optuna=optuna)


@app.command()
def export(
    study: StudyPath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)],
    trial: Annotated[int | None, typer.Option("--trial", metavar="N", help="Instead of the recommended.")] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Refit on all training data, write the weights.")] = False,
    recipe: Annotated[str | None, typer.Option("--recipe", help="trl, axolotl or llamafactory.")] = None,
) -> None:
    """Write the recommended adapter for PEFT."""
    with _naming_options({"trial": "--trial", "recipe": "--recipe"}):
        from lora_search.export import export_adapter

        print(export_adapter(study, out, trial=trial, weights=weights, recipe=recipe))


@app.command()
def doctor(
    study: Annotated[
        Path | None,
        typer.Argument(metavar="[STUDY]", help="A study's folder, to look over and mend.", show_default=False),
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Say what this machine offers, or mend a study."""
    if study is None:
        from lora_search.study import examine_machine

        _print_findings(examine_machine(results))
        return
    from lora_search.store.mending import mend_study

    findings = mend_study(study)
    _print_findings([(finding.what, finding.found) for finding in findings])
    if not all(finding.sound for finding in findings):
        raise typer.Exit(2)


@app.command()
def schema() -> None:
    """Print the JSON Schema of an experiment file, for editors."""
    from lora_search.spec import json_schema

    print(json.dumps(json_schema(), indent=2))


def main() -> None:
    """Entry point; turns the user's mistakes into exit code 2."""
    _open_what_is_closed()
    _write_what_the_terminal_cannot_show_as_escapes()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except InputError as error:
        for mistake in error.mistakes:
            _say(mistake)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output closed it, as `head` does
        _write_nothing_more()
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF) or error.filename is not None:
            raise
        _write_nothing_more()
        _say(f"the output: {error.strerror}")
        sys.exit(2)


def _write_nothing_more() -> None:
    """So that Python has nothing to write when it ends, and to fail at."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _interruptible_quietly() -> Iterator[None]:
    """What is ended by an interrupt, as it is meant to be."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@contextmanager
def _naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Mistakes in what the command line said are told by the option: ``--margin: ...``, not ``verdict.margin: ...``."""
    try:
        yield
    except InputError as error:
        error.change(lambda mistake: replace(mistake, key=options.get(mistake.key, mistake.key)))
        raise


def _open_what_is_closed() -> None:
    """So that what nobody wants to read (``2>&-``) goes nowhere: ``print`` would take standard output for it."""

    def nowhere() -> TextIO:
        return open(os.devnull, "w", encoding="utf-8")

    sys.stdout, sys.stderr = sys.stdout or nowhere(), sys.stderr or nowhere()


def _write_what_the_terminal_cannot_show_as_escapes() -> None:
    """A label with an umlaut on an ASCII terminal is no reason to stop."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(line: str) -> None:
    with suppress(OSError):  # where nobody can be told, the exit code says it
        print(line, file=sys.stderr)


def _command_line() -> str:
    import shlex

    return shlex.join(["lora-search", *sys.argv[1:]])


def _layers(layers: tuple[int, ...]) -> str:
    consecutive = len(layers) > 1 and layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if consecutive else ", ".join(str(layer) for layer in layers)


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    numeric = [all(row[column].replace(",", "").isdigit() for row in rows) for column in range(len(header))]
    for line in [header, *rows]:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _print_findings(findings: Sequence[tuple[str, str]]) -> None:
    width = max(len(what) for what, _ in findings)
    for what, finding in findings:
        print(f"{what:<{width}}  {finding}")


def _print_verdict(judged: Any) -> None:
    print(judged.sentence())
    rows = []
    for title, summary in (("recommended", judged.recommended), ("best", judged.best)):
        if summary is not None:
            low, high = summary.score_interval
            rows.append(
                [
                    title,
                    str(summary.trial),
                    str(summary.adapter["rank"]),
                    f"{summary.adapter['alpha']:g}",
                    f"{summary.nuisance['learning_rate']:.2g}",
                    summary.adapter["targets"],
                    summary.adapter["layers"],
                    f"{summary.adapter_parameters:,}",
                    _score(summary.score_mean, low, high),
                    f"{summary.seconds:.0f}",
                ]
            )
    if rows:
        print()
        adapter = ["rank", "alpha", "learning rate", "targets", "layers", "parameters"]
        _print_table(["", "trial", *adapter, judged.metric, "seconds"], rows)
    if judged.baselines is not None:
        _print_baselines(judged.baselines, judged.metric)
    for warning in judged.warnings:
        print(f"\nwarning: {warning}")


def _score(mean: float, low: float, high: float) -> str:
    from lora_search.statistics.wording import score_number

    return f"{score_number(mean)} [{score_number(low)}, {score_number(high)}]"


def _print_baselines(found: Any, metric: str) -> None:
    def row(item: Any) -> list[str]:
        held = "-" if item.step_bytes is None else f"{item.step_bytes / 1024**2:.0f} MiB"
        score = "failed"
        if item.score_mean is not None:
            low, high = item.score_interval
            score = _score(item.score_mean, low, high)
        return [item.title, f"{item.trainable_parameters:,}", score, f"{item.seconds:.1f}", held]

    print()
    rows = [*map(row, found.compared), row(found.recommended)]
    _print_table(["to compare with", "trainable parameters", metric, "seconds each", "memory of a step"], rows)
    if found.sentence() is not None:
        print(f"\n{found.sentence()}")
