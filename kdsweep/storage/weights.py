"""Model weights as files: safetensors, or a PyTorch state dict that needs no unpickling of code."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kdsweep.errors import CheckpointError
from kdsweep.lazy import nn, torch
from kdsweep.storage.files import replacing
from kdsweep.words import kind_of

State = dict[str, "torch.Tensor"]
Shapes = Mapping[str, tuple[int, ...]]

# Keys under which training scripts save the weights; averaged weights take precedence, as in timm.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict")
WRAPPERS = (*AVERAGED, "model_state_dict", "state_dict", "model")
# Name prefixes added by Lightning, DistributedDataParallel and torch.compile.
PREFIXES = ("model.", "module.", "_orig_mod.")
SUGGESTIONS = 3  # maximum number of renamings in an error message


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
    """Read a checkpoint onto the CPU: safetensors, or the file of a training script that uses `torch.save`.

    Raises:
        CheckpointError: If it is missing or truncated, contains no tensors, or needs code to be unpickled.
    """
    return load_part(path)[0]


def load_part(path: Path) -> tuple[State, str]:
    """Like `load`, but also return the key of the checkpoint that was read, such as `model_ema`; empty if none.

    Raises:
        CheckpointError: As for `load`.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path), ""
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # of odd versions in a damaged file
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path}: no such file") from None
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = f"; found an object of type {code[1]}" if code else ""
        raise CheckpointError(
            f"checkpoint {path}: contains more than tensors, or is not a checkpoint{found}; accepted: a .safetensors "
            "file, or one written by torch.save(model.state_dict(), ...)"
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
    found = shapes(path)
    shape = next((shape for name, shape in found.items() if f"{head}.weight" in _readings(name)), None)
    if shape is None:
        raise CheckpointError(f"checkpoint {path}: {head}.weight is missing")
    if shape[0] != num_classes:
        raise CheckpointError(
            f"checkpoint {path}: {head}.weight has {shape[0]} outputs, accepted: {num_classes} classes"
        )


def fit(model: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> State:
    """Check that weights belong to a model; see `fit_shapes`.

    Returns:
        The tensors by the model's names.
    """
    names = fit_shapes(_shapes_of(model.state_dict()), _shapes_of(state), where)
    return {own: state[name] for own, name in names.items()}


def check_values(model: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Check that weights are finite and of a type that the model can compute with.

    Args:
        model: The model that the weights belong to.
        state: The weights as read from the file, by the model's names.
        where: Name of the weights in error messages.

    Raises:
        CheckpointError: Naming the first tensor of another type, or with NaN or an infinity in it.
    """
    for name, own in model.state_dict().items():
        found = state.get(name)
        if found is None:
            continue
        kind = "floating point" if own.is_floating_point() else str(own.dtype).removeprefix("torch.")
        # 8-bit floats need a scale, which a plain state dict does not contain.
        fits = found.is_floating_point() and found.itemsize > 1 if own.is_floating_point() else found.dtype == own.dtype
        if not fits:
            raise CheckpointError(f"{where}: {name} is {str(found.dtype).removeprefix('torch.')}; accepted: {kind}")
        if not torch.isfinite(found).all():
            raise CheckpointError(f"{where}: {name} contains NaN or an infinity; accepted: finite weights")


def below(state: Mapping[str, torch.Tensor], prefix: str) -> State:
    """The tensors of one part of a model, by their names in that part; `PREFIXES` may precede `prefix`."""
    return {
        reading.removeprefix(prefix): tensor
        for name, tensor in state.items()
        for reading in _readings(name)
        if reading.startswith(prefix)
    }


def fit_shapes(wanted: Shapes, found: Shapes, where: str) -> dict[str, str]:
    """Check that weights belong to a model by the shapes of their tensors.

    Args:
        wanted: Of the model's state dict, by name.
        found: Of the weights; their names may have `PREFIXES`.
        where: Name of the weights in error messages.

    Returns:
        The names in the weights, by the model's names.

    Raises:
        CheckpointError: Naming the first difference and how many there are; if only names differ, also the line of
            Python that renames them.
    """
    names = _named_as(wanted, found)
    found = {own: found[name] for own, name in names.items()}
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    foreign = [name for name in found if name not in wanted]
    faults = [
        f"{name} is {list(found[name])}, accepted: {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    faults += [f"{name} is missing" for name in missing]
    faults += [f"{_printable(name)} does not belong to the model" for name in foreign]
    if faults:
        more = f" (and {len(faults) - 1} more differences)" if len(faults) > 1 else ""
        hint = _renaming_hint({name: wanted[name] for name in missing}, {name: found[name] for name in foreign})
        raise CheckpointError(f"{where}: {faults[0]}{more}{hint}")
    return names


def _named_as(wanted: Shapes, found: Shapes) -> dict[str, str]:
    """Map the model's names to the names in the weights, ignoring `PREFIXES`."""
    names: dict[str, str] = {}
    prefixed = False
    for name in found:
        own = next((reading for reading in _readings(name) if reading in wanted), name)
        if own in names or (own != name and own in found):
            own = name  # ambiguous: the same name with and without a prefix
        prefixed |= own != name
        names[own] = name
    if prefixed and wanted.keys() <= names.keys():
        # Lightning also saves the weights of losses and metrics.
        return {own: name for own, name in names.items() if own in wanted}
    return names


def _shapes_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _readings(name: str) -> list[str]:
    """A name, followed by what remains after removing one prefix after the other."""
    readings = [name]
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
        readings.append(name)
    return readings


def _renaming_hint(missing: Shapes, foreign: Shapes) -> str:
    """Pair missing names with the closest foreign ones of the same shape, and write the line that renames them."""
    pairs: dict[str, str] = {}
    for name, shape in list(missing.items())[:SUGGESTIONS]:
        alike = [other for other, its in foreign.items() if its == shape and other not in pairs.values()]
        longer = [other for other in alike if other.endswith(f".{name}")]
        near = longer or get_close_matches(name, alike, n=1, cutoff=0.0)
        if near:
            pairs[name] = near[0]
    if not pairs:
        return ""
    nearest = ", ".join(f"{name} may be {_printable(other)}" for name, other in pairs.items())
    prefixes = {other.removesuffix(name) for name, other in pairs.items() if other.endswith(f".{name}")}
    if len(prefixes) == 1:
        (prefix,) = prefixes
        line = f"state = {{name.removeprefix({prefix!r}): tensor for name, tensor in state.items()}}"
    else:
        line = "; ".join(f"state[{name!r}] = state.pop({other!r})" for name, other in pairs.items())
    return f"; {nearest}; to rename: {line}"


def _printable(name: str) -> str:
    return name if name.isprintable() and len(name) <= 100 else repr(name[:100])


def _state_dict(loaded: Any, path: Path) -> tuple[State, str]:
    part = ""
    while isinstance(loaded, Mapping):
        inside = [key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if not inside:
            break
        part = next((key for key in inside if loaded[key]), inside[0])
        loaded = loaded[part]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(f"checkpoint {path}: found {kind_of(loaded)}; accepted: a state dict of tensors")
    if not loaded:
        raise CheckpointError(f"checkpoint {path}: holds no tensors; accepted: a state dict of tensors")
    return {str(name): tensor for name, tensor in loaded.items()}, part


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
