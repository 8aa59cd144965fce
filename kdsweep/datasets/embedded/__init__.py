"""Files that come with the package: a stratified part of MNIST and a teacher trained on the rest of it.

`make_mnist_mini.py` and `train_mnist_mini_teacher.py` beside them made them.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from kdsweep.errors import UnknownNameError, did_you_mean


def path(name: str) -> Path:
    """Where the embedded file `name` lies.

    Raises:
        UnknownNameError: If the package holds no such file, with the nearest name.
    """
    folder = Path(str(files(__name__)))
    if not (folder / name).is_file():
        held = [file.name for file in folder.iterdir() if file.suffix in (".npz", ".safetensors")]
        raise UnknownNameError(f"kdsweep comes with no file {name!r}; {did_you_mean(name, held)}")
    return folder / name
