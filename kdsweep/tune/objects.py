"""Sweeps over the Python objects of a program: modules and map-style data sets, taken as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdsweep import tasks
from kdsweep.config.changes import changeable
from kdsweep.config.fitting import widths
from kdsweep.config.load import check_spec, load_spec
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.datasets import DATASETS, DatasetInfo, objects, text_objects
from kdsweep.datasets.stored import DESCRIPTION, STORED
from kdsweep.errors import InputError, SpecError
from kdsweep.lazy import nn
from kdsweep.methods import Method
from kdsweep.methods import get as known_method
from kdsweep.methods.given import Written, give_methods
from kdsweep.models.given import GivenFactory, give_student, give_teacher, unwrapped
from kdsweep.registry import give
from kdsweep.results.frames import Results
from kdsweep.search.parsing import SpaceError
from kdsweep.search.space import SearchSpace
from kdsweep.storage import weights
from kdsweep.storage.files import read_json
from kdsweep.storage.mirror import COPY
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place
from kdsweep.terminal.live import shown
from kdsweep.terminal.progress import Progress
from kdsweep.tune.cluster import Address, need_answer
from kdsweep.tune.driver import has_begun, resume, run
from kdsweep.tune.packing import packed

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    Samples = Dataset[Any] | Sequence[tuple[Any, Any]]

METHODS = ("kd", "dkd", "dist", "none")
SPACE = {"temperature": {"loguniform": [1, 16]}, "lr": {"loguniform": [3e-4, 1e-2]}}
WIDTHS = {"choice": [0.5, 1.0]}
# The argument behind each key that a fault can be about.
ARGUMENTS = {
    "teacher.model": "teacher", "teacher.checkpoint": "teacher", "student.model": "student", "dataset.name": "train",
    "dataset.root": "train", "dataset.unlabelled": "unlabelled", "dataset.unlabelled.root": "unlabelled",
    "dataset.augment": "augment", "dataset.text.tokenizer": "tokenizer", "space.method": "methods",
    "train.epochs": "epochs", "search.trials": "trials",
}  # fmt: skip


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
    need_answer(Address.chosen(address))  # before the objects are stored
    view, root = shown(progress), Place.of(storage)
    sweep = SweepDir.at(root / name, COPY)
    usual = METHODS if unlabelled is None else [one for one in METHODS if not known_method(one).reads_labels]
    chosen = usual if methods is METHODS else methods
    listed, own = give_methods([chosen] if isinstance(chosen, str | type) else chosen)
    factory = _factory(student)
    width = {"width": WIDTHS if factory.has_width else 1.0}
    named = {own.get(key, key): value for key, value in (space or {}).items()}
    wanted = Wanted(
        values={
            "name": name,
            "seed": seed,
            "space": {"method": listed, **width, **SPACE, **named},
            "train": {"epochs": epochs},
            "search": {"trials": trials},
            "confirm": {"top": confirm},
            "storage": root.text,
        },
        augment=augment if isinstance(augment, str) else list(augment) or "none",
        factory=factory,
        teacher=teacher,
        unlabelled=unlabelled,
        tokenizer=tokenizer,
        overrides=overrides or {},
    )
    given = {split: data for split, data in (("train", train), ("val", val), ("test", test)) if data is not None}
    spec = wanted.read(given, sweep, view)
    sweep.refresh()
    if not has_begun(sweep):
        return run(spec, address, view)
    return resume(sweep.place, address=address, progress=view, overrides=changeable(read_spec(sweep), spec))


@dataclass(frozen=True)
class Wanted:
    """What `sweep` was asked for.

    Attributes:
        values: The keys of a sweep file that no object decides.
        augment: The transforms of training images.
        factory: Builds students.
        teacher: The teacher, or several by name.
        unlabelled: Images without labels; None if there are none.
        tokenizer: The teacher's tokenizer, for texts.
        overrides: Further keys by dotted path.
    """

    values: Mapping[str, Any]
    augment: str | Sequence[str | Mapping[str, Any]]
    factory: GivenFactory
    teacher: nn.Module | Mapping[str, nn.Module]
    unlabelled: Any
    tokenizer: str | Path | None
    overrides: Mapping[str, Any]

    def read(self, given: Mapping[str, Any], sweep: SweepDir, view: Progress) -> SweepSpec:
        """Check the settings, then read the data sets, and check how the models fit them.

        Args:
            given: The labelled data sets by split.
            sweep: The sweep's directory.
            view: Receives how many samples were read.

        Raises:
            InputError: One line per fault.
        """
        store = sweep.store.objects
        reader = text_objects if text_objects.are_texts(given["train"]) else objects
        with named_by_arguments(), TemporaryDirectory(prefix="kdsweep-") as folder:
            data = reader.described(given, Path(folder))
            self._check(data)
            teachers = _given_teachers(self.teacher, sweep)
            student = self._student(data, None)
            one = None if self.unlabelled is None else objects.store_unlabelled(self.unlabelled, Path(folder), most=1)
            checked = check_spec(self._whole(data, teachers, student, one), self.overrides)
            packed(checked)
        with view:

            def tell(done: int, total: int, text: str) -> None:
                view.counted("data", done, total, text)

            further = None if self.unlabelled is None else objects.store_unlabelled(self.unlabelled, store, tell)
            data = reader.store(given, store, tell)
        self._check(data)
        student = self._student(data, checked)
        with named_by_arguments():
            return load_spec(self._whole(data, teachers, student, further), self.overrides)

    def _student(self, data: objects.StoredObjects, checked: SweepSpec | None) -> str:
        """Make the student's function known. Return its name.

        Args:
            data: The described data set.
            checked: The settings; None if they are not checked yet, and the classes not known.
        """
        try:
            tried = widths(SearchSpace.parse(self.values["space"]))
        except SpaceError:
            tried = (1.0,)  # what is wrong with the space is reported with the other faults
        if not self.factory.has_width and set(tried) != {1.0}:
            accepted = "accepted: 1.0, or a student(width=...)"
            raise InputError(f"space.width: found widths, but student takes none; {accepted}")
        if checked is None and (self.factory.counts_classes or data.name == STORED["text"]):
            return give("student", self.factory)  # by its own name once its layers are known
        known = read_json(data.root / DESCRIPTION)
        info = DatasetInfo(tuple(known["input_shape"]), tuple(known["class_names"]))
        task = tasks.get(DATASETS[data.name].task)
        taken = task.input_of(checked.dataset, info) if checked else task.input_spec(info.input_shape)
        return give_student(self.factory, taken, len(info.class_names), tried)

    def _check(self, data: objects.StoredObjects) -> None:
        if data.name == STORED["text"]:
            if self.tokenizer is None:
                raise InputError(
                    "tokenizer: found none, and the samples are texts; accepted: the tokenizer.json with which the "
                    "teacher was trained"
                )
        elif self.tokenizer is not None:
            raise InputError("tokenizer: found, but the samples are no texts; accepted: nothing")
        if data.name == STORED["image"]:
            return
        if self.augment != "none":
            raise InputError(
                "augment: samples are no images of 8 bits; accepted: nothing, or images without normalisation, which "
                "then belongs into the modules: nn.Sequential(Normalize(...), model)"
            )
        if self.unlabelled is not None:
            raise InputError("unlabelled: samples are no images of 8 bits; accepted: no unlabelled images with them")

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


@contextmanager
def named_by_arguments() -> Iterator[None]:
    """Let faults of a sweep file name the arguments of `sweep`."""
    try:
        yield
    except SpecError as error:
        raise error.renamed(ARGUMENTS) from error


def _given_teachers(teacher: nn.Module | Mapping[str, nn.Module], sweep: SweepDir) -> dict[str, dict[str, str]]:
    """Make the teachers known as models and store their weights. Return their sections of a sweep file by name."""
    if isinstance(teacher, nn.Module):
        module = unwrapped(teacher)
        label = type(module).__name__
        return {label: _given_teacher(label, module, sweep)}
    modules = list(teacher.values()) if isinstance(teacher, Mapping) else []
    if not modules or not all(isinstance(module, nn.Module) for module in modules):
        raise InputError(f"teacher: found a {type(teacher).__name__}; accepted: a torch.nn.Module, or {{name: module}}")
    return {str(label): _given_teacher(label, unwrapped(module), sweep) for label, module in teacher.items()}


def _given_teacher(label: str, module: nn.Module, sweep: SweepDir) -> dict[str, str]:
    if not str(label).isidentifier():
        raise InputError(f"teacher: found the name {label!r}; accepted: letters, digits and '_', such as big_net")
    name = give_teacher(module, label)
    path = sweep.store.objects / f"{name.partition(':')[2]}.safetensors"
    if not path.is_file():
        weights.save(module.state_dict(), path)
    return {"model": name, "checkpoint": sweep.mirror.uri_of(path) if sweep.mirror else str(path)}


def _factory(student: object) -> GivenFactory:
    if callable(student) and not isinstance(student, nn.Module):
        return GivenFactory(student)
    built = ", which is built already" if isinstance(student, nn.Module) else ""
    found = f"a {type(student).__name__}{built}"
    raise InputError(f"student: found {found}; accepted: a function that builds one, such as lambda width: Net(width)")
