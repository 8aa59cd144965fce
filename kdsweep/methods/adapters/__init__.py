"""Adapter modules of methods. They import torch, so methods import them only when they are built."""
