"""The search space. A trial draws its method first, then the values that the method uses.

This module uses Optuna but not Ray. A configuration is a flat mapping: `method`, `student` (if searched), `width`,
`lr`, then `alpha`, `temperature` and the method's own parameters (`dkd.beta`) if the method uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from kdsweep import distributions, methods
from kdsweep.distributions import Choice, Config, Constant, Distribution, Uniform, Value
from kdsweep.params import Parts, named
from kdsweep.registry import is_lost
from kdsweep.search.augments import Augments
from kdsweep.search.parsing import SpaceError, parsed
from kdsweep.search.students import Student
from kdsweep.search.students import labels as choice_of
from kdsweep.tasks.losses import LOSSES
from kdsweep.training.optimizers import OPTIMIZERS
from kdsweep.training.schedules import SCHEDULES
from kdsweep.training.section import TrainSpec

if TYPE_CHECKING:
    import optuna

# The kinds of parts that a space may search.
PARTS: dict[str, Parts[Any]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "task_loss": LOSSES}
# Conditional settings, and what decides whether they have an effect: the kind of part, then other settings.
DECIDED_BY = {
    "weight_decay": ("optimizer",),
    "momentum": ("optimizer",),
    "dampening": ("optimizer", "momentum"),
    "nesterov": ("optimizer", "momentum", "dampening"),
    "warmup_epochs": ("schedule",),
    "final_lr_fraction": ("schedule",),
    "label_smoothing": ("task_loss",),
}
OF_ENSEMBLES = frozenset({"teacher_weight", "teacher_mean"})  # settings that apply only with several teachers at once
# Settings that apply only when distilling.
OF_DISTILLATION = (
    frozenset({"alpha", "alpha_schedule", "temperature", "temperature_schedule", "teacher"}) | OF_ENSEMBLES
)
DEFAULT_ALPHA = Uniform(0.05, 0.95)


@dataclass(frozen=True)
class SearchSpace:
    """The distributions that a sweep draws from.

    Attributes:
        method: The methods to try.
        shared: Distributions of the settings in `SHARED`, by name.
        own: Distributions that replace the defaults of a method's parameters, by method and parameter.
        train: The training settings of the sweep, if known.
        students: The students by label; empty if the space does not search them.
    """

    method: Choice | Constant
    shared: Mapping[str, Distribution]
    own: Mapping[str, Mapping[str, Distribution]]
    train: TrainSpec | None = None
    students: Mapping[str, Student] = field(default_factory=dict)
    _parameters: dict[str, Mapping[str, Distribution]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # by method, once asked for

    @classmethod
    def parse(cls, written: Mapping[str, Any]) -> SearchSpace:
        """Parse the `space` section of a sweep file.

        Raises:
            SpaceError: If the space is invalid; contains every fault.
        """
        found = parsed(written)
        first = {"student": choice_of(found.students)} if found.students else {}
        shared = {**first, "width": Constant(1.0), "alpha": DEFAULT_ALPHA} | found.shared
        return cls(found.method, shared, found.own, students=found.students)

    def with_default(self, name: str, value: Value) -> SearchSpace:
        """Return the space with `name` fixed at `value`, unless it is already in the space."""
        return self if name in self.shared else replace(self, shared={**self.shared, name: Constant(value)})

    def beside(self, train: TrainSpec) -> SearchSpace:
        """Return the space with the training settings, which apply to whatever the space leaves out."""
        return replace(self, train=train)

    def with_teachers(self, names: tuple[str, ...]) -> SearchSpace:
        """Return the space that draws each of several teachers, unless it says which."""
        if not names or "teacher" in self.shared:
            return self
        teacher: Distribution = Choice(names) if len(names) > 1 else Constant(names[0])
        return replace(self, shared={**self.shared, "teacher": teacher})

    def parameters(self, method: str) -> Mapping[str, Distribution]:
        """Return the distributions that a trial of `method` may draw, without the method itself, in drawing order.

        A trial draws only those for which `applies` is true given its earlier draws, and from the distribution that
        `drawn_from` returns, because the width may depend on the student.
        """
        if method not in self._parameters:
            self._parameters[method] = self._found_parameters(method)
        return self._parameters[method]

    def _found_parameters(self, method: str) -> dict[str, Distribution]:
        takes: dict[str, Distribution] = {}
        shared_temperature = False
        for term in methods.terms(method):
            own = self.own.get(term, {})
            if is_lost(term):  # its class is not there to declare them
                takes |= {f"{term}.{name}": drawn for name, drawn in own.items()}
            for name, param in methods.get(term).params().items():
                if name in own:
                    takes[f"{term}.{name}"] = own[name]
                elif name == "temperature" and name in self.shared and methods.softens(term):
                    shared_temperature = True
                elif param.search is not None:
                    takes[f"{term}.{name}"] = param.search
        unused = {"temperature"} if not shared_temperature else set()
        if not any(methods.softens(term) for term in methods.terms(method)):
            unused.add("temperature_schedule")
        if method == "none":
            unused |= OF_DISTILLATION
        drawn = self.in_order()
        if "teacher" in drawn:
            needs = frozenset[str]().union(*(methods.get(term).teacher_needs({}) for term in methods.terms(method)))
            if not needs:
                unused |= {"teacher", *OF_ENSEMBLES}
            elif needs - {"logits"}:  # of several teachers, only the logits have a mean
                drawn["teacher"] = single_teachers(drawn["teacher"])
                unused |= OF_ENSEMBLES
        shared = {name: d for name, d in drawn.items() if name not in unused}
        return shared | takes | self._of_transforms()

    def applies(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether a setting has an effect in a configuration, as far as known.

        For example, momentum has no effect with Adam, and Nesterov has none without momentum.

        Args:
            name: The setting.
            config: The values drawn before it.
        """
        if name in self._of_transforms():
            return "augment" not in config or name in self._open_in(str(config["augment"]))
        if name in OF_ENSEMBLES:
            return "+" in str(config.get("teacher", "+"))
        if name not in DECIDED_BY:
            return True
        values = {key: config.get(key, self._alone(key)) for key in DECIDED_BY[name]}
        kind = DECIDED_BY[name][0]
        return values[kind] is None or PARTS[kind].find(values[kind]).uses(name, values)

    def _of_transforms(self) -> dict[str, Distribution]:
        """Return the distributions of the transforms' parameters, by `transform.parameter`."""
        drawn = self.shared.get("augment")
        return drawn.parameters if isinstance(drawn, Augments) else {}

    def _open_in(self, augment: str) -> Mapping[str, Distribution]:
        """Return those of one list of transforms."""
        drawn = self.shared.get("augment")
        return drawn.searched.get(augment, {}) if isinstance(drawn, Augments) else {}

    def drawn_from(self, name: str, config: Mapping[str, Any]) -> tuple[str, Distribution]:
        """Return what Optuna calls a setting, and its distribution, given the method and the values drawn before it.

        Optuna needs one distribution per name, so a student's own width has a name of its own, and so has the choice
        of a teacher for methods that cannot be taught by an ensemble.
        """
        if name == "width" and self.students:
            own = self.students[config["student"]].width
            return ("width", self.shared[name]) if own is None else (f"width[{config['student']}]", own)
        drawn = self.parameters(str(config["method"]))[name]
        return "teacher[single]" if name == "teacher" and drawn != self.shared[name] else name, drawn

    def width_of(self, config: Mapping[str, Any]) -> Distribution:
        """Return the distribution of the width of a configuration's student."""
        student = self.students.get(str(config.get("student", "")))
        return self.shared["width"] if student is None or student.width is None else student.width

    def widths(self) -> dict[str, Distribution]:
        """Return the distribution of the width of each student by label; the label of the only student is empty."""
        return {label: self.width_of({"student": label}) for label in self.students or ("",)}

    @property
    def finite_widths(self) -> bool:
        """Whether every student has finitely many widths."""
        return all(width.finite for width in self.widths().values())

    def part_names(self, kind: str) -> tuple[str, ...]:
        """Return the names of this kind that can be drawn, or the one set in `train`; empty if unknown."""
        if kind in self.shared:
            return tuple(str(value) for value in self.shared[kind].every())
        return (str(self._alone(kind)),) if self.train else ()

    def unused(self, name: str) -> str:
        """If no part that can be drawn uses this setting, list those parts in words; otherwise return ''."""
        kind = DECIDED_BY[name][0]
        names = self.part_names(kind)
        return "" if any(takes(part, name) for part in names) else f"with {kind} {', '.join(names)}" * bool(names)

    def _alone(self, key: str) -> Any:
        """Return the value of a training setting that is not searched; None if it is searched or unknown."""
        if self.train is None or key in self.shared:
            return None
        value = getattr(self.train, key)
        return named(value)[0] if key in PARTS else value

    def in_order(self) -> dict[str, Distribution]:
        """Return the shared distributions in the order written, each moved after the settings that it depends on."""
        ordered: dict[str, Distribution] = {}
        while waiting := [name for name in self.shared if name not in ordered]:
            name = next(name for name in waiting if not self._waits_for(name).intersection(waiting))
            ordered[name] = self.shared[name]
        return ordered

    def _waits_for(self, name: str) -> set[str]:
        if name in OF_ENSEMBLES:
            return {"teacher"}
        if name not in DECIDED_BY:
            return set()
        kind, *others = DECIDED_BY[name]
        always = all(takes(part, name) for part in self.part_names(kind))
        return {*others} if always else {kind, *others}

    def extended(self, config: Config, drawn: Mapping[str, Sequence[Value]]) -> Iterator[Config]:
        """Yield a configuration extended by each combination of further values; the last setting varies fastest."""
        if not drawn:
            yield config
            return
        name, *rest = drawn
        others = {key: drawn[key] for key in rest}
        if not self.applies(name, config):
            yield from self.extended(config, others)
            return
        values = drawn[name]
        if name == "width" and self.students:
            values = self.width_of(config).every()
        for value in values:
            yield from self.extended({**config, name: value}, others)

    def suggest(self, trial: optuna.Trial) -> Config:
        """Draw a configuration with an Optuna trial, starting with the method."""
        method = str(self.method.suggest(trial, "method"))
        drawn: Config = {"method": method}
        for name in self.parameters(method):
            if self.applies(name, drawn):
                called, distribution = self.drawn_from(name, drawn)
                drawn[name] = distribution.suggest(trial, called)
        return drawn

    def methods(self) -> tuple[str, ...]:
        """The methods that can be drawn."""
        return tuple(str(value) for value in self.method.every())

    def keys(self) -> set[str]:
        """Return every key that can appear in a configuration."""
        return {"method"}.union(*(self.parameters(method) for method in self.methods()))

    def holds(self, config: Mapping[str, Value]) -> bool:
        """Whether a complete configuration could have been drawn from this space."""
        if config["method"] not in self.methods():
            return False
        drawn: Config = {"method": config["method"]}
        for name in self.parameters(str(config["method"])):
            if self.applies(name, drawn):
                if name not in config or not self.drawn_from(name, drawn)[1].contains(config[name]):
                    return False
                drawn[name] = config[name]
        return drawn.keys() == config.keys()

    def optuna_params(self, config: Mapping[str, Value]) -> Config:
        """Return the part of a configuration that Optuna draws: everything except constants."""
        known: dict[str, Distribution] = {"method": self.method}
        for method in [str(config["method"])] if "method" in config else self.methods():
            known |= self.parameters(method)
        return {
            called: value
            for key, value in config.items()
            for called, d in self.branches(key, known[key], config).items()
            if not isinstance(d, Constant) and d.contains(value)
        }

    def branches(self, name: str, known: Distribution, config: Mapping[str, Any]) -> dict[str, Distribution]:
        """Return the distributions that a setting may have in a partial configuration, by what Optuna calls it."""
        if name == "teacher":
            chosen = [str(config["method"])] if "method" in config else list(self.methods())
            return dict(self.drawn_from(name, {"method": m}) for m in chosen if name in self.parameters(m))
        if name != "width" or not self.students:
            return {name: known}
        labels = [config["student"]] if config.get("student") in self.students else list(self.students)
        return dict(self.drawn_from(name, {"student": label}) for label in labels)

    def grid(self) -> Iterator[Config]:
        """Yield every configuration of a finite space, in the order written.

        Raises:
            SpaceError: If a distribution cannot be enumerated.
        """
        endless = {
            name: drawn.written()
            for method in self.methods()
            for name, drawn in self.parameters(method).items()
            if not (self.finite_widths if name == "width" else drawn.finite)
        }
        if endless:
            accepted = "accepted: choice, randint, quniform or a constant"
            raise SpaceError([((n,), f"sampler grid cannot enumerate {w}; {accepted}") for n, w in endless.items()])
        for method in self.methods():
            yield from self.combinations(method)

    def combinations(self, method: str) -> Iterator[Config]:
        """Yield every configuration of a method whose distributions are all finite, in the order written."""
        yield from self.extended({"method": method}, {n: d.every() for n, d in self.parameters(method).items()})

    @property
    def widest(self) -> float:
        """The largest width that can be drawn."""
        return max(width for drawn in self.widths().values() for width in extent(drawn))

    @property
    def narrowest(self) -> float:
        """The smallest width that can be drawn."""
        return min(width for drawn in self.widths().values() for width in extent(drawn))

    def largest(self, name: str) -> Value | None:
        """The largest value of a numeric setting that can be drawn; None if it is not in the space."""
        drawn = self.shared.get(name)
        if drawn is None:
            return None
        return max(value for value in drawn.ends() if not isinstance(value, str))

    def limit_width(self, fits: Callable[[str, float], bool]) -> SearchSpace | None:
        """The space without the students that do not fit, where a wider one never fits if a narrower does not.

        Args:
            fits: Whether a student, given by label and width, satisfies the constraints. The label of the only student
                is empty.

        Returns:
            The narrowed space; None if nothing fits.
        """
        kept = {label: narrowed(width, partial(fits, label)) for label, width in self.widths().items()}
        if not self.students:
            width = kept[""]
            return replace(self, shared={**self.shared, "width": width}) if width else None
        students = {
            label: student if kept[label] == self.width_of({"student": label}) else replace(student, width=kept[label])
            for label, student in self.students.items()
            if kept[label] is not None
        }
        shared = {**self.shared, "student": choice_of(students)} if students else {}
        return replace(self, shared=shared, students=students) if students else None

    def written(self) -> dict[str, Any]:
        """Return the space in sweep-file syntax, with the methods' default ranges spelled out."""
        own: dict[str, dict[str, Any]] = {}
        for method in self.methods():
            for name, distribution in self.parameters(method).items():
                term, dot, parameter = name.rpartition(".")
                if dot and name not in self._of_transforms():
                    own.setdefault(term, {})[parameter] = distribution.written()
        for term, narrowed in self.own.items():
            own.setdefault(term, {parameter: d.written() for parameter, d in narrowed.items()})
        shared = {k: d.written() for k, d in self.shared.items()}
        if self.students:
            shared["student"] = {"choice": [student.written() for student in self.students.values()]}
        return {"method": self.method.written()} | shared | own


def takes(part: str, name: str) -> bool:
    """Whether a part, such as an optimizer, uses a conditional setting."""
    return name in PARTS[DECIDED_BY[name][0]].find(part).params()


def single_teachers(teacher: Distribution) -> Distribution:
    """Return a choice of teachers without ensembles; unchanged if there are only ensembles."""
    kept = tuple(name for name in teacher.every() if "+" not in str(name))
    return Choice(kept) if 0 < len(kept) < teacher.size else teacher


def extent(width: Distribution) -> tuple[float, ...]:
    """Return every value of a finite distribution, or the bounds of a real-valued range."""
    return tuple(float(value) for value in (width.every() if width.finite else width.ends()))


def narrowed(width: Distribution, fits: Callable[[float], bool]) -> Distribution | None:
    """Return a distribution of widths without those that do not fit; None if none does."""
    if width.finite:
        kept = tuple(value for value in width.every() if fits(float(value)))
        return width if kept == width.every() else Choice(kept) if kept else None
    assert isinstance(width, distributions.Range)
    low, high = width.low, width.high
    if not fits(low):
        return None
    if not fits(high):
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        width = replace(width, high=low)
    return width
