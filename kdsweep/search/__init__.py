"""The search: its space, samplers, stopping rules and the state of a sweep."""

from __future__ import annotations

import warnings

# In a notebook without ipywidgets, the progress bar of Optuna asks for it when it is imported; kdsweep shows its own.
warnings.filterwarnings("ignore", message="IProgress not found")
