"""A sequence classifier of transformers that takes tokens alone."""

from __future__ import annotations

import torch
from torch import nn

from kdsweep.models.texts import attended


class SequenceClassifier(nn.Module):
    """Hides the padding from a model of transformers and returns its logits.

    Its parts are those of the model, so that its state dict has the model's own names.

    Args:
        model: Called with `input_ids` and `attention_mask`.
        padding: The token that fills up short texts.
    """

    def __init__(self, model: nn.Module, padding: int):
        super().__init__()
        for name, part in model.named_children():
            self.add_module(name, part)
        self._whole = (model,)  # in a tuple, so that it is not a part
        self.padding = padding

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes] for tokens [B, T]."""
        (model,) = self._whole
        mask = attended(tokens, self.padding)
        logits: torch.Tensor = model(input_ids=tokens, attention_mask=mask.long()).logits
        return logits
