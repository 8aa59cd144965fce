"""The data and teacher outputs that a worker keeps on its device between trials."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kdsweep import models, tasks
from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.distributions import Config
from kdsweep.errors import CheckpointError, ModelError
from kdsweep.lazy import nn, torch
from kdsweep.methods import Outputs
from kdsweep.registry import import_from
from kdsweep.search.space import OF_ENSEMBLES
from kdsweep.storage.arrays import has_array, map_array, save_array
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Prepared, Samples
from kdsweep.tasks.base import SplitName
from kdsweep.tasks.metrics.totals import Totals
from kdsweep.teacher import build as teachers
from kdsweep.teacher.build import TeacherCard
from kdsweep.teacher.ensemble import Ensemble, mean_logits, need_logits_only, shares_of
from kdsweep.teacher.kept import KeptLogits
from kdsweep.teacher.outputs import (
    OutputStore,
    StoredOutputs,
    StoredTeacher,
    TeacherInLoop,
    load_example,
    save_example,
    trial_needs,
)
from kdsweep.training.batches import batch_size
from kdsweep.training.cohort import Cohort
from kdsweep.training.recipe import Recipe
from kdsweep.training.teaching import NoTeacher, TeacherSource
from kdsweep.training.trainer import Training, resumed
from kdsweep.worker import capacity
from kdsweep.worker.place import WorkerPlace


def provide_teacher(
    spec: SweepSpec,
    sweep: SweepDir,
    data: Prepared,
    device: torch.device,
    on_epoch: Callable[[dict[str, float]], None],
) -> TeacherCard:
    """Run `prepared_teacher` to its end, calling `on_epoch` with the metrics of each training epoch."""
    steps = prepared_teacher(spec, sweep, data, device)
    while True:
        try:
            on_epoch(next(steps))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def prepared_teacher(
    spec: SweepSpec, sweep: SweepDir, data: Prepared, device: torch.device
) -> Generator[dict[str, float], None, TeacherCard]:
    """Put the teachers into the sweep directory. Without augmentation, also put their outputs into the store.

    Args:
        spec: The sweep.
        sweep: The sweep directory.
        data: The prepared data set.
        device: Device of the teacher.

    Yields:
        The metrics of each training epoch, if a teacher is trained now, and the number of its epochs as `of`.

    Returns:
        The teacher's card; of several, that of the best by the objective.

    Raises:
        CheckpointError: If the checkpoint does not fit the model.
        TeacherError: If the teacher is too weak to distil from.
    """
    cards: list[TeacherCard] = []
    for name in spec.teacher_names:
        steps = _prepared(spec.of_teacher(name), sweep.of_teacher(name), data, device)
        while True:
            try:
                yield {**next(steps), "of": spec.of_teacher(name).teacher.train.epochs}
            except StopIteration as end:
                cards.append(end.value)
                break
    return max(cards, key=lambda card: spec.goal.score(card.measured[spec.goal.column])) if len(cards) > 1 else cards[0]


def _prepared(
    spec: SweepSpec, sweep: SweepDir, data: Prepared, device: torch.device
) -> Generator[dict[str, float], None, TeacherCard]:
    card = teachers.stored(spec, data, sweep)
    if card is None:
        card = yield from teachers.make(spec, data, sweep.store, device)
    card = teachers.with_objective(card, spec, data, sweep, device)
    teachers.judge(card, data)
    teachers.adopt(card, sweep)
    bench = Workbench(spec, sweep, data, card, device)
    if data.task.label_free:
        len(bench.val)  # stores what the teacher says, for all workers
    if "none" in spec.view_sets.texts and not (store := bench.outputs_of("none").store).complete(1):
        store.ensure(1, bench.teacher, bench.train)
    return card


@lru_cache(maxsize=1)
def open_workbench(place: WorkerPlace, device: torch.device) -> Workbench:
    """Open the workbench of a sweep whose teacher is ready. Cached: each process opens it once.

    Args:
        place: The sweep's paths.
        device: Device for training.

    Raises:
        SpecError: If the stored sweep file is damaged.
    """
    import_from(str(place.code))
    place.fetch()
    spec = read_spec(place.sweep)
    return Workbench.of(spec, place.sweep, tasks.of(spec.dataset).load(place.data), device)


class Workbench:
    """Creates the training runs of a sweep in one process and shares data and teacher outputs among them.

    Args:
        spec: The sweep.
        sweep: The sweep directory, with the teacher in it.
        data: The prepared data set.
        card: The teacher's card; of several, that of the first.
        device: Device for training.
    """

    def __init__(self, spec: SweepSpec, sweep: SweepDir, data: Prepared, card: TeacherCard, device: torch.device):
        self.spec = spec
        self.data = data
        self.device = device
        self.sweep = sweep
        self._card = card
        self._flops: dict[str, int] = {}
        self._outputs: dict[str, StoredOutputs] = {}
        self._taught: dict[str, Workbench] = {}

    @classmethod
    def of(cls, spec: SweepSpec, sweep: SweepDir, data: Prepared, device: torch.device) -> Workbench:
        """Create the workbench of a sweep whose teachers are ready."""
        first = sweep.of_teacher(spec.teacher_names[0])
        return cls(spec, sweep, data, TeacherCard.read(first.teacher_card), device)

    def taught_by(self, name: str) -> Workbench:
        """Return the workbench of one of several teachers, which shares the splits; an empty name is the only one."""
        if not name:
            return self
        if name not in self._taught:
            sweep = self.sweep.of_teacher(name)
            card = TeacherCard.read(sweep.teacher_card)
            bench = Workbench(self.spec.of_teacher(name), sweep, self.data, card, self.device)
            bench.__dict__["train"] = self.train  # a cached property
            self._taught[name] = bench
        return self._taught[name]

    def teachers_of(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the teachers of a configuration; of one that does not say which, the first."""
        return tuple(str(config.get("teacher", self.spec.teacher_names[0])).split("+"))

    @cached_property
    def precision(self) -> str:
        """The precision that `auto` stands for in this sweep."""
        known = capacity.stored(self.sweep)
        return known.precision if known else "float32"

    @cached_property
    def train(self) -> Samples:
        """The training split."""
        return self.data.split("train", self.device)

    @cached_property
    def val(self) -> Samples:
        """The validation split."""
        return self._judged("val")

    @cached_property
    def test(self) -> Samples:
        """The test split, used only by confirmation."""
        return self._judged("test")

    @cached_property
    def teacher(self) -> TeacherInLoop:
        """The teacher model, run on each batch."""
        tapped = teachers.load(self.spec, self.data, self.sweep.teacher_weights, self.device)
        kept = KeptLogits.of(self.spec.teacher.keep_logits)
        return TeacherInLoop(tapped, self.data.input_spec, self.device, kept)

    @cached_property
    def example(self) -> Outputs:
        """The teacher's outputs for a small batch."""
        path = self.sweep.teacher_example
        try:
            return load_example(path, self.device)
        except CheckpointError:  # missing or damaged
            save_example(self.teacher.example(), path)
        return load_example(path, self.device)

    @property
    def outputs(self) -> StoredOutputs:
        """The stored teacher outputs for the views of `dataset.augment`."""
        return self.outputs_of(self.spec.augment)

    def outputs_of(self, augment: str) -> StoredOutputs:
        """The stored teacher outputs for the views of an augmentation. Only the latest ones stay on the device."""
        if augment not in self._outputs:
            store = OutputStore.of(self.spec, self.data, self._card.digest, self.example, self.sweep.store, augment)
            self._outputs = {augment: StoredOutputs(store, lambda: self.teacher, self.train)}
        return self._outputs[augment]

    def training(self, config: Config, seed: int, state: Path) -> Training:
        """Create the run of a configuration, resumed from its saved state if there is one.

        Args:
            config: The configuration.
            seed: Seed for weights, sample order and dropout.
            state: File of the saved state; may not exist yet.
        """
        recipe = self._recipe(config, seed)
        return resumed(lambda: Training(recipe, self.data, self.train, self.val, self.source(recipe, config)), state)

    def cohort(self, configs: Sequence[Config], seed: int) -> Cohort:
        """Create the runs of several configurations as one computation.

        Args:
            configs: The configurations.
            seed: Seed for weights, sample order and dropout.

        Raises:
            ModelError: If they cannot train as one.
        """
        if len({tuple(config.get(name) for name in ("teacher", *OF_ENSEMBLES)) for config in configs}) > 1:
            raise ModelError("these runs cannot train as one: their teachers differ")
        recipes = [self._recipe(config, seed) for config in configs]
        return Cohort(recipes, self.data, self.train, self.val, self.source(recipes[0], configs[0]))

    def samples(self, count: int) -> torch.Tensor:
        """Model input of `count` validation samples, [count, ...]; repeated if there are fewer."""
        return self.val.batch(torch.arange(count) % len(self.val))

    def flops(self, training: Training) -> int:
        """Floating-point operations of a run's student for one sample; computed once per student and method."""
        recipe = training.recipe
        key = repr((recipe.model, recipe.options, recipe.width, recipe.method))
        if key not in self._flops:
            self._flops[key] = self._count_flops(training)
        return self._flops[key]

    def _recipe(self, config: Config, seed: int) -> Recipe:
        if self.spec.train.precision == "auto":
            config = {"precision": self.precision, **config}
        return trial_recipe(self.spec, config, seed)

    def _count_flops(self, training: Training) -> int:
        recipe, data = training.recipe, self.data
        if training.inference is training.student and recipe.model in models.MODELS:
            return models.flops(recipe.model, data.input_spec, data.num_classes, recipe.width, **recipe.options)
        return models.count_flops(training.inference, data.input_spec.example(1, self.device))

    def source(self, recipe: Recipe, config: Mapping[str, Any] = MappingProxyType({})) -> TeacherSource:
        """Return the source of a run's teacher outputs: none, the stored files or the model, or several of these.

        Args:
            recipe: The run's settings.
            config: Its configuration, which names the teacher if there are several.
        """
        needs = trial_needs(recipe.method, recipe.method_params)
        if not needs:
            return NoTeacher(self.device)
        names = self.teachers_of(config)
        if len(names) == 1:
            return self.taught_by(names[0])._source(needs, recipe.augment)
        need_logits_only(recipe.method, "+".join(names), needs)
        sources = [self.taught_by(name)._source(needs, recipe.augment) for name in names]
        return Ensemble(sources, shares_of(config, len(names)), str(config.get("teacher_mean", "logits")))

    def ensemble_value(self, config: Mapping[str, Any]) -> float:
        """Return the first objective of an ensemble of teachers itself, on the validation split."""
        names, goal = self.teachers_of(config), self.spec.goal
        answers = [self.taught_by(name)._answers("val", self.val) for name in names]
        logits = mean_logits(answers, shares_of(config, len(names)), str(config.get("teacher_mean", "logits")))
        totals = Totals({goal.name: self.data.task.metric(goal.metric)})
        totals.add(logits, self.val.labels)
        return totals.values(len(self.val))[goal.name]

    def agreement(self, model: nn.Module, config: Mapping[str, Any]) -> float:
        """Return the share of test samples that a model classifies as the teachers of a configuration do."""
        names = self.teachers_of(config)
        mean, shares = str(config.get("teacher_mean", "logits")), shares_of(config, len(names))
        teachers = [self.taught_by(name).teacher for name in names]
        model.eval()
        equal = 0
        with torch.inference_mode():
            for batch, _ in self.test.batches(batch_size(model, self.test)):
                theirs = [teacher.outputs(batch).logits for teacher in teachers]
                wanted = mean_logits(theirs, shares, mean) if len(names) > 1 else theirs[0]
                equal += int((model(batch).argmax(dim=1) == wanted.argmax(dim=1)).sum())
        return equal / len(self.test)

    def _judged(self, name: SplitName) -> Samples:
        """Return a split. Of samples without labels, the labels are the teacher's logits, which are computed once."""
        samples = self.data.split(name, self.device)
        if self.data.task.label_free:
            samples.labels = self._answers(name, samples)
        return samples

    def _answers(self, name: SplitName, samples: Samples) -> torch.Tensor:
        """Return the teacher's logits for a split, [N, C]; computed once and kept in the sweep directory."""
        path = self.sweep.teacher_answers(name)
        if not has_array(path):
            size = batch_size(self.teacher.outputs, samples)
            answers = [self.teacher.outputs(batch).logits.float().cpu() for batch, _ in samples.batches(size)]
            save_array(torch.cat(answers).numpy(), path)
        return map_array(path).to(self.device)

    def _source(self, needs: frozenset[str], augment: str) -> TeacherSource:
        outputs = self.outputs_of(augment)
        if outputs.store.holds(needs):
            return StoredTeacher(outputs, needs, self.example)
        return self.teacher
