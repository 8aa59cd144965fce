"""Repeats a training step from static buffers: on a GPU as a CUDA graph, which costs the host one launch.

The positions of a step's samples are copied into one buffer, from which the step makes everything else on the device.
What changes from step to step beside that (the learning rate, scheduled factors) is in tensors that the host fills
before the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache

from kdsweep.errors import ModelError
from kdsweep.lazy import torch
from kdsweep.training.grouping import cohort_key
from kdsweep.training.recipe import Recipe
from kdsweep.training.steps import Moment

Update = Callable[[Moment], None]


def captures(recipe: Recipe, resident: bool) -> bool:
    """Return whether the steps of a run are captured.

    The method, the optimizer and the loss on the labels must keep all state on the device, as those do that train in
    cohorts.

    Args:
        recipe: The settings of the run.
        resident: Whether the training samples are on the device.
    """
    return recipe.capture and resident and cohort_key(recipe) is not None


class Replays:
    """The steps of one epoch. On a CPU, they run as they would be captured.

    The first step runs plainly, because it loads libraries and creates state, and so do batches of another size. The
    next one is captured, anew in every epoch, whose views and teacher outputs are other tensors.

    Args:
        device: The device.

    Attributes:
        count: Number of steps that were replayed.
    """

    def __init__(self, device: torch.device):
        self.count = 0
        self._device = device
        self._index: torch.Tensor | None = None
        self._replay: Callable[[], None] | None = None

    def run(self, moment: Moment, update: Update) -> None:
        """Run a step.

        Args:
            moment: The step.
            update: Does the step for a moment, on the device alone.

        Raises:
            ModelError: If the step waits for the GPU, or does something else that cannot be captured.
        """
        if self._index is None:
            self._index = moment.index.clone()
            with _aside(self._device):
                update(moment)
        elif len(self._index) != len(moment.index):
            update(moment)
        else:
            self._index.copy_(moment.index)
            if self._replay is None:
                static = replace(moment, index=self._index)
                self._replay = self._captured(lambda: update(static))
            self._replay()
            self.count += 1

    def _captured(self, step: Callable[[], None]) -> Callable[[], None]:
        if self._device.type != "cuda":
            return step
        graph = torch.cuda.CUDAGraph()
        with _aside(self._device):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                step()
            except Exception as error:
                with suppress(RuntimeError):  # the same error again
                    graph.capture_end()
                if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
                    raise
                what = str(error).splitlines()[0]
                raise ModelError(f"train.capture: this step cannot be captured ({what}); set it to false") from error
            graph.capture_end()
        return graph.replay


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Run on the stream of captures, between what is before and after on the current stream."""
    if device.type != "cuda":
        yield
        return
    stream, current = _stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


@lru_cache(maxsize=1)
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of all captures: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream(device)
