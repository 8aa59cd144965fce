"""Model weights as files: safetensors, or a PyTorch state dict that needs no unpickling of code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsweep.errors import CheckpointError
from kdsweep.lazy import nn, torch
from kdsweep.storage.files import replacing

State = dict[str, "torch.Tensor"]


def save(state: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all.

    Args:
        state: Tensors by name, on any device.
        path: The file; its directory is made.
        metadata: Strings kept in the file's header.
    """
    from safetensors.torch import save as encode

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replacing(path) as partial:
        partial.write_bytes(encode(tensors, metadata=dict(metadata or {})))


def load(path: Path) -> State:
    """Read a checkpoint onto the CPU: safetensors, or a state dict saved with `torch.save`.

    Raises:
        CheckpointError: If it is missing, truncated, holds more than tensors, or needs code to be unpickled.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd versions in a damaged file
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path}: holds more than tensors, or is no checkpoint; accepted: a .safetensors file or "
            "torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # on a damaged file torch's readers raise almost anything
        raise CheckpointError(f"checkpoint {path}: unreadable: {_first_line(error)}") from error
    return _state_dict(loaded, path)


def metadata(path: Path) -> dict[str, str]:
    """The strings in a safetensors file's header.

    Raises:
        CheckpointError: If the file is missing or unreadable.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {path}: unreadable: {_first_line(error)}") from error


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a checkpoint's tensors by name; of a safetensors file by its header alone, without torch.

    Raises:
        CheckpointError: As `load`.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in load(path).items()}
    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {path}: unreadable: {_first_line(error)}") from error


def check_classes(path: Path, head: str, num_classes: int) -> None:
    """Check the last layer of a safetensors file by its header alone, without torch.

    Raises:
        CheckpointError: If the file is unreadable or its last layer has another number of outputs.
    """
    shape = shapes(path).get(f"{head}.weight")
    if shape is None:
        raise CheckpointError(f"checkpoint {path}: {head}.weight is missing")
    if shape[0] != num_classes:
        raise CheckpointError(
            f"checkpoint {path}: {head}.weight has {shape[0]} outputs, accepted: {num_classes} classes"
        )


def fit(model: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Check that weights belong to a model; see `fit_shapes`."""
    wanted, found = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (model.state_dict(), state)
    )
    fit_shapes(wanted, found, where)


def fit_shapes(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Check that weights belong to a model by the shapes of their tensors.

    Args:
        wanted: Of the model's state dict, by name.
        found: Of the weights.
        where: What the weights are called in the error.

    Raises:
        CheckpointError: Naming the first difference and how many there are.
    """
    faults = [
        f"{name} is {list(found[name])}, accepted: {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    faults += [
        f"{name} is missing" for name in wanted if name not in found and not name.endswith("num_batches_tracked")
    ]
    faults += [f"{name} does not belong to the model" for name in found if name not in wanted]
    if faults:
        more = f" (and {len(faults) - 1} more differences)" if len(faults) > 1 else ""
        raise CheckpointError(f"{where}: {faults[0]}{more}")


def _state_dict(loaded: Any, path: Path) -> State:
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(f"checkpoint {path}: found {type(loaded).__name__}; accepted: a state dict of tensors")
    if not loaded:
        raise CheckpointError(f"checkpoint {path}: holds no tensors; accepted: a state dict of tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
