"""Models for texts: which tokens count, and their hidden states for methods."""

from __future__ import annotations

from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import Outputs
from kdsweep.models.base import InputSpec, Tapped, Taps


def attended(tokens: torch.Tensor, padding: int) -> torch.Tensor:
    """Where texts have tokens that count: all but the padding. A text without any counts its first.

    Args:
        tokens: [B, T].
        padding: The token that fills up short texts.

    Returns:
        bool [B, T].
    """
    first = torch.arange(tokens.shape[1], device=tokens.device) == 0
    return (tokens != padding) | first


class TappedTexts(Tapped):
    """A model for texts whose call returns `Outputs` that do not depend on the padding.

    Hidden states [B, T, D] are zero where a text is padded, and all batches have the length of the longest text, so
    that those of student and teacher fit each other.

    Args:
        model: As for `Tapped`.
        taps: As for `Tapped`.
        input_spec: Shape, vocabulary and padding of the texts.
    """

    def __init__(self, model: nn.Module, taps: Taps, input_spec: InputSpec):
        super().__init__(model, taps)
        self._input = input_spec

    def __call__(self, tokens: torch.Tensor) -> Outputs:
        """Run the model on tokens [B, T], where T may be shorter than the longest text."""
        outputs = super().__call__(tokens)
        mask = attended(tokens, self._input.padding)[..., None]
        missing = self._input.shape[0] - tokens.shape[1]
        features = tuple(
            F.pad(states * mask, (0, 0, 0, missing)) if states.shape[:2] == tokens.shape else states
            for states in outputs.features
        )
        return outputs._replace(features=features)
