"""Tensors in files that many processes map at once: one copy a node, in the page cache."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from kdsweep.errors import DataError
from kdsweep.lazy import torch
from kdsweep.storage.files import write_json


class ArrayWriter:
    """Writes one array row block by row block, whole or not at all.

    Args:
        path: The file; its shape lies beside it as JSON.
    """

    def __init__(self, path: Path):
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("wb")
        self._rows = 0
        self._row_shape: tuple[int, ...] = ()
        self._dtype = ""

    def append(self, rows: torch.Tensor) -> None:
        """Add rows [n, ...] on any device."""
        rows = rows.detach().cpu().contiguous()
        self._rows += len(rows)
        self._row_shape = tuple(rows.shape[1:])
        self._dtype = str(rows.dtype).removeprefix("torch.")
        self._file.write(rows.flatten().view(torch.uint8).numpy().data)

    def close(self) -> None:
        """Make the array visible."""
        self._file.close()
        write_json(_sidecar(self._path), {"shape": [self._rows, *self._row_shape], "dtype": self._dtype})
        self._partial.replace(self._path)

    def discard(self) -> None:
        """Leave nothing behind of an array that was not closed."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def save_array(tensor: torch.Tensor, path: Path) -> None:
    """Write one tensor [N, ...]."""
    writer = ArrayWriter(path)
    try:
        writer.append(tensor)
        writer.close()
    finally:
        writer.discard()


def map_array(path: Path) -> torch.Tensor:
    """Map an array into memory; nothing is read until it is touched.

    Raises:
        DataError: If the file is missing or not as long as its shape says.
    """
    if not has_array(path):
        raise DataError(f"{path}: missing or cut short; accepted: as kdsweep wrote it, delete its folder to renew it")
    shape, dtype = _described(path)
    return torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=dtype).reshape(shape)


def has_array(path: Path) -> bool:
    """Whether the array was written to its end, and is whole."""
    if not path.is_file() or not _sidecar(path).is_file():
        return False
    shape, dtype = _described(path)
    return path.stat().st_size == math.prod(shape) * dtype.itemsize


def array_shape(path: Path) -> list[int]:
    """The shape of an array that was written to its end."""
    return _described(path)[0]


def _described(path: Path) -> tuple[list[int], torch.dtype]:
    described = json.loads(_sidecar(path).read_text())
    return described["shape"], getattr(torch, described["dtype"])


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")
