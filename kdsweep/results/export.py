"""Export students as files anyone can load: safetensors, JSON and a model card, without pickle.

kdsweep itself loads no code from a student; `model.py` is for those who do not have kdsweep.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from kdsweep import tasks
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.datasets import Dataset
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import CheckpointError, InputError, installing
from kdsweep.registry import is_lost
from kdsweep.results.card import card
from kdsweep.results.confirmed import GAIN_COLUMNS
from kdsweep.results.standalone import MODEL, model_file, stands_alone
from kdsweep.results.student import rebuilt
from kdsweep.results.student_config import (
    CONFIG,
    INT8,
    ONNX,
    TORCH_EXPORT,
    WEIGHTS,
    FileFacts,
    Preprocessing,
    StudentConfig,
)
from kdsweep.storage import weights
from kdsweep.storage.files import read_json
from kdsweep.storage.paths import SweepDir, TrialDir
from kdsweep.storage.places import Place, reason_of
from kdsweep.tasks.metrics import Goal
from kdsweep.training.state import best_value
from kdsweep.worker import capacity

CARD = "README.md"
FURTHER = (ONNX, TORCH_EXPORT, INT8)
QUANTIZATIONS = {"int8": INT8}
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Wanted:
    """Which further files of a student to write.

    Attributes:
        onnx: An ONNX file.
        torch_export: A program of torch.export.
        quantize: Kind of a quantised ONNX file; empty for none.
    """

    onnx: bool = False
    torch_export: bool = False
    quantize: str = ""

    def check(self) -> None:
        """Check, before any work, that the files can be made.

        Raises:
            InputError: If a package is missing, or there is no such quantisation.
        """
        if self.quantize and self.quantize not in QUANTIZATIONS:
            raise InputError(f"--quantize: found {self.quantize!r}; accepted: {', '.join(QUANTIZATIONS)}")
        missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None]
        if missing and (self.onnx or self.quantize):
            option = "--onnx" if self.onnx else f"--quantize {self.quantize}"
            raise InputError(f"{option} needs {', '.join(missing)}: {installing('onnx')}")

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        chosen = {ONNX: self.onnx, TORCH_EXPORT: self.torch_export, QUANTIZATIONS.get(self.quantize, ""): True}
        return [name for name, is_wanted in chosen.items() if name and is_wanted]


@dataclass(frozen=True)
class Exported:
    """A student that was exported.

    Attributes:
        place: Its folder.
        config: Its description.
        removed: Files of an earlier export that this one did not ask for, and removed.
    """

    place: Place
    config: StudentConfig
    removed: list[str]


def export_students(
    sweep: SweepDir,
    rows: Sequence[Mapping[str, Any]],
    confirmed: pd.DataFrame,
    teacher: dict[str, Any],
    out: Place,
    wanted: Wanted,
    tell: Tell,
) -> list[Exported]:
    """Export the students of some trials; see `Results.export`.

    Args:
        sweep: The sweep's directory.
        rows: The rows of the trials.
        confirmed: One row per confirmed trial.
        teacher: Description of the teacher.
        out: Output directory, local or in an object store.
        wanted: Further files to write.
        tell: Receives a line before each step that takes time.

    Returns:
        The students, in the order of the rows.

    Raises:
        InputError: If the weights of a trial were not kept or are damaged, if a student cannot be converted, or if a
            folder cannot be written. A folder that exists then keeps its files.
    """
    for row in rows:
        _need_weights(sweep, row["trial"])
    spec = read_spec(sweep)
    task = tasks.of(spec.dataset)
    carried = {name: _carried(sweep.root / name) for name in task.files}
    return [
        _export(
            sweep.trial(row["trial"]),
            config_of(sweep, spec, row, confirmed, teacher),
            task.spec_beside(spec.dataset, sweep.root),
            carried,
            out / f"{spec.name}-{row['trial']}",
            wanted.names,
            lambda line, place=place: tell(f"student {place} of {len(rows)}: {line}"),  # type: ignore[misc]
        )
        for place, row in enumerate(rows, 1)
    ]


def check_kept(sweep: SweepDir, keys: Sequence[str], keep_weights: int) -> None:
    """Check that the weights of the best trials were kept.

    Args:
        sweep: The sweep's directory.
        keys: The trials, best first.
        keep_weights: The sweep's `search.keep_weights`.

    Raises:
        InputError: If one trial's were not; the message names the number that was kept.
    """
    kept = [sweep.trial(key).best.is_file() for key in keys]
    most = sum(kept)
    # Otherwise, those of a better trial were lost, which is told when it is exported.
    if 0 < most < len(keys) and all(kept[:most]):
        raise InputError(
            f"--top {len(keys)}: the weights of the best {most} trials were kept "
            f"(search.keep_weights: {keep_weights}); accepted: --top {most} or less, or --trial KEY. "
            f"--set search.keep_weights={len(keys)} keeps more in a new sweep, or of the trials that "
            f"kdsweep resume {sweep} --trials N adds"
        )


def _need_weights(sweep: SweepDir, key: str) -> None:
    best = sweep.trial(key).best
    if not best.is_file():
        kept = sorted(path.parent.name for path in sweep.trials.glob(f"*/{best.name}"))
        raise InputError(
            f"trial {key}: its weights were not kept (only those of the best trials are); "
            f"accepted: {', '.join(kept) or 'none'}"
        )


def _carried(path: Path) -> bytes:
    """Read a file of the sweep that its students need.

    Raises:
        InputError: If it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {reason_of(error)}; the sweep's students need it") from error


def _export(
    trial: TrialDir,
    config: StudentConfig,
    dataset: DatasetSpec,
    carried: Mapping[str, bytes],
    folder: Place,
    wanted: Sequence[str],
    tell: Tell,
) -> Exported:
    where = f"weights of trial {config.trial}"
    try:
        state = weights.load(trial.best)
        model = None if is_lost(config.model) else rebuilt(config, state, where)
    except CheckpointError as error:
        raise InputError(f"{error}; the weights must be as the sweep wrote them") from error
    further = _further(config, dataset, state, wanted, tell)
    config = config.model_copy(update={"files": {name: facts for name, (_, facts) in further.items()}})
    as_json = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    files = {WEIGHTS: trial.best.read_bytes(), CONFIG: as_json.encode(), CARD: card(config).encode()}
    files |= {**carried, **{name: content for name, (content, _) in further.items()}}
    if model is not None and stands_alone(config):
        files[MODEL] = model_file(config, model).encode()
    try:
        removed = folder.write_files(files, stale=(*FURTHER, MODEL), last=CONFIG)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written: {reason_of(error)}{_advice(folder, error)}") from error
    return Exported(folder, config, [str(folder / name) for name in removed])


def _advice(folder: Place, error: OSError) -> str:
    """Return what to do about an error of a local folder; of an object store, its own words have to do."""
    if folder.is_remote:
        return ""
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        where = f" ({error.filename})" if error.filename else ""
        return f"{where}; choose another directory, or remove what is in the way"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "; choose a writable directory with free space"
    return "; choose a writable directory" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else ""


def _further(
    config: StudentConfig, dataset: DatasetSpec, state: weights.State, wanted: Sequence[str], tell: Tell
) -> dict[str, tuple[bytes, FileFacts]]:
    if not wanted:
        return {}
    from kdsweep.results.deploy import deployed

    return deployed(config, state, dataset, wanted, f"trial {config.trial}", tell)


def config_of(
    sweep: SweepDir, spec: SweepSpec, row: Mapping[str, Any], confirmed: pd.DataFrame, teacher: dict[str, Any]
) -> StudentConfig:
    """Describe the student of a trial; see `export_students`."""
    trial = sweep.trial(row["trial"])
    settings = json.loads(row["config"])
    described = read_json(sweep.data)
    student = spec.student_of(settings)
    taught_by = str(settings.get("teacher", ""))
    own = confirmed[confirmed["trial"] == row["trial"]] if not confirmed.empty else confirmed
    columns = _confirmed_columns(spec.goal)
    measured = _known({name: own.iloc[0][name] for name in columns}) if not own.empty else {}
    best: dict[str, Any] = {spec.goal.column: _best_value(trial, row[spec.goal.column])}
    return StudentConfig(
        model=student.model,
        width=float(settings["width"]),
        options=student.options,
        head=json.loads(weights.metadata(trial.best).get("head", "{}")),
        task=described.get("task", Dataset.task),
        input_shape=tuple(described["input_shape"]),
        class_names=tuple(described["class_names"]),
        mean=tuple(described.get("mean", ())),
        std=tuple(described.get("std", ())),
        vocabulary=described.get("vocabulary", 0),
        padding=described.get("padding", 0),
        parameters=int(row["parameters"]),
        size_mb=float(row["size_mb"]),
        preprocessing=Preprocessing(resize=spec.dataset.resize),
        dataset=spec.dataset.model_dump(exclude={"root": True, "unlabelled": True, "text": {"tokenizer"}}),
        unlabelled=described.get("unlabelled", 0),
        skipped=described.get("skipped", {}),
        seed=spec.seed,
        settings=settings | {"train": _train(sweep, spec)},
        confirmed=measured,
        teacher=_without_paths(_teacher_of(sweep, spec, taught_by, teacher)),
        sweep=spec.name,
        trial=row["trial"],
        kdsweep=version("kdsweep"),
        **best,
    )


def _teacher_of(sweep: SweepDir, spec: SweepSpec, taught_by: str, best: dict[str, Any]) -> dict[str, Any]:
    """Describe the teacher of a trial; of an ensemble, all models and origins, and the sums of the costs."""
    if not taught_by or not spec.teachers:
        return best
    names = taught_by.split("+")
    cards = [read_json(sweep.of_teacher(name).teacher_card) for name in names]
    if len(cards) == 1:
        return {"name": taught_by, **cards[0]}
    return {
        "name": taught_by,
        "model": " + ".join(str(card["model"]) for card in cards),
        "origin": " + ".join(str(_without_paths(card)["origin"]) for card in cards),
        **{name: sum(card[name] for card in cards) for name in ("parameters", "size_mb")},
        "epochs": max(int(card["epochs"]) for card in cards),
    }


def _train(sweep: SweepDir, spec: SweepSpec) -> dict[str, Any]:
    """Return the training settings of the sweep, with the precision that was used instead of `auto`."""
    train = spec.train.model_dump()
    measured = capacity.stored(sweep)
    return train | ({"precision": measured.precision} if train["precision"] == "auto" and measured else {})


def _without_paths(teacher: dict[str, Any]) -> dict[str, Any]:
    """Reduce the path of the teacher's checkpoint to its file name, because students are shared."""
    origin = str(teacher.get("origin", ""))
    local_or_remote = Path(origin).is_absolute() or "://" in origin
    return teacher | {"origin": Path(origin).name} if local_or_remote else teacher


def _confirmed_columns(goal: Goal) -> list[str]:
    test = goal.test_column
    spreads = [column for mean in (test, f"plain_{test}", f"tuned_plain_{test}") for column in (mean, f"{mean}_std")]
    return ["seeds", "judged_seeds", *spreads, *GAIN_COLUMNS, "first_layer_norm"]


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not missing, as floats and strings."""
    texts = {name: value for name, value in values.items() if isinstance(value, str) and value}
    numbers = {name: float(value) for name, value in values.items() if not isinstance(value, str) and pd.notna(value)}
    return {name: (texts | numbers)[name] for name in values if name in texts or name in numbers}


def _best_value(trial: TrialDir, recorded: float) -> float:
    """The objective of the saved weights; a running trial may have improved since they were written."""
    kept = weights.metadata(trial.state).get("kdsweep") if trial.state.is_file() else None
    return best_value(json.loads(kept)) if kept else float(recorded)
