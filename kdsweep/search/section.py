"""The sections `search`, `scheduler` and `objective` of a sweep file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from kdsweep.search.samplers import SAMPLERS, Sampler
from kdsweep.search.samplers.tpe import TPE
from kdsweep.search.stopping.asha_promotion import ASHAPromotion
from kdsweep.section import Count, PartName, Section, Weight
from kdsweep.storage.section import PlaceText
from kdsweep.tasks import Goal

KEPT_WEIGHTS = 10


def _unlimited(written: object) -> object:
    """Read a missing limit as 0."""
    return 0 if written is None else written


class SearchSection(Section):
    """How configurations are proposed.

    Attributes:
        sampler: See `kdsweep samplers`. It receives the keys that it declares as parameters.
        trials: Number of trials; `grid` stops earlier if it exhausts the space.
        startup_trials: Random trials before TPE starts.
        points: Configurations to try first; missing values are drawn.
        plain_share: Plain trials per width, as a multiple of the trials of the method with the most at that width; 0
            leaves their number to the sampler.
        balance: `width` gives every width equally many non-plain proposals, and shows the sampler each result minus
            the best one of the same width at the same epoch; `none` leaves the widths to the sampler.
        warm_start: Directories of earlier sweeps, whose best configurations are tried first and whose trials the
            sampler learns from.
        max_hours: Limit of the search's wall time over all sessions; 0 or null means unlimited.
        max_epochs: Limit of the trained epochs over all trials, likewise.
        keep_weights: Number of best trials whose weights are kept for export.
    """

    sampler: PartName = "tpe"
    trials: Count = 64
    startup_trials: Annotated[int, Field(ge=0)] = TPE.startup_trials.default
    points: list[dict[str, Any]] = Field(default_factory=list)
    plain_share: Weight = 1.0
    balance: Literal["none", "width"] = "none"
    warm_start: list[PlaceText] = Field(default_factory=list)
    max_hours: Annotated[Weight, BeforeValidator(_unlimited)] = 0.0
    max_epochs: Annotated[int, Field(ge=0), BeforeValidator(_unlimited)] = 0
    keep_weights: Count = KEPT_WEIGHTS


class SchedulerSection(Section):
    """When trials are stopped early.

    Attributes:
        name: The stopping rule, see `kdsweep schedulers`. It receives the keys that it declares as parameters. With
            several objectives, `asha` is the default.
        grace_epochs: The first rung; 0 leaves it to the rule: an eighteenth of the budget for `asha-promotion`, a ninth
            for `asha`.
        reduction_factor: The top 1/reduction_factor of each group continues.
        group_by: Trials are compared only if these settings are equal.
    """

    name: PartName = ASHAPromotion.name
    grace_epochs: Annotated[int, Field(ge=0)] = ASHAPromotion.grace_epochs.default
    reduction_factor: Annotated[int, Field(ge=2)] = ASHAPromotion.reduction_factor.default
    group_by: list[str] = Field(default_factory=lambda: ["width"])


class ObjectiveSection(Section):
    """The objective of the sweep.

    Attributes:
        metric: A metric of the task on the validation split, or the user's own `package.module:name`.
        mode: Whether to maximise or minimise the metric; `auto` uses the direction that the metric declares.
    """

    metric: str = Goal.metric
    mode: Literal["auto", "max", "min"] = "auto"


def _as_section(written: object) -> object:
    return {"metric": written} if isinstance(written, str) else written


def _kind(written: object) -> str:
    return "[several]" if isinstance(written, list) else "[one]"  # brackets, as in pydantic's names of branches


# One objective, or a list of them; a name is short for a section.
Objective = Annotated[
    Annotated[ObjectiveSection, Tag("[one]")]
    | Annotated[list[Annotated[ObjectiveSection, BeforeValidator(_as_section)]], Tag("[several]")],
    Discriminator(_kind),
]


def sampler_of(search: SearchSection) -> Sampler:
    """Create the sampler of a sweep."""
    name, params = search.part(SAMPLERS, search.sampler)
    return SAMPLERS.create(name, **params)
