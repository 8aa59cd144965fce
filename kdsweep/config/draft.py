"""Writes a first sweep file for a folder of images or a teacher's file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kdsweep.config.load import load_spec
from kdsweep.config.yaml import parse_value
from kdsweep.datasets import DATASETS, Dataset, DatasetInfo, Source
from kdsweep.errors import InputError, SpecError

LARGEST, SIDE = 96, 64  # pixels: images that are larger, or of several sizes, are resized to SIDE
FEW = 640  # training images that are too few for the usual batches
# The option behind each key that a fault can be about.
OPTIONS = {
    "dataset.root": "--images",
    "dataset.name": "--images",
    "teacher.checkpoint": "--teacher",
    "teacher.model": "--teacher-model",
    "teacher.options": "--teacher-model",
    "student.model": "--student",
    "student.options": "--student",
    "train.epochs": "--epochs",
    "teacher.train.epochs": "--epochs",
    "search.trials": "--trials",
}
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")


@dataclass(frozen=True)
class Draft:
    """What a sweep file is written from.

    Attributes:
        path: The file to write.
        images: A folder with train/CLASS/IMAGE, or the name of a data set.
        teacher: The teacher's weights; empty if it is to be trained.
        teacher_model: The teacher's model.
        student: The student's model.
        epochs: Epochs of each trial.
        trials: Number of trials.
    """

    path: Path
    images: str
    teacher: str
    teacher_model: str
    student: str
    epochs: int
    trials: int

    @property
    def options(self) -> Mapping[str, str]:
        """The option behind each key that a fault can be about."""
        return OPTIONS

    def write(self) -> None:
        """Write the file, once what is in it is valid.

        Raises:
            SpecError: If it would not be valid; each fault names the option behind it.
            InputError: If the file exists or cannot be written.
        """
        refuse_existing(self.path)
        text = self._text()
        try:
            load_spec({"name": self.path.stem, **parse_value(text, str(self.path))})
        except SpecError as error:
            raise error.renamed(self.options) from error
        try:
            with self.path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            refuse_existing(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _text(self) -> str:
        return f"""\
# Written by kdsweep init. docs/sweep-files.md of kdsweep explains these and all other keys.
#
#   kdsweep validate {self.path}
#   kdsweep run {self.path} --set search.trials=4 --name look   # a quick look first
#   kdsweep run {self.path}

{self._dataset()}
{self._teacher()}
student: {{model: {quoted(self.student)}}}{beside("its widths are searched below")}
space:
  method: [none, kd, dkd, dist]{beside("`kdsweep methods` lists them; none is the plain student")}
  width: {{choice: [0.5, 1.0]}}{beside("multiples of the student's channels")}
  temperature: {{loguniform: [1, 16]}}{beside("drawn only for methods that use it")}
  alpha: {{uniform: [0.05, 0.95]}}{beside("share of distillation in the loss")}
  lr: {{loguniform: [3e-4, 1e-2]}}
train: {{epochs: {self.epochs}, batch_size: {self._batch}, optimizer: adam, schedule: cosine}}
search: {{sampler: tpe, trials: {self.trials}, startup_trials: {max(1, self.trials // 3)}}}
# Trials pause early, and the best of each width go on.
scheduler: {{reduction_factor: 3, group_by: [width]}}
# constraints: {{parameters: 100_000}}{beside("a student above a limit is never trained")}
# {self._confirmed}
confirm: {{top: 3, seeds: 3}}
resources: {{cpus_per_trial: 1, gpus_per_trial: auto, max_concurrent: auto}}
storage: runs{beside("directory of the sweeps")}
"""

    def _dataset(self) -> str:
        channels = self._info.input_shape[0] if self._info else 0
        published = channels == 3 and self.teacher_model.startswith(("torchvision/", "timm/"))
        normalize = "imagenet" if published else "dataset"
        lines = ["dataset:", f"  name: {self._name}"]
        if self._name == "image_folder":
            resize = f"  resize: {self._resize()}{beside('pixels; 0 keeps the size of the images')}"
            lines += [
                f"  root: {quoted(self.images)}{beside('with train/CLASS/IMAGE, and perhaps val/ and test/')}",
                resize,
            ]
        else:
            lines += [f"  root: data{beside('downloads go there')}"]
        return "\n".join([
            *lines,
            f"  augment: flip{beside('or crop_flip; none if left and right matter')}",
            f"  val_fraction: 0.1{beside('of the training images, if there is no validation split')}",
            f"  normalize: {normalize}{beside('as for the teacher: dataset, imagenet or none')}",
        ])  # fmt: skip

    def _teacher(self) -> str:
        trained = f"{{epochs: {self.epochs}, batch_size: {self._batch}, optimizer: adam, lr: 1e-3}}"
        given = [f"  checkpoint: {quoted(self.teacher)}{beside('safetensors, or a PyTorch state dict')}"]
        if not self.teacher:
            given = [f"  # checkpoint: teacher.safetensors{beside('your trained weights, if there are any')}"]
            given += [f"  train: {trained}"]
        return "\n".join([
            "teacher:", f"  model: {quoted(self.teacher_model)}{beside('`kdsweep models` lists them')}", *given
        ])  # fmt: skip

    @property
    def _name(self) -> str:
        return self.images if self.images in DATASETS else "image_folder"

    @property
    def _source(self) -> Source:
        return Source(Path(self.images if self._name == "image_folder" else "data").expanduser().absolute())

    @property
    def _folder(self) -> Dataset:
        return DATASETS[self._name]

    @cached_property
    def _info(self) -> DatasetInfo | None:
        """Describes the images; None if they cannot be read, which is reported when the text is checked."""
        try:
            return self._folder.describe(self._source)
        except InputError:
            return None

    def _resize(self) -> int:
        """Return 0 if all images have one small size, else SIDE."""
        small = self._info is not None and max(self._info.input_shape) <= LARGEST
        return 0 if small and not self._folder.unreadable(self._source) else SIDE

    @property
    def _batch(self) -> int:
        if self._name != "image_folder" or self._info is None:
            return 64
        return 64 if len(self._folder.files(self._source, "train").labels) >= FEW else 16

    @property
    def _confirmed(self) -> str:
        if self._info is None or "test" in self._info.splits:
            return "The best are trained again on fresh seeds and measured once on the test split."
        return "Without a test split, the best students are not confirmed."


def refuse_existing(path: Path) -> None:
    """Raise an InputError if the file exists."""
    if path.exists():
        raise InputError(f"{path}: exists already; accepted: the name of a new file")


def quoted(text: str) -> str:
    """Write a text as YAML does."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def beside(comment: str) -> str:
    """Write a comment at the end of a line."""
    return f"   # {comment}"
