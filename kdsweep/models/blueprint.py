"""What a model holds and shows, worked out without torch.

A family that declares a blueprint beside its builder can be checked against a sweep file in milliseconds: parameters,
size, the shapes of its state dict, of its stage maps and of its embedding. tests/models holds every blueprint against
the model that is really built.
"""

from __future__ import annotations

from math import prod

from kdsweep.methods.base import Shape, Shapes

EXAMPLES = 2  # images of an example batch
_COUNTER_BYTES, _FLOAT_BYTES = 8, 4


class Blueprint:
    """The layers of a model, added in the order in which an image passes them.

    Args:
        input_shape: (channels, height, width) of one image.

    Attributes:
        shape: What one image has become after the layers so far.
        parameters: Shapes of the trained tensors, by their names in the state dict.
        buffers: Shapes of the others; () is a counter of 8 bytes.
        seen: The shape after each layer, by the layer's path.
    """

    def __init__(self, input_shape: tuple[int, ...]):
        self.shape = tuple(input_shape)
        self.parameters: dict[str, tuple[int, ...]] = {}
        self.buffers: dict[str, tuple[int, ...]] = {}
        self.seen: dict[str, tuple[int, ...]] = {}

    def conv(
        self, path: str, channels: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        """A square convolution with the same padding on all sides."""
        self.weights(path, (channels, self.shape[0], kernel, kernel), bias)
        self._windows(path, channels, kernel, stride, 2 * padding)

    def pool(self, path: str, kernel: int, *, stride: int = 0) -> None:
        """Pooling over square windows, side by side unless `stride` says otherwise."""
        self._windows(path, self.shape[0], kernel, stride or kernel, 0)

    def pad(self, height: int, width: int) -> None:
        """So many pixels more, both sides together."""
        self.shape = (self.shape[0], self.shape[1] + height, self.shape[2] + width)

    def norm(self, path: str) -> None:
        """Batch normalisation with its running statistics."""
        channels = self.shape[0]
        self.parameters |= {f"{path}.weight": (channels,), f"{path}.bias": (channels,)}
        self.buffers |= {f"{path}.running_mean": (channels,), f"{path}.running_var": (channels,)}
        self.buffers[f"{path}.num_batches_tracked"] = ()
        self.keep(path)

    def keep(self, *paths: str) -> None:
        """Layers that leave the shape as it is: activations, dropout, the end of a stage."""
        self.seen |= dict.fromkeys(paths, self.shape)

    def flatten(self) -> None:
        """One axis."""
        self.shape = (prod(self.shape),)

    def average(self) -> None:
        """The mean over all positions."""
        self.shape = self.shape[:1]

    def linear(self, path: str, outputs: int) -> None:
        """A dense layer."""
        self.weights(path, (outputs, *self.shape))
        self.shape = (outputs,)
        self.keep(path)

    def weights(self, path: str, shape: tuple[int, ...], bias: bool = True) -> None:
        """What a layer holds, where the image does not pass it here."""
        self.parameters[f"{path}.weight"] = shape
        if bias:
            self.parameters[f"{path}.bias"] = shape[:1]

    @property
    def state(self) -> dict[str, tuple[int, ...]]:
        """Shapes in the state dict, by name."""
        return self.parameters | self.buffers

    @property
    def count(self) -> int:
        """How many parameters."""
        return sum(map(prod, self.parameters.values()))

    @property
    def size_mb(self) -> float:
        """Bytes of parameters and buffers / 1024²."""
        floats = self.count + sum(prod(shape) for shape in self.buffers.values() if shape)
        counters = sum(not shape for shape in self.buffers.values())
        return (_FLOAT_BYTES * floats + _COUNTER_BYTES * counters) / 1024**2

    def shapes(self, stages: tuple[str, ...], head: str) -> Shapes:
        """What the model shows a method for two images, tapped at these modules."""
        weight, bias = self.parameters[f"{head}.weight"], self.parameters[f"{head}.bias"]
        features = tuple(Shape((EXAMPLES, *self.seen[stage])) for stage in stages)
        logits, embedding = (Shape((EXAMPLES, size)) for size in weight)
        return Shapes(logits, embedding, features, (Shape(weight), Shape(bias)))

    def _windows(self, path: str, channels: int, kernel: int, stride: int, padding: int) -> None:
        height, width = ((size + padding - kernel) // stride + 1 for size in self.shape[1:])
        self.shape = (channels, height, width)
        self.keep(path)
