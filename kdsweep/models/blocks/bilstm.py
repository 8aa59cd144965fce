"""A bidirectional LSTM for texts."""

from __future__ import annotations

import torch
from torch import nn

from kdsweep.models.blocks.text_transformer import mean_of
from kdsweep.models.texts import attended


class BiLSTM(nn.Module):
    """Embeds tokens, runs bidirectional layers, and classifies the mean of the hidden states.

    Args:
        vocabulary: Number of tokens.
        padding: The token that fills up short texts; neither direction reads it.
        classes: Number of logits.
        size: Size of the embedded tokens and of each direction's states.
        depth: Number of layers.
        dropout: Dropout rate.
    """

    def __init__(self, vocabulary: int, padding: int, classes: int, size: int, depth: int, dropout: float):
        super().__init__()
        self.padding = padding
        self.tokens = nn.Embedding(vocabulary, size)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(size if place == 0 else 2 * size, size) for place in range(depth))
        self.head = nn.Linear(2 * size, classes)
        nn.init.normal_(self.tokens.weight, std=size**-0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes] for tokens [B, T]."""
        mask = attended(tokens, self.padding)
        states = self.dropout(self.tokens(tokens))
        backwards = _backwards(mask)
        for layer in self.layers:
            states = self.dropout(layer(states, backwards))
        logits: torch.Tensor = self.head(mean_of(states, mask))
        return logits


class _Layer(nn.Module):
    """An LSTM for each direction. The second one reads each text from its last token, not from the padding."""

    def __init__(self, inputs: int, size: int):
        super().__init__()
        self.forwards = nn.LSTM(inputs, size, batch_first=True)
        self.backwards = nn.LSTM(inputs, size, batch_first=True)

    def forward(self, states: torch.Tensor, backwards: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, T, 2 D]; `backwards` [B, T] are the positions in reverse order."""
        ahead, _ = self.forwards(states)
        behind, _ = self.backwards(_at(states, backwards))
        return torch.cat([ahead, _at(behind, backwards)], dim=2)


def _backwards(mask: torch.Tensor) -> torch.Tensor:
    """Positions [B, T] that reverse the part of each text before its padding, and keep the padding in place."""
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    last = (places * mask).amax(dim=1, keepdim=True)
    return torch.where(places <= last, last - places, places)


def _at(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return states.gather(1, places[..., None].expand_as(states))
