"""A transformer encoder for texts."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from kdsweep.models.texts import attended


class TextTransformer(nn.Module):
    """Embeds tokens and positions, runs pre-norm layers, and classifies the mean of the hidden states.

    Args:
        length: Number of positions.
        vocabulary: Number of tokens.
        padding: The token that fills up short texts; it is neither attended nor averaged.
        classes: Number of logits.
        size: Size of the hidden states.
        heads: Number of attention heads.
        depth: Number of layers.
        dropout: Dropout rate.
    """

    def __init__(
        self,
        length: int,
        vocabulary: int,
        padding: int,
        classes: int,
        size: int,
        heads: int,
        depth: int,
        dropout: float,
    ):
        super().__init__()
        self.padding = padding
        self.tokens = nn.Embedding(vocabulary, size)
        self.positions = nn.Embedding(length, size)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(size, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, classes)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=size**-0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes] for tokens [B, T]."""
        mask = attended(tokens, self.padding)
        states = self.dropout(self.tokens(tokens) + self.positions.weight[: tokens.shape[1]])
        for layer in self.layers:
            states = layer(states, mask)
        logits: torch.Tensor = self.head(mean_of(self.norm(states), mask))
        return logits


class _Layer(nn.Module):
    """Self-attention and a feed-forward network of four times the size, each after a layer normalisation."""

    def __init__(self, size: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(size)
        self.attention = nn.Linear(size, 3 * size)
        self.joined = nn.Linear(size, size)
        self.between = nn.LayerNorm(size)
        self.feed = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, T, D]; `mask` [B, T] tells which positions are attended."""
        batch, length, size = states.shape
        parts = self.attention(self.before(states)).view(batch, length, 3, self.heads, size // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        states = states + self.dropout(self.joined(mixed.transpose(1, 2).reshape(batch, length, size)))
        fed: torch.Tensor = states + self.dropout(self.feed(self.between(states)))
        return fed


def mean_of(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean [B, D] of hidden states [B, T, D] where `mask` [B, T] is true."""
    counted = mask[..., None].to(states.dtype)
    return (states * counted).sum(dim=1) / counted.sum(dim=1)
