"""The command line: parses and prints. Data goes to standard output, progress and errors to standard error."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from kdsweep.errors import InputError, KdsweepError, printable

if TYPE_CHECKING:
    from kdsweep.config.spec import SweepSpec
    from kdsweep.results.frames import Results

app = typer.Typer(
    name="kdsweep",
    help="Hyperparameter sweeps for knowledge distillation on Ray Tune.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
errors = Console(stderr=True)
WHERE_HELP = "Rows to show, such as \"method == 'kd' and width <= 0.5\"."

SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="A sweep file: search_spaces/quickstart.yaml.")]
DirArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A sweep directory, such as runs/quickstart.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="K=V", help="Override a value of the sweep file, such as search.trials=8.")
]
AddressOption = Annotated[
    str, typer.Option("--address", metavar="A", help="A Ray cluster: auto, HOST:PORT. Default: a local one.")
]


class Format(StrEnum):
    """How data is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


@app.command()
def run(
    spec: SpecArgument,
    overrides: SetOption = [],  # noqa: B006 - Typer copies it
    name: Annotated[str, typer.Option("--name", help="Name of the sweep, and of its directory.")] = "",
    storage: Annotated[str, typer.Option("--storage", help="Where sweeps are kept; every node must reach it.")] = "",
    address: AddressOption = "",
) -> None:
    """Run a sweep: teacher, search, confirmation; then show the best students."""
    from kdsweep.terminal.progress import for_console

    loaded = _load(spec, overrides, name, storage)
    from kdsweep.tune.driver import run as run_sweep

    results = run_sweep(loaded, address or None, for_console(errors))
    _summary(results)


@app.command()
def resume(
    directory: DirArgument,
    trials: Annotated[int, typer.Option("--trials", help="A new total of trials, to extend a sweep.")] = 0,
    address: AddressOption = "",
) -> None:
    """Go on with an interrupted sweep, or extend an ended one."""
    from kdsweep.storage.paths import SweepDir
    from kdsweep.terminal.progress import for_console

    SweepDir.existing(directory)  # before Ray is imported, which takes seconds
    from kdsweep.tune.driver import resume as resume_sweep

    _find_own_code_here()
    _summary(resume_sweep(directory, trials or None, address or None, for_console(errors)))


@app.command()
def confirm(
    directory: DirArgument,
    top: Annotated[
        int | None, typer.Option("--top", metavar="N", min=1, help="How many of the best. Default: the sweep file's.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="K", min=1, help="Fresh seeds each. Default: the sweep file's.")
    ] = None,
    address: AddressOption = "",
) -> None:
    """Train the best again on fresh seeds beside plain students, and score them on the test split."""
    from kdsweep.storage.paths import SweepDir
    from kdsweep.terminal.progress import for_console

    SweepDir.existing(directory)  # before Ray is imported, which takes seconds
    from kdsweep.tune.driver import confirm as confirm_sweep

    _find_own_code_here()
    _summary(confirm_sweep(directory, top, seeds, address or None, for_console(errors)))


@app.command()
def results(
    directory: DirArgument,
    where: Annotated[str, typer.Option("--where", metavar="EXPR", help=WHERE_HELP)] = "",
    sort: Annotated[str, typer.Option("--sort", metavar="COL", help="A column; -COL for the largest first.")] = "",
    top: Annotated[int, typer.Option("--top", metavar="N", min=0, help="Only the first N rows; 0 is all.")] = 0,
    epochs: Annotated[bool, typer.Option("--epochs", help="One row per trial and epoch.")] = False,
    confirmed: Annotated[bool, typer.Option("--confirmed", help="One row per confirmed trial.")] = False,
    importance: Annotated[
        bool, typer.Option("--importance", help="Which settings mattered, by the trials that ran to the end.")
    ] = False,
    output: Annotated[
        Format | None, typer.Option("--format", help="How to write it. Default: as FILE is named, else a table.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write to a file; .csv, .json and .parquet name their format."),
    ] = None,
) -> None:
    """Show what a sweep found, the best trials first; also while it runs."""
    from kdsweep.results.frames import load_results
    from kdsweep.terminal import tables

    how = tables.format_of(output.value if output else "", out)
    found = load_results(directory)
    if epochs + confirmed + importance > 1:
        raise InputError("--epochs, --confirmed, --importance: accepted: one of them")
    everything = found.epochs if epochs else found.confirmed if confirmed else tables.ranked(found)
    if importance:
        everything = found.importance()
        complete = int((found.trials["state"] == "COMPLETE").sum())
        errors.print(f"by the {complete} of {len(found.trials)} trials that ran to the end", highlight=False)
    frame = tables.select(everything, where=where, sort=sort, top=top)
    tables.write(frame, how, out)


@app.command()
def export(
    directory: DirArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the students go, a folder each.")],
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many of the best.")] = 3,
    trial: Annotated[str, typer.Option("--trial", metavar="KEY", help="One trial instead, by key or number.")] = "",
) -> None:
    """Write the best students: safetensors, a JSON description and a card."""
    from kdsweep.results.frames import load_results

    _find_own_code_here()
    for folder in load_results(directory).export(out, top=top, trial=trial):
        typer.echo(folder)


@app.command()
def evaluate(
    student: Annotated[Path, typer.Argument(metavar="STUDENT", help="A folder that kdsweep export wrote.")],
    dataset: Annotated[str, typer.Option("--dataset", help="A data set; default: the one it was trained on.")] = "",
    split: Annotated[str, typer.Option("--split", help="test, val or train.")] = "test",
    root: Annotated[str, typer.Option("--root", help="Where the data set lies.")] = "",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Import the student's own code.")] = False,
) -> None:
    """Measure an exported student's accuracy."""
    from kdsweep.results.export import evaluate_student
    from kdsweep.terminal import tables

    if split not in ("test", "val", "train"):
        raise InputError(f"--split {split!r}: accepted: test, val, train")
    _find_own_code_here()
    tables.print_facts(evaluate_student(student, split, dataset, root, trust_code=trust_code))


@app.command()
def doctor(directory: DirArgument) -> None:
    """Say what of a sweep is whole and what is damaged, and repair what its logs allow."""
    from kdsweep.results.doctor import examine
    from kdsweep.storage.paths import SweepDir
    from kdsweep.terminal import tables

    findings = examine(SweepDir.existing(directory))
    tables.print_rows([{"file": found.file, "state": found.state, "what": found.note} for found in findings])
    if any(found.state == "damaged" for found in findings):
        raise typer.Exit(1)


@app.command()
def validate(spec: SpecArgument, overrides: SetOption = []) -> None:  # noqa: B006 - Typer copies it
    """Check a sweep file and say what it would do."""
    from kdsweep.config.load import notes
    from kdsweep.search.extent import searched

    loaded = _load(spec, overrides, "", "")
    errors.print(f"{spec}: good", highlight=False, markup=False)
    for note in notes(loaded):
        errors.print(f"{spec}: note: {note}", highlight=False, markup=False, soft_wrap=True)
    typer.echo(
        f"{loaded.name}: {loaded.search.trials} trials of at most {loaded.train.epochs} epochs over "
        f"{', '.join(loaded.search_space.methods())}; searches {', '.join(searched(loaded.search_space)) or 'nothing'}"
    )


@app.command()
def methods(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="One method, in full; also your own package.module:Class.")
    ] = "",
) -> None:
    """List the distillation methods, or describe one."""
    from kdsweep.methods import reference
    from kdsweep.terminal import tables

    if name:
        _find_own_code_here()
        tables.print_method(reference.describe(name))
    else:
        tables.print_rows([tables.method_row(row) for row in reference.table()])


@app.command()
def models() -> None:
    """List the models that can be teacher or student."""
    from kdsweep.models import MODELS
    from kdsweep.terminal import tables

    rows = [{"model": key, "what it is": MODELS[key].summary} for key in MODELS]
    rows += [
        {"model": "torchvision/<name>", "what it is": "any classifier of torchvision, with a head for your classes"},
        {"model": "timm/<name>", "what it is": "any model of timm, where it is installed"},
        {"model": "package.module:function", "what it is": "your own: function(input_shape, num_classes, width, ...)"},
    ]
    tables.print_rows(rows)


@app.command()
def datasets() -> None:
    """List the data sets."""
    from kdsweep.datasets import DATASETS
    from kdsweep.terminal import tables

    rows = [{"dataset": key, "what it is": DATASETS[key].summary} for key in DATASETS]
    rows.append({"dataset": "package.module:function", "what it is": "your own: function(source, split)"})
    tables.print_rows(rows)


@app.command()
def optimizers() -> None:
    """List the optimizers."""
    from kdsweep.terminal import tables
    from kdsweep.training.optimizers import OPTIMIZERS

    tables.print_rows(tables.part_rows(OPTIMIZERS))


@app.command()
def schedules() -> None:
    """List the learning-rate schedules."""
    from kdsweep.terminal import tables
    from kdsweep.training.schedules import SCHEDULES

    tables.print_rows(tables.part_rows(SCHEDULES))


@app.command()
def losses() -> None:
    """List the losses on the labels."""
    from kdsweep.tasks.losses import LOSSES
    from kdsweep.terminal import tables

    tables.print_rows(tables.part_rows(LOSSES))


@app.command()
def samplers() -> None:
    """List the samplers, which propose configurations."""
    from kdsweep.search.samplers import SAMPLERS
    from kdsweep.terminal import tables

    tables.print_rows(tables.part_rows(SAMPLERS))


@app.command()
def schedulers() -> None:
    """List the stopping rules."""
    from kdsweep.search.stopping import STOPPING_RULES
    from kdsweep.terminal import tables

    tables.print_rows(tables.part_rows(STOPPING_RULES))


def _version(wanted: bool) -> None:
    if wanted:
        from kdsweep import __version__

        typer.echo(f"kdsweep {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hyperparameter sweeps for knowledge distillation on Ray Tune."""


def _load(path: Path, overrides: list[str], name: str, storage: str) -> SweepSpec:
    from kdsweep.config.load import load_spec
    from kdsweep.config.yaml import parse_value

    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"--set {override}: accepted: KEY=VALUE, such as search.trials=8")
        values[key.strip()] = parse_value(value, key)
    values |= {"name": name} if name else {}
    values |= {"storage": storage} if storage else {}
    return load_spec(path, values)


def _find_own_code_here() -> None:
    """Let `package.module:attribute` name what lies in the current directory, as when the sweep was run."""
    from kdsweep.registry import import_from

    import_from(str(Path.cwd()))


def _summary(found: Results) -> None:
    from kdsweep.terminal.summary import print_summary

    print_summary(found)


def main() -> None:
    """The console script: one line for a mistake, an exit code that says whose it was."""
    try:
        app(prog_name="kdsweep")
    except KdsweepError as error:
        errors.print(
            printable(f"{error}"),
            style="yellow" if error.exit_code == 130 else "red",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
