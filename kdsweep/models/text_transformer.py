"""A small transformer encoder for texts."""

from __future__ import annotations

from kdsweep.errors import ModelError
from kdsweep.lazy import nn
from kdsweep.models.base import need_count, register, scaled
from kdsweep.models.blueprint import Blueprint

_SIZE, _HEADS = 128, 4


def _blueprint(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: float,
    vocabulary: int,
    padding: int,
    depth: int = 2,
    dropout: float = 0.1,
) -> Blueprint:
    size, (length,) = _checked(width, depth, dropout), input_shape
    plan = Blueprint((size, length))
    plan.embedding("tokens", vocabulary, size)
    plan.embedding("positions", length, size)
    for place in range(depth):
        path = f"layers.{place}"
        plan.layer_norm(f"{path}.before", size)
        plan.weights(f"{path}.attention", (3 * size, size))
        plan.flops += 4 * size * length**2  # queries with keys, and weights with values
        plan.weights(f"{path}.joined", (size, size))
        plan.layer_norm(f"{path}.between", size)
        plan.weights(f"{path}.feed.0", (4 * size, size))
        plan.weights(f"{path}.feed.2", (size, 4 * size))
        plan.seen[path] = (length, size)
    plan.layer_norm("norm", size)
    plan.average()
    plan.linear("head", num_classes)
    return plan


def _checked(width: float, depth: int, dropout: float) -> int:
    """Return the size of the hidden states.

    Raises:
        ModelError: If an option is out of range.
    """
    need_count("text_transformer", "depth", depth)
    check_dropout("text_transformer", dropout)
    return max(_HEADS, _HEADS * round(scaled(_SIZE, width) / _HEADS))


def check_dropout(name: str, dropout: object) -> None:
    """Reject a dropout rate that is no fraction.

    Raises:
        ModelError: If it is not from 0 to below 1.
    """
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ModelError(f"model {name!r}: dropout is {dropout!r}; accepted: a number from 0 to below 1")


@register(
    "text_transformer",
    stages=("layers.*",),
    head="head",
    summary="for texts: a transformer encoder, 4 heads, size 128 at width 1; options: depth (2), dropout (0.1)",
    blueprint=_blueprint,
    takes="texts",
)
def text_transformer(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: float,
    vocabulary: int,
    padding: int,
    depth: int = 2,
    dropout: float = 0.1,
) -> nn.Module:
    """Token and position embeddings, `depth` pre-norm layers, and a linear layer on the mean of the hidden states."""
    from kdsweep.models.blocks.text_transformer import TextTransformer

    size, (length,) = _checked(width, depth, dropout), input_shape
    return TextTransformer(length, vocabulary, padding, num_classes, size, _HEADS, depth, dropout)
