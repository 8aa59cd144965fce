"""The teacher: loaded or trained once, judged, and stored by content so that the next sweep starts at once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdsweep import models
from kdsweep.config.load import checkpoint_path
from kdsweep.config.recipes import teacher_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import CheckpointError, TeacherError
from kdsweep.lazy import nn, torch
from kdsweep.seeds import digest_of
from kdsweep.storage import weights
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import Store, SweepDir
from kdsweep.tasks import Prepared, Samples
from kdsweep.training.evaluate import evaluate
from kdsweep.training.teaching import NoTeacher
from kdsweep.training.trainer import Training, on_device, resumed, run_through

WEIGHTS = "model.safetensors"
CARD = "teacher.json"


@dataclass(frozen=True)
class TeacherCard:
    """What is known of a teacher.

    Attributes:
        digest: Names its weights and the data it was judged on.
        model: A model's name.
        width: Of its channels.
        options: Further arguments of the model.
        origin: `trained` or the checkpoint it was loaded from.
        measured: Its metrics on the sweep's validation split, as `val_NAME`; keys of their own in the file.
        parameters: How many.
        size_mb: Parameters and buffers, in MiB.
        epochs: It was trained for here; 0 if loaded.
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
        """The card in a file.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is not JSON.
            TypeError: If it is not a card.
        """
        known = json.loads(path.read_text())
        measured = {name: value for name, value in known.items() if name.startswith("val_")}
        return cls(**{name: value for name, value in known.items() if name not in measured}, measured=measured)

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        known = asdict(self)
        measured = known.pop("measured")
        write_json(path, known | measured)


def teacher_digest(spec: SweepSpec, data: Prepared) -> str:
    """What a teacher is stored under: what made its weights, and the data that it was judged on."""
    teacher = spec.teacher
    identity: dict[str, Any] = {
        "model": teacher.model, "width": teacher.width, "options": teacher.options, "data": data.digest, "layout": 1,
    }  # fmt: skip
    if teacher.checkpoint is not None:
        with checkpoint_path(teacher.checkpoint).open("rb") as file:
            identity["checkpoint"] = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        identity |= {"train": teacher.train.identity(), "seed": spec.seed, "augment": spec.dataset.augment}
    return digest_of(identity)[:16]


def stored(spec: SweepSpec, data: Prepared, sweep: SweepDir) -> TeacherCard | None:
    """The sweep's own teacher, or the one that an earlier sweep left in the store, if it is whole."""
    return _whole(sweep.teacher) or _whole(sweep.store.teacher(teacher_digest(spec, data)))


def _whole(folder: Path) -> TeacherCard | None:
    try:
        weights.load(folder / WEIGHTS)
        return TeacherCard.read(folder / CARD)
    except (CheckpointError, OSError, ValueError, TypeError):
        return None  # never finished, or damaged: it is made again


def make(
    spec: SweepSpec,
    data: Prepared,
    store: Store,
    device: torch.device,
    on_epoch: Callable[[dict[str, float]], None],
) -> TeacherCard:
    """Load the checkpoint or train the teacher, judge it and store it.

    Args:
        spec: The sweep.
        data: Its data.
        store: Where the teacher is kept for further sweeps.
        device: Where it is trained.
        on_epoch: Hears of each epoch of training.

    Raises:
        CheckpointError: If the checkpoint does not fit.
        TeacherError: If it is not worth distilling from.
    """
    digest = teacher_digest(spec, data)
    root = store.teacher(digest)
    val = data.split("val", device)
    if spec.teacher.checkpoint is None:
        state = root / "state.safetensors"
        train, teacher = data.split("train", device), teacher_recipe(spec)
        training = resumed(lambda: Training(teacher, data, train, val, NoTeacher(device)), state)
        run_through(training, state, on_epoch)
        model = training.student
        origin = "trained"
    else:
        model = build(spec, data)
        path = checkpoint_path(spec.teacher.checkpoint)
        loaded, part = weights.load_part(path)
        origin = f"{spec.teacher.checkpoint}, its {part}" if part in weights.AVERAGED else spec.teacher.checkpoint
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
    """Refuse a teacher that knows little more than chance.

    Raises:
        TeacherError: If its task does not find it worth distilling from.
    """
    if fault := data.task.teacher_fault(card.measured, data.num_classes):
        raise TeacherError(f"the teacher {card.model} ({card.origin}) {fault}")


def with_objective(
    card: TeacherCard, spec: SweepSpec, data: Prepared, sweep: SweepDir, device: torch.device
) -> TeacherCard:
    """A stored teacher that was judged for another objective is judged again."""
    if spec.goal.column in card.measured:
        return card
    folder = sweep.teacher if _whole(sweep.teacher) else sweep.store.teacher(card.digest)
    model = load(spec, data, folder / WEIGHTS, device).model
    return replace(card, measured=_measured(spec, data, model, data.split("val", device)))


def _measured(spec: SweepSpec, data: Prepared, model: nn.Module, val: Samples) -> dict[str, float]:
    measured = evaluate(model, val, data.task.measured(spec.goal))
    return {f"val_{name}": value for name, value in measured.items()}


def adopt(card: TeacherCard, sweep: SweepDir) -> None:
    """Copy the stored teacher into the sweep's directory, which must stand on its own."""
    if _whole(sweep.teacher):
        return
    sweep.teacher.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sweep.store.teacher(card.digest) / WEIGHTS, sweep.teacher_weights)
    card.write(sweep.teacher_card)


def build(spec: SweepSpec, data: Prepared) -> nn.Module:
    """The teacher's model, its weights still to be loaded."""
    teacher = spec.teacher
    return models.architecture(teacher.model, data.input_spec, data.num_classes, teacher.width, **teacher.options)


def load(spec: SweepSpec, data: Prepared, path: Path, device: torch.device) -> models.Tapped:
    """The stored teacher, frozen and in eval mode, ready to show its outputs."""
    # Fresh weights are drawn before the stored ones replace them; a trial in mid-epoch must not see that.
    with torch.random.fork_rng(devices=[]):
        model = build(spec, data)
    model.load_state_dict(weights.load(path))
    on_device(model, device).eval().requires_grad_(False)
    return data.task.tapped(model, models.taps(spec.teacher.model, model, data.input_spec))
