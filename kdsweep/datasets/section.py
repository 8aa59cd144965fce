"""The `dataset` section of a sweep file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from kdsweep.datasets.base import Source
from kdsweep.datasets.unlabelled import Unlabelled
from kdsweep.section import MOST_EPOCHS, Section
from kdsweep.storage.fetched import local_copy
from kdsweep.storage.places import Place
from kdsweep.storage.section import PlaceText
from kdsweep.storage.streamed import folder_of, listing_of

LEAST_TOKENS = 258  # the 256 bytes, padding and start of a tokenizer trained here; texts may hold no more


def _text_or_list(written: object) -> object:
    if isinstance(written, str | list):
        return written
    raise PydanticCustomError("augment", "a list of transforms, such as [crop, flip, mixup], or none")


# Checked by the task, which knows the transforms.
Augment = Annotated[Any, BeforeValidator(_text_or_list)]


class TextSection(Section):
    """How texts are read and cut into tokens.

    Attributes:
        tokenizer: A `tokenizer.json` of Hugging Face's tokenizers, by path or URI; without one, it is trained on the
            training texts.
        vocabulary: Number of tokens of a trained tokenizer, at least those that need no training.
        lowercase: Whether a trained tokenizer ignores case.
        length: Number of tokens that are read of each text; longer texts are cut.
        text_column: Column with the texts, in files.
        label_column: Column with the labels, in files.
        classes: Class names in the order of the logits; empty sorts the labels.
    """

    tokenizer: PlaceText | None = None
    vocabulary: Annotated[int, Field(ge=LEAST_TOKENS, le=1_000_000)] = 8000
    lowercase: bool = True
    length: Annotated[int, Field(ge=2, le=8192)] = 128
    text_column: str = "text"
    label_column: str = "label"
    classes: list[str] = Field(default_factory=list)


class UnlabelledSection(Section):
    """Further training images, without classes.

    Attributes:
        root: Folder of the images, in any subfolders. A URI is copied to a local cache first.
    """

    root: PlaceText


class DatasetSpec(Section):
    """The images or texts, and how to split and augment them.

    Attributes:
        name: A data set listed by `kdsweep datasets`, or `package.module:function`.
        root: Directory of the data set; downloads go there too. A URI is copied to a local cache first; with `stream`,
            image by image.
        augment: Augmentation of training images: a list of transforms, or `none`, `flip` or `crop_flip`.
        views: Number of views of the training images that the epochs cycle through; 0 draws a new one in each epoch.
        val_fraction: Fraction of the training images used for validation if the data set has no validation split.
        subset: Number of training images to use, including validation; 0 uses all.
        resize: Side in pixels; 0 keeps the original size.
        stream: Decode images on demand, in worker processes of each trial, instead of all at once.
        skip_unreadable: Leave out image files that cannot be read, and record how many.
        download: Whether missing files may be downloaded.
        normalize: Normalise with the mean and standard deviation of the data set or of ImageNet, or not at all
            (pixels in 0..1).
        mean: Mean of each channel of images in 0..1, instead of the data set's own.
        std: Standard deviation of each channel, likewise.
        classes: Class names in the order of the teacher's logits, for images without labels.
        unlabelled: Further training images without classes, from which students learn by distillation alone.
        text: How texts are read; for data sets of texts.
    """

    name: str
    root: PlaceText = "data"
    augment: Augment = "none"
    views: Annotated[int, Field(ge=0, le=MOST_EPOCHS)] = 0
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    subset: Annotated[int, Field(ge=0)] = 0
    resize: Annotated[int, Field(ge=0, le=4096)] = 0
    stream: bool = False
    skip_unreadable: bool = False
    download: bool = True
    normalize: Literal["dataset", "imagenet", "none"] = "dataset"
    mean: list[float] = Field(default_factory=list)
    std: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)
    classes: list[str] = Field(default_factory=list)
    unlabelled: UnlabelledSection | None = None
    text: TextSection = TextSection()

    def source(self, hashes: Path | None = None) -> Source:
        """Return where to read the data set: `root`, a local copy of the URI that it is, or what it lists to stream.

        Args:
            hashes: As in `Source`.

        Raises:
            InputError: If the URI cannot be read.
        """
        place = Place.of(self.root)
        streamed = self.stream and place.is_remote
        return Source(
            folder_of(place.text) if streamed else local_copy(place, "data set"),
            self.download,
            self.resize,
            self.skip_unreadable,
            (self.text.text_column, self.text.label_column),
            tuple(self.classes or self.text.classes),
            hashes,
            listing_of(place, "data set") if streamed else None,
        )

    def unlabelled_images(self, shape: tuple[int, ...]) -> Unlabelled | None:
        """Return the folder of unlabelled images; None if the section names none.

        Args:
            shape: (channels, height, width) of the data set's images, after resizing.

        Raises:
            InputError: If it is a URI that cannot be read.
        """
        if self.unlabelled is None:
            return None
        channels, height, width = shape
        root = local_copy(self.unlabelled.root, "folder of images")
        return Unlabelled(root, (channels, height, width), self.resize, self.skip_unreadable)
