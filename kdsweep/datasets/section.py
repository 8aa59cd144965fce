"""The section `dataset` of a sweep file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kdsweep.section import Section


class DatasetSpec(Section):
    """Which images, and how they are split and varied.

    Attributes:
        name: A data set of `kdsweep datasets`, or `package.module:function`.
        root: Directory that holds it, or into which it is downloaded.
        augment: How training images are varied: mirrored, or shifted within a border of an eighth and mirrored.
        val_fraction: Share of the training images kept for selection, where the data set has no split of its own.
        subset: Number of training images used, validation included; 0 is all.
        resize: Side in pixels; 0 keeps the size.
        stream: Decode images as they are needed, in processes beside each trial, rather than all of them once.
        download: Whether missing files may be fetched.
        normalize: Mean and spread of the data set, those of ImageNet, or none (0..1).
    """

    name: str
    root: str = "data"
    augment: Literal["none", "flip", "crop_flip"] = "none"
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    subset: Annotated[int, Field(ge=0)] = 0
    resize: Annotated[int, Field(ge=0, le=4096)] = 0
    stream: bool = False
    download: bool = True
    normalize: Literal["dataset", "imagenet", "none"] = "dataset"
