"""Parameter shapes and output shapes of a model, computed without torch.

With a blueprint, a model is checked against a sweep file in milliseconds: parameter count, size, and the shapes of its
state dict, stage maps and embedding. tests/models compares every blueprint with the built model.
"""

from __future__ import annotations

from math import prod

from kdsweep.methods.base import Shape, Shapes

EXAMPLES = 2  # batch size of example inputs
_COUNTER_BYTES, _FLOAT_BYTES = 8, 4


class Blueprint:
    """The layers of a model, added in forward order.

    Args:
        input_shape: (channels, height, width) of one image; (size, length) of one embedded text.

    Attributes:
        shape: Output shape of the layers added so far, for one sample.
        parameters: Shapes of the trainable tensors, by name in the state dict.
        buffers: Shapes of the other tensors in the state dict; () is an 8-byte counter.
        seen: Output shape of each layer, by the layer's path.
        flops: Floating-point operations of the convolutions and linear layers for one image, two for a multiply-add.
    """

    def __init__(self, input_shape: tuple[int, ...]):
        self.shape = tuple(input_shape)
        self.parameters: dict[str, tuple[int, ...]] = {}
        self.buffers: dict[str, tuple[int, ...]] = {}
        self.seen: dict[str, tuple[int, ...]] = {}
        self.flops = 0

    def conv(
        self, path: str, channels: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        """Add a convolution with a square kernel and equal padding on all sides."""
        shape = (channels, self.shape[0], kernel, kernel)
        self._windows(path, channels, kernel, stride, 2 * padding)
        self.weights(path, shape, bias)

    def pool(self, path: str, kernel: int, *, stride: int = 0) -> None:
        """Add pooling over square windows; stride 0 means the kernel size."""
        self._windows(path, self.shape[0], kernel, stride or kernel, 0)

    def pad(self, height: int, width: int) -> None:
        """Add padding: total pixels per axis, both sides together."""
        self.shape = (self.shape[0], self.shape[1] + height, self.shape[2] + width)

    def norm(self, path: str) -> None:
        """Add batch normalisation with running statistics."""
        channels = self.shape[0]
        self.parameters |= {f"{path}.weight": (channels,), f"{path}.bias": (channels,)}
        self.buffers |= {f"{path}.running_mean": (channels,), f"{path}.running_var": (channels,)}
        self.buffers[f"{path}.num_batches_tracked"] = ()
        self.keep(path)

    def embedding(self, path: str, rows: int, size: int) -> None:
        """Add the vectors of `rows` tokens or positions."""
        self.parameters[f"{path}.weight"] = (rows, size)

    def layer_norm(self, path: str, size: int) -> None:
        """Add layer normalisation."""
        self.parameters |= {f"{path}.weight": (size,), f"{path}.bias": (size,)}

    def keep(self, *paths: str) -> None:
        """Add layers that keep the shape: activations, dropout, the end of a stage."""
        self.seen |= dict.fromkeys(paths, self.shape)

    def flatten(self) -> None:
        self.shape = (prod(self.shape),)

    def average(self) -> None:
        """Add global average pooling."""
        self.shape = self.shape[:1]

    def linear(self, path: str, outputs: int) -> None:
        self.weights(path, (outputs, *self.shape))
        self.shape = (outputs,)
        self.keep(path)

    def weights(self, path: str, shape: tuple[int, ...], bias: bool = True) -> None:
        """Add the parameters of a layer whose output has the height and width of `shape`, leaving `shape` as it is."""
        self.flops += 2 * prod(shape) * prod(self.shape[1:])
        self.parameters[f"{path}.weight"] = shape
        if bias:
            self.parameters[f"{path}.bias"] = shape[:1]

    @property
    def state(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors in the state dict, by name."""
        return self.parameters | self.buffers

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(map(prod, self.parameters.values()))

    @property
    def size_mb(self) -> float:
        """Size of parameters and buffers in MiB (bytes / 1024²)."""
        floats = self.count + sum(prod(shape) for shape in self.buffers.values() if shape)
        counters = sum(not shape for shape in self.buffers.values())
        return (_FLOAT_BYTES * floats + _COUNTER_BYTES * counters) / 1024**2

    def shapes(self, stages: tuple[str, ...], head: str) -> Shapes:
        """Shapes of the outputs that a method receives for two images, tapped at these modules."""
        weight, bias = self.parameters[f"{head}.weight"], self.parameters[f"{head}.bias"]
        features = tuple(Shape((EXAMPLES, *self.seen[stage])) for stage in stages)
        logits, embedding = (Shape((EXAMPLES, size)) for size in weight)
        return Shapes(logits, embedding, features, (Shape(weight), Shape(bias)))

    def _windows(self, path: str, channels: int, kernel: int, stride: int, padding: int) -> None:
        height, width = ((size + padding - kernel) // stride + 1 for size in self.shape[1:])
        self.shape = (channels, height, width)
        self.keep(path)
