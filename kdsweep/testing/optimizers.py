"""Contract tests that every optimizer must pass."""

from __future__ import annotations

from collections.abc import Sequence

from kdsweep.lazy import nn, torch
from kdsweep.training.optimizers import Optimizer


class OptimizerContract:
    """Subclass this and implement `make`, with a learning rate suited to minimising a parabola."""

    def make(self, weights: Sequence[nn.Parameter]) -> Optimizer:
        """Create a new optimizer."""
        raise NotImplementedError

    def test_it_goes_down(self) -> None:
        """The loss, a parabola, must at least halve within 200 steps."""
        weights = _weights()
        before = _loss(weights).item()
        _train(self.make(weights), weights, 200)
        assert _loss(weights).item() < before / 2

    def test_it_goes_on_from_its_state_bit_for_bit(self) -> None:
        """`state_dict` must contain the complete state."""
        whole, parts = _weights(), _weights()
        _train(self.make(whole), whole, 20)
        first = self.make(parts)
        _train(first, parts, 9)
        state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
        second = self.make(parts)
        second.load_state_dict(state)
        _train(second, parts, 11)
        assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))

    def test_it_leaves_weights_without_a_gradient_alone(self) -> None:
        """Parts of a student that a method does not use have no gradient."""
        weights = _weights()
        unused = nn.Parameter(torch.ones(3))
        _train(self.make([*weights, unused]), weights, 3)
        assert torch.equal(unused, torch.ones(3))

    def test_a_rate_of_zero_stands_still(self) -> None:
        """A schedule may end at a learning rate of zero."""
        weights = _weights()
        before = [weight.detach().clone() for weight in weights]
        optimizer = self.make(weights)
        optimizer.rate = 0.0
        _train(optimizer, weights, 1)
        assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


def _weights() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(1 + torch.rand(shape, generator=draw)) for shape in ((4, 3), (5,))]


def _loss(weights: Sequence[nn.Parameter]) -> torch.Tensor:
    return torch.stack([(weight**2).sum() for weight in weights]).sum()


def _train(optimizer: Optimizer, weights: Sequence[nn.Parameter], steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        _loss(weights).backward()
        optimizer.step()
