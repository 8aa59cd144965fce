"""The commands `export`, `push` and `evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kdsweep.errors import InputError, printable
from kdsweep.storage.places import Place
from kdsweep.terminal.arguments import DirArgument, StudentArgument, add_cwd_to_path, errors, out_place

if TYPE_CHECKING:
    from kdsweep.results.frames import Results


def export(
    directory: DirArgument,
    out: Annotated[
        Place,
        typer.Option(
            "--out", metavar="DIR", parser=out_place, help="Directory or s3://...; each student gets a folder in it."
        ),
    ],
    top: Annotated[
        int | None, typer.Option("--top", metavar="N", min=1, help="Number of students to export. Default: 3.")
    ] = None,
    trial: Annotated[str, typer.Option("--trial", metavar="KEY", help="Export only this trial: key or number.")] = "",
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Also write model.pt2.")] = False,
    quantize: Annotated[
        str, typer.Option("--quantize", metavar="KIND", help="Also write a quantised ONNX file; int8.")
    ] = "",
) -> None:
    """Export the best students: safetensors, a JSON description and a model card; also ONNX and torch.export."""
    from kdsweep.results.frames import load_results
    from kdsweep.results.student_config import agreement
    from kdsweep.terminal.steps import steps

    if top is not None and trial:
        raise InputError("--top and --trial cannot be combined; use only one of them")
    add_cwd_to_path()
    found = load_results(directory)
    with steps(errors, "export") as tell:
        made = found.export_to(
            out, top=top or 3, trial=trial, onnx=onnx, torch_export=torch_export, quantize=quantize, tell=tell
        )
    for one in made:
        typer.echo(one.place)
        for line in agreement(one.config):
            errors.print(line, highlight=False, markup=False, soft_wrap=True)
    if removed := [file for one in made for file in one.removed]:
        line = f"removed, because this export did not ask for them: {', '.join(removed)}"
        errors.print(printable(line), highlight=False, markup=False, soft_wrap=True)
    _attach(found, [one.place for one in made])


def push(
    student: StudentArgument,
    repo: Annotated[str, typer.Option("--repo", metavar="USER/NAME", help="Repository; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Create the repository as private.")] = False,
) -> None:
    """Upload an exported student to the Hugging Face Hub."""
    from kdsweep.results.push import push_student

    typer.echo(push_student(student, repo, private))


def evaluate(
    student: StudentArgument,
    dataset: Annotated[str, typer.Option("--dataset", help="Data set. Default: the student's own.")] = "",
    split: Annotated[str, typer.Option("--split", help="Split: test, val or train. Default: test.")] = "",
    root: Annotated[str, typer.Option("--root", help="Directory of the data set, a path or a URI.")] = "",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow importing the student's user code.")] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure its speed and memory on this machine instead of its accuracy.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="With --latency: cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[
        int,
        typer.Option(
            "--threads", min=0, show_default=False, help="With --latency: PyTorch threads; 0: PyTorch's default."
        ),
    ] = 0,
) -> None:
    """Evaluate an exported student on a data set, or measure its speed."""
    from kdsweep.results.student import evaluate_student, trained_by
    from kdsweep.terminal import tables

    if latency:
        given = [name for name, value in (("--dataset", dataset), ("--split", split), ("--root", root)) if value]
        if given:
            raise InputError(f"{given[0]} has no effect with --latency, which measures on random samples; leave it out")
        from kdsweep.results.speed import student_speed

        add_cwd_to_path()
        tables.print_facts(student_speed(student, device, threads, trust_code=trust_code))
        return
    if device != "cpu" or threads:
        raise InputError("--device and --threads measure the speed; accepted: together with --latency")
    split = split or "test"
    if split not in ("test", "val", "train"):
        raise InputError(f"--split {split!r}: unknown split; accepted: test, val, train")
    add_cwd_to_path()
    tables.print_facts(evaluate_student(student, split, dataset, root, trust_code=trust_code))
    errors.print(printable(trained_by(student)), highlight=False, markup=False, soft_wrap=True)


def _attach(found: Results, places: list[Place]) -> None:
    """Add exported students to the runs of a sweep that is tracked."""
    if not found.spec.tracking.chosen():
        return
    from kdsweep.storage.fetched import local_copy
    from kdsweep.tracking.session import attach

    students = {place.name.removeprefix(f"{found.spec.name}-"): local_copy(place) for place in places}
    attach(
        found.spec.tracking,
        found.sweep,
        found.goal,
        students,
        lambda line: errors.print(printable(line), highlight=False, markup=False, soft_wrap=True),
    )
