"""A loaded student for texts: a module with class names and the tokenizer of its training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from kdsweep.errors import InputError
from kdsweep.tasks.text.tokens import Tokens


class TextStudent(nn.Module):
    """Takes tokens [B, T] and returns logits [B, classes].

    Args:
        model: The trained model.
        class_names: Class names in the order of the logits.
        length: Number of tokens that are read of each text.

    Attributes:
        tokenizer: The `tokenizer.json` of the student's folder.
    """

    def __init__(self, model: nn.Module, class_names: Sequence[str], length: int):
        super().__init__()
        self.model = model
        self.class_names = tuple(class_names)
        self.length = length
        self.tokenizer = Path()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes]."""
        logits: torch.Tensor = self.model(tokens)
        return logits

    def encode(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Turn texts into tokens as in training.

        Args:
            texts: One text, or a list of them.

        Returns:
            int64 [B, T].

        Raises:
            InputError: If there are no texts, or the tokenizer is missing or unreadable.
        """
        listed = [texts] if isinstance(texts, str) else list(texts)
        if not listed or not all(isinstance(text, str) for text in listed):
            raise InputError(f"found {texts!r:.60}; accepted: a text or a list of texts")
        return torch.from_numpy(self._tokens.encode(listed)).long()

    def classify(self, texts: str | Sequence[str]) -> list[str]:
        """Return the class of each text."""
        device = next(self.parameters()).device
        with torch.inference_mode():
            found = self(self.encode(texts).to(device)).argmax(dim=1)
        return [self.class_names[place] for place in found.tolist()]

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self.tokenizer, self.length)
