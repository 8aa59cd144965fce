"""Care for models that are not ours: their errors in one line, and a run that leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kdsweep.errors import KdsweepError, ModelError
from kdsweep.lazy import nn, torch
from kdsweep.models.base import Input, InputSpec
from kdsweep.models.blueprint import EXAMPLES


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever foreign code raises into a ModelError of one line.

    Args:
        what: What failed, the line's beginning.

    Raises:
        ModelError: With the error's first line, and the error as its cause.
    """
    try:
        yield
    except KdsweepError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{what}: {reason}") from error


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients; training modes, buffers and random state are afterwards as they were."""
    modes = [(module, module.training) for module in model.modules()]
    kept = {path: buffer for path, buffer in model.named_buffers() if not nn.parameter.is_lazy(buffer)}
    buffers = {path: (buffer, buffer.clone()) for path, buffer in kept.items()}
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    model.eval()
    try:
        with torch.random.fork_rng(devices=sorted(devices)), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for path, (buffer, before) in buffers.items():
                parent, _, leaf = path.rpartition(".")
                setattr(model.get_submodule(parent), leaf, buffer.copy_(before))


def check_logits(name: str, model: object, input_shape: Input, num_classes: int) -> None:
    """Refuse what does not turn two examples into logits.

    Args:
        name: The model, as errors say it.
        model: What a builder returned.
        input_shape: Of one sample.
        num_classes: Outputs expected.

    Raises:
        ModelError: If it is no module, does not take such samples or returns something else.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name!r} is {type(model).__name__}; accepted: a torch.nn.Module")
    logits = run_example(name, model, input_shape)
    if not isinstance(logits, torch.Tensor):
        raise ModelError(f"model {name!r} returns {type(logits).__name__}; accepted: logits [B, {num_classes}]")
    if logits.shape != (EXAMPLES, num_classes):
        found = list(logits.shape)
        raise ModelError(f"model {name!r} returns {found} for 2 images; accepted: logits [2, {num_classes}]")


def run_example(name: str, model: nn.Module, input_shape: Input) -> object:
    """What `model` returns for two samples of zeros (black images), undisturbed.

    Raises:
        ModelError: If it does not take such samples.
    """
    first = next(model.parameters(), torch.empty(0))
    spec = InputSpec.of(input_shape)
    samples = spec.example(EXAMPLES, first.device)
    if samples.is_floating_point():
        samples = samples.to(first.dtype)
    what = "images" if len(spec.shape) == 3 else f"samples of {spec.dtype}"
    with explained(f"model {name!r} does not take {'x'.join(map(str, spec.shape))} {what}"), undisturbed(model):
        return model(samples)
