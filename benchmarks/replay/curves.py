"""Learning curves of arbitrary configurations, interpolated between the recorded ones.

A Gaussian process with fixed length scales is fitted to the recorded curves of a table, all epochs with one kernel, on
the logarithm of the distance to a ceiling: accuracies fall off a cliff where the learning rate is too high, and without
the logarithm the process overshoots beside it. Its mean at a configuration is the smooth curve.

The curve that a search sees is the smooth curve plus the residuals of a recorded one: those of the configuration itself
if it was recorded, otherwise those of one of the nearest recorded configurations of the same method and width, chosen
by a hash of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from record import DATA, SPACE

from kdsweep.distributions import Config, LogUniform, Range
from kdsweep.search.space import SearchSpace
from kdsweep.seeds import derived_seed, digest_of

Array = np.ndarray
TABLES = ("mnist_mini", "cifar10")
PLAIN = "none"
NEIGHBOURS = 5
# Accuracies are multiples of one over the number of validation samples, which is 2,000 in both tables.
STEP = 1 / 2000
# The settings that become coordinates: the learning rate, the temperature, alpha, and the method's own parameter.
SHARED = ("lr", "temperature", "alpha")


@dataclass(frozen=True)
class Kernel:
    """The covariance of two configurations: a Matérn 3/2 kernel, times factors for different methods and widths.

    Attributes:
        lengths: Length scales of lr, temperature, alpha and the own parameter, in units of their ranges.
        method: The factor for two different methods.
        width: Length scale of the width, in octaves.
        noise: Variance of the noise, relative to the variance of the smooth part.
        ceiling: An accuracy that no configuration reaches.
    """

    lengths: tuple[float, float, float, float]
    method: float
    width: float
    noise: float
    ceiling: float


# Set by hand after about 20 random draws per table, for a low leave-one-out error and a best true accuracy close to the
# best recorded one; not optimised further. `search.py --fit` shows both.
KERNELS = {
    "mnist_mini": Kernel((0.3, 1.4, 2.5, 2.0), 0.5, 1.6, 0.02, 1.05),
    "cifar10": Kernel((0.14, 2.3, 1.2, 0.7), 0.12, 1.0, 0.03, 0.58),
}


class Curve(NamedTuple):
    """What a search can learn about a configuration.

    Attributes:
        true: Best accuracy of the smooth curve: what the configuration is worth.
        values: [E] accuracies that the search sees.
        seconds: Duration of an epoch.
    """

    true: float
    values: Array
    seconds: float


class Curves(Protocol):
    """A source of learning curves for one replay."""

    def of(self, config: Config) -> Curve:
        """Return the curve of a configuration."""

    def best(self, width: float, plain: bool) -> float:
        """Return the best true accuracy at a width, of any method or of plain students only."""


class Surrogate:
    """Interpolates the curves of a table; deterministic.

    Args:
        table: One row per configuration and epoch, as written by `record.py`.
        kernel: The covariance.

    Attributes:
        configs: The recorded configurations.
        recorded: [N, E] their accuracies.
        space: The search space of the recording.
        epochs: Number of epochs of each curve (E).
        widths: The widths, ascending.
    """

    def __init__(self, table: pd.DataFrame, kernel: Kernel):
        self.space = SearchSpace.parse(SPACE)
        table = table.sort_values(["number", "epoch"])
        self.epochs = int(table["epoch"].max())
        self.recorded = table["val_accuracy"].to_numpy().reshape(-1, self.epochs)
        rows = table[table["epoch"] == 1].drop(columns=["number", "epoch", "seconds", "val_accuracy", "val_loss"])
        self.configs: list[Config] = [row.dropna().to_dict() for _, row in rows.iterrows()]
        self.widths = sorted({float(config["width"]) for config in self.configs})
        self._seconds = table.groupby(["method", "width"])["seconds"].mean().to_dict()
        self._kernel = kernel
        self._methods = np.array([config["method"] for config in self.configs])
        self._widths = np.array([config["width"] for config in self.configs])
        self._places = np.array([self._place(config) for config in self.configs])
        self._index = {digest_of(config): index for index, config in enumerate(self.configs)}
        self._alike = {
            (method, width): np.where(self._methods == method, 1.0, kernel.method)
            * np.exp(-0.5 * (np.log2(self._widths / width) / kernel.width) ** 2)
            for method in self.space.methods()
            for width in self.widths
        }
        covariance = np.stack(
            [self._covariance(p, m, w) for p, m, w in zip(self._places, self._methods, self._widths, strict=True)]
        )
        inverse = np.linalg.inv(covariance + kernel.noise * np.eye(len(covariance)))
        total = inverse.sum(0)
        self._precision = np.diag(inverse) - total**2 / total.sum()
        targets = -np.log(np.maximum(kernel.ceiling - self.recorded, STEP))
        self._targets = targets
        self._mean = total @ targets / total.sum()
        self._weights = inverse @ (targets - self._mean)
        self._residuals = self.recorded - self._accuracy(self._mean + covariance @ self._weights)

    @classmethod
    def load(cls, name: str, folder: Path = DATA) -> Surrogate:
        """Fit a recorded table."""
        return cls(pd.read_parquet(folder / f"{name}.parquet"), KERNELS[name])

    def of(self, config: Config) -> Curve:
        """Return the curve of any configuration of the space."""
        cell = (config["method"], config["width"])
        place = self._place(config)
        smooth = self._smooth(place, *cell)
        values = np.clip(smooth + self._residuals[self._lender(config, place)], 0, 1)
        return Curve(float(smooth.max()), np.round(values / STEP) * STEP, float(self._seconds[cell]))

    def best(self, width: float, plain: bool) -> float:
        """Return the best true accuracy at a width, of any method or of plain students only."""
        return max(
            value for (method, at), value in self._best.items() if at == width and (method == PLAIN or not plain)
        )

    def errors(self) -> Array:
        """[N, E] leave-one-out errors: the prediction without a configuration minus its recorded accuracies.

        Source: Dubrule 1983, "Cross validation of kriging in a unique neighborhood", Mathematical Geology 15.
        """
        predicted = self._targets - self._weights / self._precision[:, None]
        return self._accuracy(predicted) - self.recorded

    def residuals(self) -> Array:
        """[N, E] recorded minus smooth accuracies: the noise that a search sees."""
        return self._residuals

    def nearest(self, config: Config) -> Array:
        """Return the indices of the recorded configurations of the same method and width, nearest first."""
        return self._neighbours(self._place(config), config["method"], config["width"])

    @cached_property
    def _best(self) -> Mapping[tuple[str, float], float]:
        """The best true accuracy of each method and width: random configurations, refined around the best."""
        rng = np.random.default_rng(0)
        return {cell: self._highest(rng, *cell) for cell in self._alike}

    def _highest(self, rng: np.random.Generator, method: str, width: float) -> float:
        places = rng.uniform(size=(1000, 4))
        values = self._smooth(places, method, width).max(-1)
        for step in (0.1, 0.03, 0.01):
            leaders = places[np.argsort(values)[-5:]]
            near = np.repeat(leaders, 60, axis=0)
            near = np.clip(near + step * rng.standard_normal(near.shape), 0, 1)
            places = np.concatenate([leaders, near])
            values = self._smooth(places, method, width).max(-1)
        return float(values.max())

    def _smooth(self, places: Array, method: str, width: float) -> Array:
        """Return the smooth curves [..., E] at coordinates [..., 4]."""
        return self._accuracy(self._mean + self._covariance(places, method, width) @ self._weights)

    def _accuracy(self, target: Array) -> Array:
        return np.clip(self._kernel.ceiling - np.exp(-target), 0, 1)

    def _covariance(self, places: Array, method: str, width: float) -> Array:
        offsets = (places[..., None, :] - self._places) / self._kernel.lengths
        distances = np.sqrt(3 * (offsets**2).sum(-1))
        return self._alike[method, width] * (1 + distances) * np.exp(-distances)

    def _place(self, config: Config) -> Array:
        """Return the coordinates of a configuration, 0 to 1 within the ranges; 0.5 where it has no such setting."""
        known = self.space.parameters(str(config["method"]))
        own = [name for name in known if "." in name]
        return np.array([_fraction(known.get(name), config.get(name)) for name in [*SHARED, *(own or [""])]])

    def _neighbours(self, place: Array, method: Any, width: Any) -> Array:
        (cell,) = np.nonzero((self._methods == method) & (self._widths == width))
        distances = (((self._places[cell] - place) / self._kernel.lengths) ** 2).sum(-1)
        return cell[np.argsort(distances, kind="stable")]

    def _lender(self, config: Config, place: Array) -> int:
        """Return the index of the recorded configuration whose residuals this one gets."""
        digest = digest_of(config)
        if digest in self._index:
            return self._index[digest]
        near = self._neighbours(place, config["method"], config["width"])[:NEIGHBOURS]
        return int(near[derived_seed(0, digest) % len(near)])


class Listed:
    """Offers the recorded configurations only: each request gets the nearest one that has not been requested before.

    Once all of a method and width are used, the nearest one is repeated. True accuracies are still those of the smooth
    curves.
    """

    def __init__(self, surrogate: Surrogate):
        self._surrogate = surrogate
        self._used: set[int] = set()

    def of(self, config: Config) -> Curve:
        """Return the curve of the nearest unused recorded configuration."""
        near = self._surrogate.nearest(config)
        index = int(next((index for index in near if index not in self._used), near[0]))
        self._used.add(index)
        return self._surrogate.of(self._surrogate.configs[index])

    def best(self, width: float, plain: bool) -> float:
        """Return the best true accuracy of a recorded configuration at a width."""
        return max(
            self._surrogate.of(config).true
            for config in self._surrogate.configs
            if config["width"] == width and (config["method"] == PLAIN or not plain)
        )


def _fraction(distribution: Any, value: Any) -> float:
    """Return where a value lies in its range, 0 to 1, on the range's scale."""
    if value is None:
        return 0.5
    assert isinstance(distribution, Range)
    ends = np.array([distribution.low, distribution.high, value], dtype=float)
    low, high, at = np.log(ends) if isinstance(distribution, LogUniform) else ends
    return float((at - low) / (high - low))
