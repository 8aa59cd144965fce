"""A folder of images without classes, beside a data set: students learn from them by distillation alone.

The images are of the formats that `image_folder` reads, in any subfolders, and become images of the data set's shape.
Or the folder is one that kdsweep.sweep wrote: an array of images of that shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.base import shown
from kdsweep.datasets.image_folder import room
from kdsweep.datasets.images import fault_of, in_threads, opened, pixels, resized
from kdsweep.datasets.trees import images_in, listing
from kdsweep.errors import DataError
from kdsweep.storage.arrays import array_shape, has_array, read_array
from kdsweep.storage.hashes import FileHashes

SAMPLES = "unlabelled_samples.bin"  # what kdsweep.sweep writes


@dataclass(frozen=True)
class Unlabelled:
    """The folder.

    Attributes:
        root: Its path.
        shape: (channels, height, width) of the data set's images, after resizing.
        resize: Target side in pixels; 0 accepts only images of the data set's size.
        skip_unreadable: Whether files that cannot be read are left out.
    """

    root: Path
    shape: tuple[int, int, int]
    resize: int = 0
    skip_unreadable: bool = False

    @property
    def is_array(self) -> bool:
        """Whether kdsweep.sweep wrote it."""
        return has_array(self.root / SAMPLES)

    def count(self) -> int:
        """Return the number of images, without those that are left out.

        Raises:
            DataError: If there are none.
        """
        return array_shape(self.root / SAMPLES)[0] if self.is_array else len(self.paths())

    def paths(self) -> list[Path]:
        """List the files, without those that are left out.

        Raises:
            DataError: If there are none.
        """
        found = self._every()
        if not self.skip_unreadable:
            return found
        faults = self._faults(found)
        if all(faults):
            raise DataError(f"{self.root}: none of the {len(found)} images can be read; accepted: at least one")
        return [path for path, fault in zip(found, faults, strict=True) if not fault]

    def unreadable(self) -> list[str]:
        """Return one line for each file that cannot be read, whether it is left out or not.

        Raises:
            DataError: If there are no files.
        """
        if not self.is_array:
            return [fault for fault in self._faults(self._every()) if fault]
        found = tuple(array_shape(self.root / SAMPLES)[1:])
        if self.resize or found == self.shape:
            return []
        return [f"unlabelled images are of shape {shown(found)}, but the others are {shown(self.shape)}"]

    def read(self) -> NDArray[np.uint8]:
        """Read the images, [N, C, H, W].

        Raises:
            DataError: If one cannot be read.
        """
        if self.is_array:
            images = read_array(self.root / SAMPLES)
            return resized(images, self.resize) if self.resize else images
        paths = self.paths()
        images = room(len(paths), self.shape, self.root)

        def read(index: int) -> None:
            with opened(paths[index]) as image:
                images[index] = pixels(image, self.shape[0], self.resize, str(paths[index]))

        in_threads(read, len(paths))
        return images

    def digests(self, hashes: Path | None = None) -> list[str]:
        """Hash each file; names and modification times do not matter, only the order.

        Args:
            hashes: JSON file that remembers the hashes.
        """
        if self.is_array:  # its name is the hash of its content
            return [self.root.name]
        paths, known = self.paths(), FileHashes(hashes)
        found = [""] * len(paths)

        def read(index: int) -> None:
            found[index] = known.of(paths[index])

        with listing(self.root):
            in_threads(read, len(paths))
        known.save()
        return found

    def _every(self) -> list[Path]:
        if self.shape[0] not in (1, 3):
            raise DataError(
                f"{self.root}: image files are grey or RGB, but the images of the data set have {self.shape[0]} "
                "channels; accepted: no dataset.unlabelled"
            )
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such directory; accepted: a folder of images without classes")
        return images_in(self.root)

    def _faults(self, paths: list[Path]) -> list[str]:
        size = None if self.resize else (self.shape[2], self.shape[1])
        faults = [""] * len(paths)

        def check(index: int) -> None:
            others = "the images of the data set have"
            faults[index] = fault_of(paths[index], size, decode=self.skip_unreadable, others=others)

        with listing(self.root):
            in_threads(check, len(paths))
        return faults
