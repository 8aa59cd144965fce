"""The plain students of a search: how many trials they get, and which are protected from early stopping.

The gain over the tuned plain student is only meaningful if plain students are tuned as hard as distilled ones. The
sampler does not see to that: it follows the best accuracies, and plain students are rarely the best.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping

from kdsweep.distributions import Config, Value
from kdsweep.search.space import OF_DISTILLATION, SearchSpace
from kdsweep.seeds import digest_of
from kdsweep.tasks.image.transforms.written import is_parameter

PLAIN = "none"
COMPARED = ("student", "epochs")  # what fixes the size and the training of a student, beside its width
_COUNTED = 10_000


def is_plain(config: Mapping[str, Value]) -> bool:
    """Whether a configuration trains a student without a teacher."""
    return config["method"] == PLAIN


def plain_twin(config: Config) -> Config:
    """Return the same settings without distillation."""
    kept = {
        key: value
        for key, value in config.items()
        if ("." not in key or is_parameter(key)) and key not in OF_DISTILLATION
    }
    return {**kept, "method": PLAIN}


def size_of(space: SearchSpace, config: Mapping[str, Value]) -> Hashable:
    """Return what a configuration is compared at: its width, and its student and budget if they are searched.

    All widths of a real-valued range count as one.
    """
    width = config["width"] if space.width_of(config).finite else "any"
    further = tuple(config.get(name) for name in COMPARED if name in space.shared)
    return (*further, width) if further else width


def same_size(space: SearchSpace, config: Mapping[str, Value]) -> Config:
    """Return the settings that any configuration of the same size has."""
    fixed = {name: config[name] for name in COMPARED if name in config and name in space.shared}
    return fixed | ({"width": config["width"]} if space.width_of(config).finite else {})


def stopping_group(space: SearchSpace, config: Config, group_by: list[str]) -> Hashable:
    """Return the group within which a trial is compared for early stopping.

    In `group_by`, `width` stands for everything that `size_of` compares. Plain trials of each size are a group of their
    own: distilled trials would stop them all. Widths of a real-valued range are one group; the stopping rule accounts
    for their effect.
    """
    group = tuple(size_of(space, config) if name == "width" else config.get(name) for name in group_by)
    return (PLAIN, size_of(space, config), *group) if is_plain(config) else group


class PlainShare:
    """Counts proposals, and tells when a width needs another plain trial.

    At each width plain trials are to be at least `share` times as many as those of the best-served method, unless
    every plain configuration of that width has been tried.

    Args:
        space: The search space.
        share: The ratio; 0 turns this off, as does a space without plain or without distilled students.
    """

    def __init__(self, space: SearchSpace, share: float):
        self._space = space
        self._share = share if PLAIN in space.methods() and len(space.methods()) > 1 else 0.0
        self._proposed: dict[Hashable, Counter[str]] = {}
        self._plain: dict[Hashable, set[str]] = {}
        self._examples: dict[Hashable, Config] = {}
        self._available = _plain_configurations(space) if self._share else {}

    @property
    def active(self) -> bool:
        """Whether plain trials are counted at all."""
        return self._share > 0

    @property
    def sizes(self) -> int:
        """Number of widths at which plain trials are counted."""
        widths = self._space.widths().values()
        budgets = self._space.shared["epochs"].size if "epochs" in self._space.shared else 1
        return int(budgets * sum(width.size if width.finite else 1 for width in widths))

    def note(self, config: Config) -> None:
        """Count a proposed configuration."""
        size = size_of(self._space, config)
        self._proposed.setdefault(size, Counter())[str(config["method"])] += 1
        self._examples.setdefault(size, self._wanted(config))
        if is_plain(config):
            self._plain.setdefault(size, set()).add(digest_of(config))

    def owed(self) -> Config:
        """Return the fixed settings of a plain trial at the width that lacks most; empty if none lacks any."""
        missing = {size: self._missing(size, Counter()) for size in self._proposed}
        size = max(missing, key=lambda size: missing[size], default=None)
        return self._examples[size] if size is not None and missing[size] > 0 else {}

    def before(self, config: Config) -> Config:
        """Return the fixed settings of a plain trial that must precede `config`; empty if `config` can be tried."""
        if is_plain(config):
            return {}
        size = size_of(self._space, config)
        return self._wanted(config) if self._missing(size, Counter({str(config["method"]): 1})) > 0 else {}

    def _missing(self, size: Hashable, more: Counter[str]) -> int:
        """Return the number of plain trials missing at a width if `more` were proposed there."""
        proposed = self._proposed.get(size, Counter()) + more
        best_served = max((count for method, count in proposed.items() if method != PLAIN), default=0)
        left = self._available.get(size, math.inf) - len(self._plain.get(size, ()))
        return int(min(math.ceil(self._share * best_served - 1e-9) - proposed[PLAIN], left))

    def _wanted(self, config: Config) -> Config:
        return {"method": PLAIN} | same_size(self._space, config)


def _plain_configurations(space: SearchSpace) -> Mapping[Hashable, int]:
    """Count the plain configurations of each width; empty if there are infinitely or very many."""
    if not math.prod(values.size for values in space.parameters(PLAIN).values()) <= _COUNTED or not space.finite_widths:
        return {}
    return Counter(size_of(space, config) for config in space.combinations(PLAIN))


class PlainLeaders:
    """Protects the best plain trial of each width from early stopping, so that at least one is trained to the end.

    The best plain trial can only be stopped after another one has overtaken it. So unless it fails, the best of all
    reaches the last epoch, whatever the stopping rule. A trial that is only as good does not overtake it.
    """

    def __init__(self, space: SearchSpace):
        self._space = space
        self._scores: dict[Hashable, dict[str, float]] = {}
        self._leaders: dict[Hashable, str] = {}
        self._ignored: set[str] = set()

    def note(self, key: str, config: Config, score: float) -> None:
        """Record the best score of a trial so far; higher is better."""
        if not is_plain(config) or key in self._ignored:
            return
        size = size_of(self._space, config)
        scores = self._scores.setdefault(size, {})
        scores[key] = score
        if score > scores.get(self._leaders.get(size, ""), -math.inf):
            self._leaders[size] = key

    def ignore(self, key: str) -> None:
        """Leave out a trial that has failed, however good it was."""
        self._ignored.add(key)
        for size, scores in self._scores.items():
            scores.pop(key, None)
            if self._leaders.get(size) == key:
                self._leaders[size] = max(scores, key=lambda other: scores[other], default="")

    def protects(self, key: str, config: Config) -> bool:
        """Whether the trial must not be stopped now."""
        return is_plain(config) and self._leaders.get(size_of(self._space, config)) == key
