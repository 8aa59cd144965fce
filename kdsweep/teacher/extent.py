"""How much the teacher's outputs of a sweep take, known before anything is computed."""

from __future__ import annotations

import math

from kdsweep import models, tasks
from kdsweep.config.fitting import dataset_info
from kdsweep.config.sizes import training_images
from kdsweep.config.spec import SweepSpec
from kdsweep.methods.base import Shapes
from kdsweep.teacher.kept import KeptLogits
from kdsweep.teacher.outputs import items_of, sweep_needs


def views_line(spec: SweepSpec) -> str:
    """Return how many view sets a sweep can ask for, and the most that the teacher's outputs of them take."""
    sets = spec.view_sets.texts
    if not sets:
        return "a new view set in every trial: no teacher outputs to store"
    views = sum(map(spec.views_in, sets))
    where = f"{len(sets)} view set{'s' * (len(sets) != 1)} ({', '.join(sets[:4])}{', ...' * (len(sets) > 4)})"
    each = sum(_bytes_per_sample(spec.of_teacher(name)) for name in spec.teacher_names)
    if not views or not each:
        return f"{where}: no teacher outputs to store"
    own, further = training_images(spec)
    total = each * views * (own + further if own else 1000)
    amount = f"{total / 1e9:.2g} GB" if total >= 1e8 else f"{total / 1e6:.2g} MB"
    beside = "" if own else f" for 1,000 training {tasks.of(spec.dataset).noun}"
    return (
        f"{where}, {views} view{'s' * (views != 1)} in all: at most {amount} of teacher outputs{beside} "
        f"(teacher.cache_gb: {spec.teacher.cache_gb:g})"
    )


def _bytes_per_sample(spec: SweepSpec) -> int:
    """Bytes of one teacher's outputs of one sample that any trial may need."""
    info, teacher = dataset_info(spec), spec.teacher
    input_spec = tasks.of(spec.dataset).input_of(spec.dataset, info)
    shown = models.describe(teacher.model, input_spec, len(info.class_names), teacher.width, **teacher.options).shown
    kept = KeptLogits.of(teacher.keep_logits)
    return sum(_bytes(item, shown, kept) for item in items_of(sweep_needs(spec), len(shown.features)))


def _bytes(item: str, shown: Shapes, kept: KeptLogits) -> int:
    """As `outputs` stores them: float32, but bfloat16 for stage maps, and attention maps of one channel."""
    if item.startswith("stage"):
        return 2 * math.prod(shown.features[int(item.removeprefix("stage"))].shape[1:])
    if item.startswith("attention"):
        return 4 * math.prod(shown.features[int(item.removeprefix("attention"))].shape[2:])
    if item == "logits":
        return kept.size(shown.logits.shape[1])
    return 4 * math.prod(shown.embedding.shape[1:])
