"""Which models have residual branches that training can drop, and how often each is dropped."""

from __future__ import annotations

from kdsweep.errors import ModelError
from kdsweep.lazy import import_torchvision, nn
from kdsweep.registry import is_user_object

# Prefixes of model names. The torchvision ones contain torchvision.ops.StochasticDepth.
DROPPING = (
    "resnet",
    "wrn",
    "torchvision/convnext_",
    "torchvision/efficientnet_",
    "torchvision/maxvit_",
    "torchvision/swin_",
)


def check_drop_path(name: str) -> None:
    """Check that `drop_paths` applies to a model, without building it; a user's own is checked only then.

    Raises:
        ModelError: If it does not.
    """
    if is_user_object(name) or name.startswith(DROPPING):
        return
    if name.startswith("timm/"):
        raise ModelError(f"model {name!r} takes it as an option instead: options: {{drop_path_rate: 0.1}}")
    raise ModelError(f"model {name!r} has no residual branches to drop; accepted: 0, or {', '.join(DROPPING)}")


def drop_paths(name: str, model: nn.Module, rate: float) -> None:
    """Let training drop residual branches: the last of L with probability `rate`, the l-th with `rate` * l / L.

    Each branch gets a `DropPath` of its own, so models that differ only in the rate print alike.

    Args:
        name: The model's name.
        model: The model; its blocks contain `kdsweep.models.blocks.DropPath` or `torchvision.ops.StochasticDepth`.
        rate: Probability, 0 <= rate < 1.

    Raises:
        ModelError: If the model has no such blocks.
    """
    from kdsweep.models.blocks import DropPath

    check_drop_path(name)
    kinds: tuple[type[nn.Module], ...] = (DropPath,)
    if is_user_object(name) or "/" in name:
        kinds = (DropPath, import_torchvision("ops").StochasticDepth)
    branches = [path for path, module in model.named_modules() if isinstance(module, kinds)]
    if not branches:
        raise ModelError(
            f"model {name!r} has no residual branches to drop; accepted: blocks with kdsweep.models.blocks.DropPath or "
            "torchvision.ops.StochasticDepth"
        )
    # The printed form of torchvision's module contains its rate, by which latencies would know a student.
    for number, path in enumerate(branches, 1):
        model.set_submodule(path, DropPath(rate * number / len(branches)))
