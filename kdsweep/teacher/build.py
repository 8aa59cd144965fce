"""Loads or trains the teacher, checks it and stores it by content hash, so that later sweeps reuse it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdsweep import models
from kdsweep.config.fitting import checkpoint_path
from kdsweep.config.recipes import teacher_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import CheckpointError, TeacherError
from kdsweep.lazy import nn, torch
from kdsweep.seeds import digest_of
from kdsweep.sources import source_digest, user_objects
from kdsweep.storage import weights
from kdsweep.storage.files import replacing, write_json
from kdsweep.storage.following import fetch_folder
from kdsweep.storage.paths import Store, SweepDir
from kdsweep.tasks import Prepared, Samples
from kdsweep.training.evaluate import evaluate
from kdsweep.training.teaching import NoTeacher
from kdsweep.training.trainer import Training, on_device, resumed, run_through

WEIGHTS = "model.safetensors"
CARD = "teacher.json"


@dataclass(frozen=True)
class TeacherCard:
    """Describes a teacher.

    Attributes:
        digest: Hash of what determines the weights and of the data they were evaluated on.
        model: Name of the model.
        width: Width multiplier.
        options: Further arguments of the model.
        origin: `trained`, or the checkpoint it was loaded from.
        measured: Metrics on the validation split, as `val_NAME`. In the file they are top-level keys.
        parameters: Parameter count.
        size_mb: Size of parameters and buffers, in MiB.
        epochs: Number of epochs it was trained for; 0 if loaded.
    """

    digest: str
    model: str
    width: float
    options: dict[str, Any]
    origin: str
    measured: dict[str, float]
    parameters: int
    size_mb: float
    epochs: int

    @classmethod
    def read(cls, path: Path) -> TeacherCard:
        """Read a card from a file.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is not JSON.
            TypeError: If it is not a card.
        """
        known = json.loads(path.read_text())
        measured = {name: value for name, value in known.items() if name.startswith("val_")}
        return cls(**{name: value for name, value in known.items() if name not in measured}, measured=measured)

    def write(self, path: Path) -> None:
        """Write the card to a file."""
        known = asdict(self)
        measured = known.pop("measured")
        write_json(path, known | measured)


def teacher_digest(spec: SweepSpec, data: Prepared) -> str:
    """Return the key of a teacher in the store: a hash of what determines its weights and of its data."""
    teacher = spec.teacher
    identity: dict[str, Any] = {
        "model": teacher.model, "width": teacher.width, "options": teacher.options, "data": data.digest, "layout": 1,
    }  # fmt: skip
    own = user_objects(teacher.model_dump(exclude={"checkpoint", "student"}))
    if code := {name: digest for name in own if (digest := source_digest(name))}:
        identity["code"] = code
    if teacher.checkpoint is not None:
        with checkpoint_path(teacher.checkpoint).open("rb") as file:
            identity["checkpoint"] = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        identity |= {"train": teacher.train.identity(), "seed": spec.seed, "augment": spec.augment}
    return digest_of(identity)[:16]


def stored(spec: SweepSpec, data: Prepared, sweep: SweepDir) -> TeacherCard | None:
    """Return the card of the sweep's own teacher or of the one in the store; None if neither is intact."""
    if own := _read_intact(sweep.teacher):
        return own
    earlier = sweep.store.teacher(teacher_digest(spec, data))  # a hash of the checkpoint, which may be gone by now
    fetch_folder(earlier)
    return _read_intact(earlier)


def _read_intact(folder: Path) -> TeacherCard | None:
    try:
        weights.load(folder / WEIGHTS)
        return TeacherCard.read(folder / CARD)
    except (CheckpointError, OSError, ValueError, TypeError):
        return None  # incomplete or damaged: it is made again


def make(
    spec: SweepSpec, data: Prepared, store: Store, device: torch.device
) -> Generator[dict[str, float], None, TeacherCard]:
    """Load the checkpoint or train the teacher, evaluate it and store it. Yields the metrics of each training epoch.

    Args:
        spec: The sweep.
        data: The prepared data set.
        store: The store that keeps the teacher for later sweeps.
        device: Device of the teacher.

    Returns:
        The teacher's card.

    Raises:
        CheckpointError: If the checkpoint does not fit the model.
    """
    digest = teacher_digest(spec, data)
    root = store.teacher(digest)
    val = data.split("val", device)
    if spec.teacher.checkpoint is None:
        state = root / "state.safetensors"
        train, teacher = data.split("train", device), teacher_recipe(spec)
        training = resumed(lambda: Training(teacher, data, train, val, NoTeacher(device)), state)
        yield from run_through(training, state)
        training.use_average()
        model = training.student
        origin = "trained"
    else:
        model = build(spec, data)
        path = checkpoint_path(spec.teacher.checkpoint)
        loaded, part = weights.load_part(path)
        origin = spec.teacher.student or spec.teacher.checkpoint
        origin = f"{origin} ({part})" if part in weights.AVERAGED else origin
        model.load_state_dict(weights.fit(model, loaded, f"checkpoint {path}"), strict=False)
        on_device(model, device)
    card = TeacherCard(
        digest=digest,
        model=spec.teacher.model,
        width=spec.teacher.width,
        options=spec.teacher.options,
        origin=origin,
        measured=_measured(spec, data, model, val),
        parameters=models.count_parameters(model),
        size_mb=models.size_mb(model),
        epochs=0 if spec.teacher.checkpoint else spec.teacher.train.epochs,
    )
    weights.save(model.state_dict(), root / WEIGHTS)
    card.write(root / CARD)
    return card


def judge(card: TeacherCard, data: Prepared) -> None:
    """Reject a teacher that is little better than chance.

    Raises:
        TeacherError: If the task considers it too weak to distil from.
    """
    if fault := data.task.teacher_fault(card.measured, data.num_classes):
        raise TeacherError(f"the teacher {card.model} ({card.origin}) {fault}")


def with_objective(
    card: TeacherCard, spec: SweepSpec, data: Prepared, sweep: SweepDir, device: torch.device
) -> TeacherCard:
    """Return the card with the sweep's metrics, re-evaluating a teacher that was stored with other metrics."""
    wanted = data.task.measured(spec.wanted_metrics, data.num_classes)
    if data.task.label_free or all(f"val_{name}" in card.measured for name in wanted):
        return card
    folder = sweep.teacher if _read_intact(sweep.teacher) else sweep.store.teacher(card.digest)
    model = load(spec, data, folder / WEIGHTS, device).model
    return replace(card, measured=_measured(spec, data, model, data.split("val", device)))


def _measured(spec: SweepSpec, data: Prepared, model: nn.Module, val: Samples) -> dict[str, float]:
    if data.task.label_free:
        return {}  # it would be compared with itself
    measured = evaluate(model, val, data.task.measured(spec.wanted_metrics, data.num_classes))
    return {f"val_{name}": value for name, value in measured.items()}


def adopt(card: TeacherCard, sweep: SweepDir) -> None:
    """Copy the teacher from the store into the sweep directory, which must be self-contained."""
    if _read_intact(sweep.teacher):
        return
    sweep.teacher.mkdir(parents=True, exist_ok=True)
    with replacing(sweep.teacher_weights) as partial:
        shutil.copyfile(sweep.store.teacher(card.digest) / WEIGHTS, partial)
    card.write(sweep.teacher_card)


def build(spec: SweepSpec, data: Prepared) -> nn.Module:
    """Build the teacher's model, without loading its weights."""
    teacher = spec.teacher
    return models.architecture(teacher.model, data.input_spec, data.num_classes, teacher.width, **teacher.options)


def load(spec: SweepSpec, data: Prepared, path: Path, device: torch.device) -> models.Tapped:
    """Load the stored teacher, frozen, in eval mode and tapped for its outputs."""
    # Building draws initial weights, which must not change the random state of a trial in mid-epoch.
    with torch.random.fork_rng(devices=[]):
        model = build(spec, data)
    model.load_state_dict(weights.load(path))
    on_device(model, device).eval().requires_grad_(False)
    return data.task.tapped(model, models.taps(spec.teacher.model, model, data.input_spec), data.input_spec)
