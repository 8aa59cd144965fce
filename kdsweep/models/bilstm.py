"""A bidirectional LSTM for texts."""

from __future__ import annotations

from kdsweep.lazy import nn
from kdsweep.models.base import need_count, register, scaled
from kdsweep.models.blueprint import Blueprint
from kdsweep.models.text_transformer import check_dropout

_SIZE = 64


def _blueprint(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: float,
    vocabulary: int,
    padding: int,
    depth: int = 1,
    dropout: float = 0.1,
) -> Blueprint:
    size, (length,) = _checked(width, depth, dropout), input_shape
    plan = Blueprint((2 * size, length))
    plan.embedding("tokens", vocabulary, size)
    for place in range(depth):
        inputs = size if place == 0 else 2 * size
        for way in ("forwards", "backwards"):
            path = f"layers.{place}.{way}"
            for kind, shape in (("ih", (4 * size, inputs)), ("hh", (4 * size, size))):
                plan.parameters |= {f"{path}.weight_{kind}_l0": shape, f"{path}.bias_{kind}_l0": shape[:1]}
                plan.flops += 2 * shape[0] * shape[1] * length
        plan.seen[f"layers.{place}"] = (length, 2 * size)
    plan.average()
    plan.linear("head", num_classes)
    return plan


def _checked(width: float, depth: int, dropout: float) -> int:
    """Return the size of each direction's states.

    Raises:
        ModelError: If an option is out of range.
    """
    need_count("bilstm", "depth", depth)
    check_dropout("bilstm", dropout)
    return scaled(_SIZE, width)


@register(
    "bilstm",
    stages=("layers.*",),
    head="head",
    summary="for texts: a bidirectional LSTM, size 64 in each direction at width 1; options: depth (1), dropout (0.1)",
    blueprint=_blueprint,
    takes="texts",
)
def bilstm(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: float,
    vocabulary: int,
    padding: int,
    depth: int = 1,
    dropout: float = 0.1,
) -> nn.Module:
    """Token embeddings, `depth` bidirectional layers, and a linear layer on the mean of the hidden states."""
    from kdsweep.models.blocks.bilstm import BiLSTM

    return BiLSTM(vocabulary, padding, num_classes, _checked(width, depth, dropout), depth, dropout)
