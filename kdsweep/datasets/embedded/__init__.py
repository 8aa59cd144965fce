"""Files included in the package: a stratified part of MNIST, and a teacher trained on the rest of MNIST.

They were created by `make_mnist_mini.py` and `train_mnist_mini_teacher.py` in this directory.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from kdsweep.errors import UnknownNameError, did_you_mean


def path(name: str) -> Path:
    """Return the path of the embedded file `name`.

    Raises:
        UnknownNameError: If there is no such file; the message suggests the closest name.
    """
    folder = Path(str(files(__name__)))
    if not (folder / name).is_file():
        held = [file.name for file in folder.iterdir() if file.suffix in (".npz", ".safetensors")]
        raise UnknownNameError(f"kdsweep does not include a file {name!r}; {did_you_mean(name, held)}")
    return folder / name
