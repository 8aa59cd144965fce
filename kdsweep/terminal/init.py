"""The command that writes a first sweep file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kdsweep.config import shipped
from kdsweep.errors import InputError

TEACHER, STUDENT = "torchvision/resnet18", "resnet8x4"
OF_TEXTS = "bilstm"  # teacher and student


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The sweep file to write.")] = Path("sweep.yaml"),
    images: Annotated[
        str,
        typer.Option("--images", metavar="DIR", help="A folder with train/CLASS/IMAGE, or a name of kdsweep datasets."),
    ] = "",
    texts: Annotated[
        str,
        typer.Option("--texts", metavar="PATH", help="Texts instead: a file, or a folder with train.jsonl or alike."),
    ] = "",
    text_column: Annotated[str, typer.Option("--text-column", metavar="NAME", help="Column with the texts.")] = "text",
    label_column: Annotated[str, typer.Option("--label-column", metavar="NAME", help="Their labels.")] = "label",
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="FILE", help="The teacher's weights. Default: a teacher is trained.")
    ] = "",
    teacher_model: Annotated[
        str, typer.Option("--teacher-model", metavar="MODEL", help=f"The teacher's model. Default: {TEACHER}.")
    ] = "",
    student: Annotated[
        str, typer.Option("--student", metavar="MODEL", help=f"The student's model. Default: {STUDENT}.")
    ] = "",
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="Epochs of each trial.")] = 30,
    trials: Annotated[int, typer.Option("--trials", metavar="N", min=1, help="Number of trials.")] = 40,
    listed: Annotated[
        bool, typer.Option("--list", help="List the sweep files that come with kdsweep: kdsweep run NAME.")
    ] = False,
) -> None:
    """Write a commented sweep file for your images, texts or teacher; asks what the options leave open."""
    from kdsweep.terminal import tables

    if listed:
        tables.print_rows([{"sweep file": name, "description": shipped.summary(name)} for name in shipped.names()])
        return
    from kdsweep.config.draft import Draft, refuse_existing
    from kdsweep.config.text_draft import TextDraft

    refuse_existing(file)
    if texts and images:
        raise InputError("--texts: found, beside --images; accepted: one of them")
    if not images and not texts:
        images, teacher, teacher_model, student = _asked(teacher, teacher_model, student)
    if teacher and not teacher_model:
        raise InputError("--teacher: --teacher-model is missing; accepted: the model whose weights these are")
    if texts:
        models = teacher_model or OF_TEXTS, student or OF_TEXTS
        TextDraft(file, texts, teacher, *models, epochs, trials, (text_column, label_column)).write()
    else:
        Draft(file, images, teacher, teacher_model or TEACHER, student or STUDENT, epochs, trials).write()
    typer.echo(file)
    typer.echo(f"look at it, then: kdsweep validate {file}; kdsweep run {file}", err=True)


def _asked(teacher: str, teacher_model: str, student: str) -> tuple[str, str, str, str]:
    """Ask for the images, and for what else no option says."""
    if not sys.stdin.isatty():
        raise InputError(
            f"--images is missing; accepted: a folder with train/CLASS/IMAGE, or a name of kdsweep datasets. The sweep "
            f"files that come with kdsweep need no folder: kdsweep run {'|'.join(shipped.names())}"
        )
    try:
        images = _ask("Images: a folder with train/CLASS/IMAGE, or a name of kdsweep datasets")
        teacher = teacher or _ask("Teacher's weights: a file; empty to train a teacher", "")
        teacher_model = teacher_model or _ask("Teacher's model, see kdsweep models", TEACHER)
        return images, teacher, teacher_model, student or _ask("Student's model", STUDENT)
    except typer.Abort:
        typer.echo(err=True)
        raise KeyboardInterrupt from None


def _ask(question: str, default: str | None = None) -> str:
    answer: str = typer.prompt(question, default=default, show_default=bool(default), err=True)
    return answer.strip()
