"""Handling of third-party models: one-line errors, and test runs without side effects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kdsweep.errors import KdsweepError, ModelError
from kdsweep.lazy import nn, torch
from kdsweep.models.base import Input, InputSpec
from kdsweep.models.blueprint import EXAMPLES
from kdsweep.words import kind_of


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Convert any exception from third-party code into a one-line ModelError.

    Args:
        what: What failed; the start of the message.

    Raises:
        ModelError: With the first line of the original exception, which is chained as its cause.
    """
    try:
        yield
    except KdsweepError:
        raise
    except (Exception, SystemExit) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        reason = f"it called sys.exit({reason})" if isinstance(error, SystemExit) else reason
        raise ModelError(f"{what}: {reason}") from error


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode without gradients; restore training modes, buffers and random state afterwards."""
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
    """Check that a model returns logits for a batch of two samples.

    Args:
        name: The model's name in error messages.
        model: What the builder returned.
        input_shape: Shape of one sample.
        num_classes: Expected number of logits.

    Raises:
        ModelError: If it is not a module, does not accept such samples or does not return logits.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name!r} is {kind_of(model)}; accepted: a torch.nn.Module")
    logits = run_example(name, model, input_shape)
    if not isinstance(logits, torch.Tensor):
        raise ModelError(f"model {name!r} returns {kind_of(logits)}; accepted: logits [B, {num_classes}]")
    if logits.shape != (EXAMPLES, num_classes):
        found = list(logits.shape)
        raise ModelError(f"model {name!r} returns {found} for 2 images; accepted: logits [2, {num_classes}]")


def run_example(name: str, model: nn.Module, input_shape: Input) -> object:
    """Return the model's output for two samples of zeros (black images); the model is left unchanged.

    Raises:
        ModelError: If the model does not accept such samples.
    """
    first = next(model.parameters(), torch.empty(0))
    spec = InputSpec.of(input_shape)
    samples = spec.example(EXAMPLES, first.device)
    if samples.is_floating_point():
        samples = samples.to(first.dtype)
    what = "images" if len(spec.shape) == 3 else f"samples of {spec.dtype}"
    if spec.vocabulary:
        what = f"texts of {spec.vocabulary:,} tokens"
    with explained(f"model {name!r} does not take {'x'.join(map(str, spec.shape))} {what}"), undisturbed(model):
        return model(samples)
