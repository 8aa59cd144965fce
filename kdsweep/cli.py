"""The command-line interface. Data goes to standard output; progress and errors go to standard error."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kdsweep.errors import InputError, KdsweepError, printable
from kdsweep.serving import commands as serving
from kdsweep.storage.driver_log import set_level
from kdsweep.storage.places import Place
from kdsweep.terminal import deployment, lists
from kdsweep.terminal.arguments import (
    AddressOption,
    DirArgument,
    LogLevel,
    LogLevelOption,
    NameOption,
    SetOption,
    SpecArgument,
    StorageOption,
    add_cwd_to_path,
    errors,
    out_place,
)
from kdsweep.terminal.init import init
from kdsweep.tune import commands as jobs
from kdsweep.words import count_of

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
WHERE_HELP = "Rows to show, such as \"method == 'kd' and width <= 0.5\"."


class Format(StrEnum):
    """Output format."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


app.command()(init)


@app.command()
def run(
    spec: SpecArgument,
    overrides: SetOption = [],  # noqa: B006 - Typer copies it
    name: NameOption = "",
    storage: StorageOption = "",
    address: AddressOption = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the sweep if it has begun, for jobs that may be started again.")
    ] = False,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Run a sweep: teacher, search and confirmation; then show the best students."""
    from kdsweep.terminal.live import for_console

    set_level(log_level)
    loaded = _load(spec, overrides, name, storage)
    from kdsweep.tune.driver import run as run_sweep

    _summary(run_sweep(loaded, address or None, for_console(errors), again=resume))


@app.command()
def resume(
    directory: DirArgument,
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", min=1, help="New total number of trials."),
    ] = None,
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="K=V",
            help="Change a setting that leaves trials comparable, such as confirm.top=5; K=null removes K.",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    address: AddressOption = "",
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Continue an interrupted sweep, or extend a finished one."""
    from kdsweep.config.yaml import parsed_overrides
    from kdsweep.storage.paths import SweepDir
    from kdsweep.terminal.live import for_console

    set_level(log_level)
    SweepDir.need(directory)  # before Ray is imported, which takes seconds
    from kdsweep.tune.driver import resume as resume_sweep

    add_cwd_to_path()
    _summary(resume_sweep(directory, trials, address or None, for_console(errors), parsed_overrides(overrides)))


@app.command()
def confirm(
    directory: DirArgument,
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="N", min=1, max=1000, help="Number of students. Default: as in the sweep file."),
    ] = None,
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="K", help="Seeds per student, or auto. Default: as in the sweep file.")
    ] = "",
    trainings: Annotated[
        int | None,
        typer.Option("--trainings", metavar="N", min=1, help="Most trainings with --seeds auto, plain ones included."),
    ] = None,
    address: AddressOption = "",
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Retrain the best students and plain students on fresh seeds, and evaluate them on the test split."""
    from kdsweep.storage.paths import SweepDir
    from kdsweep.terminal.live import for_console

    set_level(log_level)
    asked = _seeds(seeds)
    SweepDir.need(directory)  # before Ray is imported, which takes seconds
    from kdsweep.tune.driver import confirm as confirm_sweep

    add_cwd_to_path()
    _summary(confirm_sweep(directory, top, asked, address or None, for_console(errors), trainings))


@app.command()
def results(
    directory: DirArgument,
    where: Annotated[str | None, typer.Option("--where", metavar="EXPR", help=WHERE_HELP)] = None,
    sort: Annotated[str, typer.Option("--sort", metavar="COL", help="Sort by a column; -COL: descending.")] = "",
    top: Annotated[
        int,
        typer.Option("--top", metavar="N", min=0, help="Show only the first N rows; 0 shows all."),
    ] = 0,
    epochs: Annotated[bool, typer.Option("--epochs", help="Show one row per trial and epoch.")] = False,
    confirmed: Annotated[bool, typer.Option("--confirmed", help="Show one row per confirmed trial.")] = False,
    importance: Annotated[
        bool, typer.Option("--importance", help="Show the importance of each setting, based on the complete trials.")
    ] = False,
    output: Annotated[
        Format | None, typer.Option("--format", help="Output format. Default: by the ending of --out, else table.")
    ] = None,
    out: Annotated[
        Place | None,
        typer.Option(
            "--out",
            metavar="FILE",
            parser=out_place,
            help="Write to a file or to s3://...; .csv, .json and .parquet select the format.",
        ),
    ] = None,
) -> None:
    """Show the results of a running or finished sweep, best trials first."""
    from kdsweep.results.frames import load_results
    from kdsweep.results.importance import LEAST_TRIALS
    from kdsweep.terminal import tables

    if where is not None and not where.strip():
        raise InputError("--where: found nothing; accepted: a condition such as \"method == 'kd' and width <= 0.5\"")
    file_format = tables.format_of(output.value if output else "", out)
    found = load_results(directory)
    if epochs + confirmed + importance > 1:
        raise InputError("--epochs, --confirmed and --importance cannot be combined; use only one of them")
    everything = found.epochs if epochs else tables.confirmed(found) if confirmed else tables.ranked(found)
    if importance:
        everything = found.importance()
        complete = int((found.trials["state"] == "COMPLETE").sum())
        errors.print(f"based on the {complete} complete trials of {len(found.trials)}", highlight=False)
        if everything.empty:
            errors.print(f"each setting needs at least {LEAST_TRIALS} complete trials that drew it", highlight=False)
    frame = tables.select(everything, where=where or "", sort=sort, top=top)
    if where and frame.empty and not everything.empty and file_format == "table" and out is None:
        message = printable(f"no rows: none of the {len(everything)} has {where}")
        errors.print(message, highlight=False, markup=False, soft_wrap=True)
        return
    tables.write(frame, file_format, out, keep=sort.removeprefix("-"))
    if out:
        errors.print(
            printable(f"{out}: {count_of(len(frame), 'row')} as {file_format}"),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@app.command()
def report(
    directory: DirArgument,
    out: Annotated[
        Place | None,
        typer.Option(
            "--out", metavar="FILE", parser=out_place, help="File or s3://.... Default: report.html in the directory."
        ),
    ] = None,
) -> None:
    """Write a report of a running or finished sweep as one HTML file."""
    from kdsweep.results.frames import load_results

    if out and out.suffix not in (".html", ".htm"):
        raise InputError(f"--out {out}: the report is a web page; accepted: a name that ends in .html")
    found = load_results(directory)  # before plotly is imported, which takes a second
    from kdsweep.results.predictor import provide, wanted
    from kdsweep.results.report.page import is_running, write_report_to

    if wanted(found) and not is_running(found.sweep):
        errors.print("predicting the test split", highlight=False)
        if note := provide(found):
            errors.print(printable(note), highlight=False, markup=False, soft_wrap=True)
    place = out or found.sweep.place / found.sweep.report.name
    write_report_to(found, place)
    typer.echo(place)


app.command()(deployment.export)
app.command()(deployment.push)
app.command()(deployment.evaluate)
app.command()(serving.watch)
app.command()(serving.dashboard)


@app.command()
def doctor(directory: DirArgument) -> None:
    """Check every file of a sweep, and repair what can be rebuilt from its logs."""
    from kdsweep.results.doctor import examine
    from kdsweep.storage.paths import SweepDir
    from kdsweep.terminal import tables

    findings = examine(SweepDir.existing(directory))
    tables.print_rows([{"file": found.file, "state": found.state, "note": found.note} for found in findings])
    if any(found.state == "damaged" for found in findings):
        raise typer.Exit(1)


@app.command()
def validate(
    spec: SpecArgument,
    overrides: SetOption = [],  # noqa: B006 - Typer copies it
    name: NameOption = "",
    storage: StorageOption = "",
) -> None:
    """Check a sweep file and print what the sweep would do."""
    from kdsweep.config.load import notes
    from kdsweep.search.extent import searched

    loaded = _load(spec, overrides, name, storage)
    typer.echo(printable(f"{spec}: valid"))
    for note in notes(loaded):
        errors.print(f"{spec}: note: {note}", highlight=False, markup=False, soft_wrap=True)
    if loaded.search.warm_start:
        from kdsweep.results.earlier import taken  # imports pandas

        for one in taken(loaded, loaded.search_space):
            typer.echo(printable(f"{spec}: takes {one.text()}"))
    from kdsweep.config.sizes import images_line
    from kdsweep.teacher.extent import views_line

    typer.echo(
        f"{loaded.name}: {count_of(loaded.search.trials, 'trial')} of at most {count_of(loaded.budgets[-1], 'epoch')} "
        f"over {', '.join(loaded.search_space.methods())}; "
        f"searches {', '.join(searched(loaded.search_space)) or 'nothing'}"
    )
    if images := images_line(loaded):
        typer.echo(f"{loaded.name}: {images}")
    typer.echo(f"{loaded.name}: {views_line(loaded)}")
    if places := loaded.tracking.described(loaded.sweep_dir):
        typer.echo(f"{loaded.name}: logged to {', '.join(places)}")


for command in (*jobs.COMMANDS, *lists.COMMANDS):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from kdsweep import __version__

        typer.echo(f"kdsweep {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Hyperparameter sweeps for knowledge distillation on Ray Tune."""


def _load(path: Path, overrides: list[str], name: str, storage: str) -> SweepSpec:
    from kdsweep.config.load import load_spec
    from kdsweep.config.yaml import parsed_overrides

    values = parsed_overrides(overrides)
    values |= {"name": name} if name else {}
    values |= {"storage": storage} if storage else {}
    return load_spec(path, values)


def _seeds(asked: str) -> int | Literal["auto"] | None:
    """Parse --seeds: a number, `auto`, or empty for the value of the sweep file."""
    if asked in ("", "auto"):
        return "auto" if asked else None
    if asked.isdecimal() and 1 <= int(asked) <= 1000:
        return int(asked)
    raise InputError(f"--seeds {asked}: accepted: auto, or a number from 1 to 1000")


def _summary(found: Results) -> None:
    from kdsweep.terminal.summary import print_summary

    print_summary(found)


def main() -> None:
    """Run the console script. Errors are printed as one line and set the exit code."""
    try:
        code = app(prog_name="kdsweep", standalone_mode=False)
    except KdsweepError as error:
        _print_error(str(error), "yellow" if error.exit_code == 130 else "red")
        sys.exit(error.exit_code)
    except Exception as error:
        if not hasattr(error, "format_message"):  # not an error of the command line
            raise
        _print_error(_usage_error(error), "red")
        sys.exit(InputError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _usage_error(error: Any) -> str:
    """What is wrong with the command line, and where its options are described."""
    found = " ".join(error.format_message().replace("Value error, ", "").split())
    command = error.ctx.command_path if error.ctx else "kdsweep"
    return f"{found.rstrip('.')}; see: {command} --help"


def _print_error(message: str, style: str) -> None:
    errors.print(printable(message), style=style, highlight=False, markup=False, soft_wrap=True)
