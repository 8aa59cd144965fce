"""Sweeps over the Python objects of a program: modules and map-style data sets, taken as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kdsweep import tasks
from kdsweep.config.changes import changeable
from kdsweep.config.fitting import widths
from kdsweep.config.load import check_spec, load_spec
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.datasets import DATASETS, DatasetInfo, objects, text_objects
from kdsweep.datasets.objects import IMAGES
from kdsweep.datasets.stored import DESCRIPTION, STORED
from kdsweep.errors import InputError
from kdsweep.lazy import nn
from kdsweep.methods import Method
from kdsweep.methods import get as known_method
from kdsweep.methods.given import Written, give_methods
from kdsweep.models.given import GivenFactory, give_student, give_teacher, unwrapped
from kdsweep.registry import give, given
from kdsweep.results.frames import Results
from kdsweep.storage import weights
from kdsweep.storage.files import read_json
from kdsweep.storage.mirror import COPY
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place
from kdsweep.terminal.live import shown
from kdsweep.terminal.progress import Progress
from kdsweep.tune.arguments import ARGUMENTS, check_types, named_by_arguments, named_space
from kdsweep.tune.cluster import Address, need_answer
from kdsweep.tune.driver import has_begun, resume, run
from kdsweep.tune.packing import packed
from kdsweep.words import kind_of

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    Samples = Dataset[Any] | Sequence[tuple[Any, Any]]

METHODS = ("kd", "dkd", "dist", "none")
SPACE = {"temperature": {"loguniform": [1, 16]}, "lr": {"loguniform": [3e-4, 1e-2]}}
WIDTHS = {"choice": [0.5, 1.0]}


def sweep(
    teacher: nn.Module | Mapping[str, nn.Module],
    student: Callable[..., nn.Module],
    train: Samples,
    val: Samples | None = None,
    test: Samples | None = None,
    *,
    methods: str | type[Method] | Sequence[Written] = METHODS,
    space: Mapping[Any, Any] | None = None,
    unlabelled: Dataset[Any] | Sequence[Any] | None = None,
    tokenizer: str | Path | None = None,
    augment: str | Sequence[str | Mapping[str, Any]] = (),
    epochs: int = 20,
    trials: int = 32,
    confirm: int = 3,
    seed: int = 0,
    storage: str | Path = "runs",
    name: str = "sweep",
    overrides: Mapping[str, Any] | None = None,
    address: str | None = None,
    progress: Progress | bool = True,
) -> Results:
    """Run a sweep over the objects of this program. The same call again continues the sweep, or extends it.

    The data sets are read once and stored below `storage`. The teacher and the student's function are sent to workers
    in memory; the teacher's weights are stored as safetensors, and nothing is pickled to a file.

    Args:
        teacher: The trained teacher, which maps a batch of samples to logits [B, classes]; or {name: teacher}, also
            several of them, from which `space` may choose: `{"teacher": ["a", "b", "a+b"]}`.
        student: Returns a new, untrained student; called with those of `width`, `input_shape` and `num_classes` that
            it takes. A class of modules will do, and so does a lambda.
        train: The training data: pairs of a sample and a class number from 0. Samples are PIL images, uint8 images, or
            tensors of one shape. Images reach the models as float32 in 0..1, other samples as they are. Texts come
            with classes that are numbers or words, also as a pair of lists, and reach the models as tokens.
        val: Validation data; without it, a tenth of `train` is held out.
        test: Test data, on which the best students are confirmed.
        methods: Names of methods, subclasses of `kdsweep.methods.Method`, and tuples of these, which stand for their
            sum; `none` is the plain student. The default leaves out those that read labels beside `unlabelled`.
        space: Further keys of a sweep file's `space`, such as `{"width": {"choice": [0.25, 0.5]}}`; the parameters of a
            class of your own are found by the class or its name.
        unlabelled: Further training images, from which students learn by distillation alone; labels that come with them
            are not read.
        tokenizer: For texts: the `tokenizer.json` with which the teacher was trained.
        augment: Transforms of training images, drawn anew in each epoch, such as `["crop", "flip", "mixup"]`.
        epochs: Full budget of a trial.
        trials: Number of trials.
        confirm: Number of best students to train again on fresh seeds; 0 skips that.
        seed: Seed of the sweep.
        storage: Directory of the sweeps, or a URI of an object store.
        name: Name of the sweep.
        overrides: Other keys of a sweep file by dotted path, such as `{"train.batch_size": 64}`.
        address: Address of a Ray cluster; None starts a local one.
        progress: Whether to show it, or what receives it; as for `run`.

    Raises:
        InputError: If an object cannot be used, or something is wrong with the settings; one line per fault.
        Interrupted: After Ctrl-C or SIGTERM.
        KdsweepError: If the sweep cannot continue.
    """
    check_types(
        {"methods": methods, "space": space, "tokenizer": tokenizer, "augment": augment, "storage": storage,
         "overrides": overrides}
    )  # fmt: skip
    view = shown(progress)
    need_answer(Address.chosen(address))  # before the objects are stored
    usual = METHODS if unlabelled is None else [one for one in METHODS if not known_method(one).reads_labels]
    chosen = usual if methods is METHODS else methods
    listed, own = give_methods([chosen] if isinstance(chosen, str | type) else chosen)
    factory = _factory(student)
    width = {"width": WIDTHS if factory.has_width else 1.0}
    wanted = Wanted(
        values={
            "name": name,
            "seed": seed,
            "space": {"method": listed, **width, **SPACE, **named_space(space or {}, own)},
            "train": {"epochs": epochs},
            "search": {"trials": trials},
            "confirm": {"top": confirm},
            "storage": storage.text if isinstance(storage, Place) else os.fspath(storage),
        },
        augment=augment if isinstance(augment, str) else list(augment) or "none",
        factory=factory,
        teachers=_given_teachers(teacher),
        unlabelled=unlabelled,
        tokenizer=tokenizer,
        overrides=overrides or {},
    )
    given = {"train": train} | {split: data for split, data in (("val", val), ("test", test)) if data is not None}
    sweep, spec = wanted.read(given, view)
    sweep.refresh()
    if not has_begun(sweep):
        return run(spec, address, view)
    with named_by_arguments():
        changes = changeable(read_spec(sweep), spec, ARGUMENTS)
        return resume(sweep.place, address=address, progress=view, overrides=changes)


@dataclass(frozen=True)
class Wanted:
    """What `sweep` was asked for.

    Attributes:
        values: The keys of a sweep file that no object decides.
        augment: The transforms of training images.
        factory: Builds students.
        teachers: The names of the teachers as models, by what they are called.
        unlabelled: Images without labels; None if there are none.
        tokenizer: The teacher's tokenizer, for texts.
        overrides: Further keys by dotted path.
    """

    values: Mapping[str, Any]
    augment: str | Sequence[str | Mapping[str, Any]]
    factory: GivenFactory
    teachers: Mapping[str, str]
    unlabelled: Any
    tokenizer: str | Path | None
    overrides: Mapping[str, Any]

    def read(self, given: Mapping[str, Any], view: Progress) -> tuple[SweepDir, SweepSpec]:
        """Check the settings, then read the data sets, and check how the models fit them.

        Nothing is written to the storage before the settings are checked.

        Args:
            given: The labelled data sets by split.
            view: Receives how many samples were read.

        Returns:
            The sweep's directory, and its spec.

        Raises:
            InputError: One line per fault.
        """
        reader = text_objects if text_objects.are_texts(given["train"]) else objects
        checked = self._checked(given, reader)
        sweep = SweepDir.at(Place.of(checked.storage) / checked.name, COPY)
        store = sweep.store.objects
        with view:

            def tell(done: int, total: int, text: str) -> None:
                view.counted("data", done, total, text)

            further = None if self.unlabelled is None else objects.store_unlabelled(self.unlabelled, store, tell)
            data = reader.store(given, store, tell)
        self._check(data)
        student = self._student(data, checked)
        teachers = {label: _stored(name, sweep) for label, name in self.teachers.items()}
        with named_by_arguments():
            return sweep, load_spec(self._whole(data, teachers, student, further), self.overrides)

    def _checked(self, given: Mapping[str, Any], reader: ModuleType) -> SweepSpec:
        """Check everything that the first samples suffice for."""
        with named_by_arguments(), TemporaryDirectory(prefix="kdsweep-") as folder:
            data = reader.described(given, Path(folder))
            self._check(data)
            one = None if self.unlabelled is None else objects.store_unlabelled(self.unlabelled, Path(folder), most=1)
            unwritten = Path(folder) / "teacher.safetensors"  # stands for the weights, which are not stored yet
            unwritten.touch()
            teachers = {label: _section(name, str(unwritten)) for label, name in self.teachers.items()}
            checked = check_spec(self._whole(data, teachers, give("student", self.factory), one), self.overrides)
            tried = widths(checked.search_space)
            if not self.factory.has_width and set(tried) != {1.0}:
                accepted = "accepted: 1.0, or a student(width=...)"
                raise InputError(f"space.width: found widths, but student takes none; {accepted}")
            if not (self.factory.counts_classes or data.name == STORED["text"]):
                self._student(data, checked)
            packed(checked)
            return checked

    def _student(self, data: objects.StoredObjects, checked: SweepSpec) -> str:
        """Make the student's function known by the layers that it builds. Return its name.

        Args:
            data: The described data set, with its classes if the function takes their number.
            checked: The settings.
        """
        known = read_json(data.root / DESCRIPTION)
        info = DatasetInfo(tuple(known["input_shape"]), tuple(known["class_names"]))
        taken = tasks.get(DATASETS[data.name].task).input_of(checked.dataset, info)
        return give_student(self.factory, taken, len(info.class_names), widths(checked.search_space))

    def _check(self, data: objects.StoredObjects) -> None:
        if data.name == STORED["text"]:
            if self.tokenizer is None:
                raise InputError(
                    "tokenizer: found none, and the samples are texts; accepted: the tokenizer.json with which the "
                    "teacher was trained"
                )
        elif self.tokenizer is not None:
            raise InputError("tokenizer: found one, but the samples are not texts; accepted: none")
        if data.name == STORED["image"]:
            return
        if self.augment != "none":
            raise InputError(
                f"augment: the samples of train are not 8-bit images, which it needs; accepted: none, or {IMAGES}; the "
                "normalisation then belongs into the modules: nn.Sequential(Normalize(...), model)"
            )
        if self.unlabelled is not None:
            raise InputError(f"unlabelled: the samples of train are not 8-bit images; accepted: none, or {IMAGES}")

    def _whole(
        self, data: objects.StoredObjects, teachers: Mapping[str, Any], student: str, further: Path | None = None
    ) -> dict[str, Any]:
        """Return all keys of the sweep file."""
        is_image = data.name == STORED["image"]
        section: dict[str, Any] = {
            "name": data.name,
            "root": data.root,
            "augment": self.augment,
            "normalize": "none" if is_image else "dataset",
            **({"unlabelled": {"root": further}} if further else {}),
            **({"text": {"tokenizer": str(self.tokenizer)}} if self.tokenizer is not None else {}),
        }
        taught = {"teachers": teachers} if len(teachers) > 1 else {"teacher": next(iter(teachers.values()))}
        first = {key: self.values[key] for key in ("name", "seed")}  # faults are told in this order
        return {**first, "dataset": section, **taught, "student": {"model": student}, **self.values}


def _given_teachers(teacher: object) -> dict[str, str]:
    """Make the teachers known as models. Return their names as such, by what they are called."""
    if isinstance(teacher, nn.Module):
        module = unwrapped(teacher)
        return {type(module).__name__: _given_teacher(type(module).__name__, module)}
    modules = list(teacher.values()) if isinstance(teacher, Mapping) else []
    if not isinstance(teacher, Mapping) or not all(isinstance(module, nn.Module) for module in modules) or not modules:
        found = kind_of(next((one for one in modules if not isinstance(one, nn.Module)), teacher))
        inside = " in a dict" if modules else ""
        raise InputError(f"teacher: found {found}{inside}; accepted: a torch.nn.Module, or {{name: module}}")
    return {str(label): _given_teacher(label, unwrapped(module)) for label, module in teacher.items()}


def _given_teacher(label: object, module: nn.Module) -> str:
    if not str(label).isidentifier():
        raise InputError(f"teacher: found the name {label!r}; accepted: letters, digits and '_', such as big_net")
    return give_teacher(module, str(label))


def _stored(name: str, sweep: SweepDir) -> dict[str, str]:
    """Store the weights of a teacher, unless they are stored already. Return its section of a sweep file."""
    path = sweep.store.objects / f"{name.partition(':')[2]}.safetensors"
    if not path.is_file():
        weights.save(given(name).module.state_dict(), path)
    return _section(name, sweep.mirror.uri_of(path) if sweep.mirror else str(path))


def _section(name: str, checkpoint: str) -> dict[str, str]:
    return {"model": name, "checkpoint": checkpoint}


def _factory(student: object) -> GivenFactory:
    if callable(student) and not isinstance(student, nn.Module):
        return GivenFactory(student)
    built = ", which is built already" if isinstance(student, nn.Module) else ""
    found = f"{kind_of(student)}{built}"
    raise InputError(f"student: found {found}; accepted: a function that builds one, such as lambda width: Net(width)")
