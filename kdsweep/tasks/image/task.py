"""The image classification task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from kdsweep import models
from kdsweep.datasets import Dataset, DatasetInfo
from kdsweep.datasets.section import DatasetSpec, TextSection
from kdsweep.errors import InputError
from kdsweep.lazy import nn, torch
from kdsweep.storage.paths import Store
from kdsweep.tasks.base import Prepared, Samples, Task, register
from kdsweep.tasks.image import splits
from kdsweep.tasks.image.batches import Images
from kdsweep.tasks.image.splits import PreparedData
from kdsweep.tasks.image.transforms.written import faults_of
from kdsweep.words import count_of


@register
class ImageTask(Task):
    """uint8 images [N, C, H, W], normalised batch by batch, with seeded augmentation."""

    name = "image"
    noun = "images"
    pipeline_tag = "image-classification"
    has_transforms = True

    def faults(
        self, spec: DatasetSpec, dataset: Dataset, info: DatasetInfo
    ) -> Iterator[tuple[str | tuple[str | int, ...], str]]:
        """Reject faulty transforms, streaming without image files, and ImageNet normalisation of non-RGB images."""
        for path, message in faults_of(spec.augment):
            yield ("augment", *path), message
        if spec.stream and dataset.list_files is None:
            accepted = "false, or a data set whose images are files of their own (image_folder)"
            yield "stream", f"found true with {spec.name!r}; accepted: {accepted}"
        if spec.skip_unreadable and dataset.check is None:
            accepted = "false, or a data set whose images are files of their own (image_folder)"
            yield "skip_unreadable", f"found true with {spec.name!r}; accepted: {accepted}"
        yield from _unlabelled_faults(spec, info)
        if spec.text != TextSection():
            yield "text", "accepted: leave it out, the samples are images"
        if spec.normalize == "imagenet" and info.input_shape[0] != 3:
            yield "normalize", "found 'imagenet'; accepted: dataset or none for images of one channel"
        if (spec.mean or spec.std) and spec.normalize != "dataset":
            yield "mean", f"found, beside normalize: {spec.normalize}; accepted: normalize: dataset, or leave it out"
        elif {len(spec.mean), len(spec.std)} not in ({0}, {channels := info.input_shape[0]}):
            found = f"{len(spec.mean)} means and {len(spec.std)} standard deviations"
            yield "mean", f"found {found}; accepted: {channels} of each, one for each channel"
        if spec.classes and dataset.labelled:
            yield "classes", "found, but the data set has classes of its own; accepted: leave it out"

    def prepare(self, spec: DatasetSpec, seed: int, store: Store) -> PreparedData:
        """Split the images, and decode them unless they are streamed."""
        return splits.prepare(spec, seed, store)

    def prepare_test(self, spec: DatasetSpec, data: Prepared) -> bool:
        return splits.prepare_test(spec, cast(PreparedData, data))

    def load(self, root: Path) -> PreparedData:
        return PreparedData.load(root)

    def exported_split(self, spec: DatasetSpec, seed: int, split: str) -> Samples:
        """A split with pixels in 0..1."""
        return splits.raw_images(spec, seed, split)

    def exported(self, model: nn.Module, described: Mapping[str, Any]) -> nn.Module:
        """Prepend the normalisation, and add the class names and the preprocessing of image files."""
        from kdsweep.tasks.image.student import Student

        mean, std, channels = described["mean"], described["std"], described["input_shape"][0]
        if len(mean) != channels:
            raise InputError(f"{len(mean)} means for {channels} channels")
        parts = models.normalised(model, mean, std)
        return Student(parts, described["class_names"], described["input_shape"], described["preprocessing"]["resize"])

    def pictures(self, samples: Samples, index: torch.Tensor) -> torch.Tensor:
        """The images before normalisation."""
        return cast(Images, samples).pixels(index).cpu()

    def exported_call(self, input_shape: tuple[int, ...]) -> str:
        return f"logits = student(images)  # images [B, {', '.join(map(str, input_shape))}] scaled to 0..1"

    def exported_note(self, described: Mapping[str, Any]) -> str:
        mean, std = (", ".join(f"{value:.6g}" for value in described[name]) or "–" for name in ("mean", "std"))
        return (
            "`student.preprocess(image)` prepares a file or a PIL image, and `student.class_names` names the logits. "
            f"The student normalises its own input (mean {mean}, std {std})."
        )


def _unlabelled_faults(spec: DatasetSpec, info: DatasetInfo) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what is wrong with the folder of unlabelled images."""
    key = ("unlabelled", "root")
    try:
        folder = spec.unlabelled_images(info.input_shape)
        lines = folder.unreadable() if folder else []
        if folder and spec.skip_unreadable and not folder.is_array:
            folder.paths()
            return
    except InputError as error:
        yield key, str(error)
        return
    yield from ((key, line) for line in lines[: splits.MOST_FILES])
    if len(lines) > splits.MOST_FILES:
        left = len(lines) - splits.MOST_FILES
        yield key, f"{count_of(left, 'more file')} cannot be read; repair or remove them"
