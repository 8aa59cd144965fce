"""Memory-mapped array files: processes on a node share one copy, in the page cache.

NumPy arrays are written without torch, because the driver writes them and need not import it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsweep.errors import DataError
from kdsweep.lazy import torch
from kdsweep.storage.files import partial_of, write_json
from kdsweep.storage.following import written


class ArrayWriter:
    """Writes one array in blocks of rows; the file appears only when it is complete.

    Args:
        path: The file; its shape and dtype are stored next to it as JSON.
    """

    def __init__(self, path: Path):
        self._path = path
        self._partial = partial_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("wb")
        self._rows = 0
        self._row_shape: tuple[int, ...] = ()
        self._dtype = ""

    def append(self, rows: torch.Tensor) -> None:
        """Append rows [n, ...], from any device."""
        rows = rows.detach().cpu().contiguous()
        self._note(len(rows), tuple(rows.shape[1:]), str(rows.dtype).removeprefix("torch."))
        self._file.write(rows.flatten().view(torch.uint8).numpy().data)

    def append_array(self, rows: NDArray[Any]) -> None:
        """Append rows [n, ...] of a NumPy array."""
        self._note(len(rows), rows.shape[1:], rows.dtype.name)
        self._file.write(np.ascontiguousarray(rows).data)

    def close(self) -> None:
        """Finish the file and move it into place."""
        self._file.close()
        write_json(_sidecar(self._path), {"shape": [self._rows, *self._row_shape], "dtype": self._dtype})
        self._partial.replace(self._path)
        written(self._path)

    def discard(self) -> None:
        """Delete the partial file, unless `close` was called."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _note(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> None:
        self._rows += rows
        self._row_shape, self._dtype = row_shape, dtype


def save_array(array: NDArray[Any], path: Path) -> None:
    """Write an array [N, ...] atomically."""
    writer = ArrayWriter(path)
    try:
        writer.append_array(array)
        writer.close()
    finally:
        writer.discard()


def map_array(path: Path) -> torch.Tensor:
    """Memory-map an array; pages are read on first access.

    Raises:
        DataError: If the file is missing or has the wrong size for its shape.
    """
    if not has_array(path):
        raise DataError(f"{path}: missing or truncated; delete {path.parent} and kdsweep will recreate it")
    shape, dtype = _described(path)
    return torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=getattr(torch, dtype)).reshape(shape)


def read_array(path: Path) -> NDArray[Any]:
    """Read an array into memory, without torch.

    Raises:
        DataError: If the file is missing or has the wrong size for its shape.
    """
    if not has_array(path):
        raise DataError(f"{path}: missing or truncated")
    shape, dtype = _described(path)
    return np.fromfile(path, dtype).reshape(shape)


def has_array(path: Path) -> bool:
    """Whether the array exists and has its full size."""
    if not path.is_file() or not _sidecar(path).is_file():
        return False
    shape, dtype = _described(path)
    bytes_each = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize  # NumPy has no bfloat16
    return path.stat().st_size == math.prod(shape) * bytes_each


def array_shape(path: Path) -> list[int]:
    """The shape of an array that was written to its end."""
    return _described(path)[0]


def _described(path: Path) -> tuple[list[int], str]:
    """Return the shape and the name of the dtype."""
    described = json.loads(_sidecar(path).read_text())
    return described["shape"], described["dtype"]


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")
