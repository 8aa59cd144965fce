"""The teacher's outputs, computed once per view of the data and stored in files that every trial memory-maps.

Without augmentation there is one view; with it, one per epoch, or those of a pool that the epochs cycle through. The
first process to need a view computes it for all; others wait for it or compute the next one. Outputs that exceed the
budget are computed in the training loop instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep import methods
from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Distribution, Value
from kdsweep.lazy import nn, torch
from kdsweep.methods import Outputs
from kdsweep.methods.stages import attention_map
from kdsweep.models import InputSpec, Tapped
from kdsweep.seeds import digest_of
from kdsweep.storage import weights
from kdsweep.storage.arrays import ArrayWriter, has_array, map_array
from kdsweep.storage.following import fetch_folder
from kdsweep.storage.paths import Store
from kdsweep.tasks import Prepared, Samples, View
from kdsweep.teacher.kept import ALL, KeptLogits
from kdsweep.training.batches import batch_size
from kdsweep.training.recipe import view_number
from kdsweep.training.teaching import TeacherView

BATCH = 256
STALE_SECONDS = 60.0
MOST_TRIED = 65  # `sweep_needs` ignores parameters with more values


def trial_needs(method: str, params: Mapping[str, Any]) -> frozenset[str]:
    """Return the teacher outputs that a trial needs, as names from `Method.needs`.

    Args:
        method: A method or a sum of methods.
        params: The parameters from `Recipe.method_params`.
    """
    needs: set[str] = set()
    terms = methods.terms(method)
    for term in terms:
        own = {key.removeprefix(f"{term}."): value for key, value in params.items()}
        needs |= methods.get(term).teacher_needs(own)
    return frozenset(needs)


def sweep_needs(spec: SweepSpec) -> frozenset[str]:
    """Return the teacher outputs that any trial of the sweep may need."""
    needs: set[str] = set()
    space = spec.search_space
    for method in space.methods():
        drawn = {name: _few(values) for name, values in space.parameters(method).items() if "." in name}
        usual = {name: values[0] for name, values in drawn.items() if values}
        needs |= trial_needs(method, usual)
        for name, values in drawn.items():
            for value in values[1:]:
                needs |= trial_needs(method, {**usual, name: value})
    return frozenset(needs)


def _few(values: Distribution) -> tuple[Value, ...]:
    """Return every value of a distribution that has at most `MOST_TRIED`; empty otherwise."""
    return values.every() if values.finite and values.size <= MOST_TRIED else ()


def items_of(needs: Iterable[str], stages: int) -> frozenset[str]:
    """Return the names of the arrays for the needs: `logits`, `embedding`, `stage0`, `attention0`, ..."""
    items: set[str] = set()
    for need in needs:
        if need == "features":
            items |= {f"stage{i}" for i in range(stages)}
        elif need == "attention":
            items |= {f"attention{i}" for i in range(stages)}
        elif need.startswith("stage:"):
            items.add(f"stage{int(float(need.removeprefix('stage:'))) % stages}")
        else:
            items.add(need)
    return frozenset(items)


@dataclass(frozen=True)
class OutputStore:
    """The files of one teacher's outputs on one data set.

    Attributes:
        root: Directory of the files.
        augment: Augmentation of the training samples, as text.
        seed: Seed of the views.
        items: Names of the stored arrays.
        stages: Number of the teacher's stage maps.
        epochs: Number of epochs.
        views: Number of views that the epochs cycle through; 0 stands for one view per epoch.
        kept: What is kept of the logits.
    """

    root: Path
    augment: str
    seed: int
    items: frozenset[str]
    stages: int
    epochs: int
    views: int = 0
    kept: KeptLogits = ALL

    @classmethod
    def of(
        cls, spec: SweepSpec, data: Prepared, teacher_digest: str, example: Outputs, store: Store, augment: str
    ) -> OutputStore:
        """Return the store of a view set. The needed arrays that fit the budget in all sets are kept, smallest first.

        A set that only one trial draws is not kept.
        """
        keeping = KeptLogits.of(spec.teacher.keep_logits)
        what = [teacher_digest, data.digest, augment, spec.seed, *([keeping.largest] if keeping.largest else [])]
        sets = spec.view_sets.texts
        count = data.count("train") * sum(map(spec.views_in, sets))
        needed = items_of(sweep_needs(spec), len(example.features)) if augment in sets else frozenset()
        sizes = {name: _bytes_per_sample(array) * count for name, array in _arrays(example, needed, keeping).items()}
        left = spec.teacher.cache_gb * 1e9
        kept: set[str] = set()
        for name, size in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
            left -= size
            if left >= 0:
                kept.add(name)
        stages = len(example.features)
        views, epochs = spec.dataset.views, spec.budgets[-1]
        root = store.outputs(digest_of(what)[:16])
        return cls(root, augment, spec.seed, frozenset(kept), stages, epochs, views, keeping)

    def holds(self, needs: Iterable[str]) -> bool:
        """Return whether the store covers all needs."""
        return items_of(needs, self.stages) <= self.items

    def view_root(self, epoch: int) -> Path:
        """Return the directory of an epoch's view."""
        return self.root / ("view" if self.augment == "none" else f"view-{view_number(epoch, self.views):04d}")

    def complete(self, epoch: int) -> bool:
        """Return whether the view of an epoch is complete."""
        root = self.view_root(epoch)
        return all(has_array(root / f"{item}.bin") for item in self.items)

    def ensure(self, epoch: int, teacher: TeacherInLoop, train: Samples) -> None:
        """Compute the view of an epoch, or wait until another process has computed it.

        Args:
            epoch: Epoch, from 1.
            teacher: The teacher, on this process's device.
            train: The training split, on the same device.
        """
        while not self.complete(epoch):
            if not self._compute(epoch, teacher, train):
                # Another process is computing this view. Meanwhile, compute the next one, but no more than one ahead.
                ahead = epoch + 1
                idle = self.augment == "none" or ahead > self.epochs or self.complete(ahead)
                if idle or not self._compute(ahead, teacher, train):
                    time.sleep(0.02)

    def _compute(self, epoch: int, teacher: TeacherInLoop, train: Samples) -> bool:
        """Compute a view unless another process has claimed it. Return whether the claim was ours."""
        claim = self.view_root(epoch).with_suffix(".claim")
        claim.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            _release_if_stale(claim)
            return False
        try:
            if not self.complete(epoch):
                fetch_folder(self.view_root(epoch))
            if not self.complete(epoch):
                self._write(epoch, teacher, train, claim)
        finally:
            claim.unlink(missing_ok=True)
        return True

    def _write(self, epoch: int, teacher: TeacherInLoop, train: Samples, claim: Path) -> None:
        view = train.view(self.augment, self.seed, view_number(epoch, self.views))
        missing = {item for item in self.items if not has_array(self.view_root(epoch) / f"{item}.bin")}
        writers = {item: ArrayWriter(self.view_root(epoch) / f"{item}.bin") for item in missing}
        try:
            size = batch_size(teacher.outputs, train, cpu=BATCH, most=BATCH)
            for batch in train.sequence(torch.arange(len(train)).split(size), view):
                outputs = teacher.outputs(batch)
                for item, array in _arrays(outputs, missing, self.kept).items():
                    writers[item].append(array)
                os.utime(claim)
            for writer in writers.values():
                writer.close()
        finally:
            for writer in writers.values():
                writer.discard()


class TeacherInLoop:
    """The teacher model, run on each batch.

    Args:
        tapped: The model, frozen and in eval mode.
        input_spec: Input of one sample.
        device: Device of the model.
        kept: What students see of the logits.
    """

    def __init__(self, tapped: Tapped, input_spec: InputSpec, device: torch.device, kept: KeptLogits = ALL):
        self._tapped = tapped
        self._kept = kept
        self._input = input_spec.example(2, device)

    @property
    def model(self) -> nn.Module:
        """The teacher model."""
        return self._tapped.model

    def outputs(self, batch: torch.Tensor) -> Outputs:
        """Return the outputs for a batch [B, ...], with all logits."""
        with torch.no_grad():
            return self._tapped(batch)

    def example(self) -> Outputs:
        """Return the outputs for two all-zero samples."""
        return self.outputs(self._input)

    def epoch(self, epoch: int, view: View) -> TeacherView:
        """Return a view that runs the teacher on the student's batch."""

        def outputs(index: torch.Tensor, batch: torch.Tensor) -> Outputs:
            found = self.outputs(batch)
            return found._replace(logits=self._kept.seen(found.logits)) if self._kept.largest else found

        return outputs


class StoredOutputs:
    """Holds the arrays of one view at a time on a device, shared by all runs of a process.

    Args:
        store: Files of the arrays.
        teacher: Returns the teacher, to compute missing views.
        train: The training split, on the device.
    """

    def __init__(self, store: OutputStore, teacher: Callable[[], TeacherInLoop], train: Samples):
        self.store = store
        self._teacher = teacher
        self._train = train
        self._root = Path()
        self._arrays: dict[str, torch.Tensor] = {}

    def arrays(self, epoch: int, items: frozenset[str]) -> dict[str, torch.Tensor]:
        """Return the arrays [N, ...] of an epoch by name."""
        root = self.store.view_root(epoch)
        if root != self._root:
            if not self.store.complete(epoch):
                self.store.ensure(epoch, self._teacher(), self._train)
            self._root, self._arrays = root, {}
        for item in items - self._arrays.keys():
            self._arrays[item] = map_array(root / f"{item}.bin").to(self._train.device)
        return {item: self._arrays[item] for item in items}


class StoredTeacher:
    """Provides stored teacher outputs to one run.

    Args:
        outputs: The shared arrays.
        needs: Teacher outputs that the run's method needs.
        example: Outputs for a small batch.
    """

    def __init__(self, outputs: StoredOutputs, needs: frozenset[str], example: Outputs):
        self._outputs = outputs
        self._stages = len(example.features)
        self._items = items_of(needs, self._stages)
        self._example = example

    def example(self) -> Outputs:
        """Return the outputs for a small batch."""
        return self._example

    def epoch(self, epoch: int, view: View) -> TeacherView:
        """Return a view that looks outputs up by position in the training split."""
        arrays = self._outputs.arrays(epoch, self._items)
        nothing = torch.empty(0, device=self._example.logits.device)
        kept, classes = self._outputs.store.kept, self._example.logits.shape[1]

        def outputs(index: torch.Tensor, batch: torch.Tensor) -> Outputs:
            taken = {item: array[index] for item, array in arrays.items()}
            if "logits" in taken:
                taken["logits"] = kept.unpack(taken["logits"], classes)
            stages = (taken.get(f"stage{i}", taken.get(f"attention{i}", nothing)) for i in range(self._stages))
            return Outputs(taken.get("logits", nothing), taken.get("embedding", nothing), tuple(stages))

        return outputs


def save_example(example: Outputs, path: Path) -> None:
    """Save the outputs for a small batch, so that adapters can be built without the teacher."""
    tensors = {"logits": example.logits, "embedding": example.embedding}
    tensors |= {f"stage{i}": array for i, array in enumerate(example.features)}
    tensors |= {f"classifier{i}": array for i, array in enumerate(example.classifier)}
    weights.save(tensors, path)


def load_example(path: Path, device: torch.device) -> Outputs:
    """Load the outputs that `save_example` saved."""
    tensors = {name: tensor.to(device) for name, tensor in weights.load(path).items()}
    stages = sum(name.startswith("stage") for name in tensors)
    classifier = sum(name.startswith("classifier") for name in tensors)
    return Outputs(
        tensors["logits"],
        tensors["embedding"],
        tuple(tensors[f"stage{i}"] for i in range(stages)),
        tuple(tensors[f"classifier{i}"] for i in range(classifier)),
    )


def _arrays(outputs: Outputs, items: Iterable[str], kept: KeptLogits) -> dict[str, torch.Tensor]:
    """Return the arrays to store for a batch: float32, but bfloat16 for stage maps (same range as float32)."""
    arrays: dict[str, torch.Tensor] = {}
    for item in items:
        if item.startswith("stage"):
            arrays[item] = outputs.features[int(item.removeprefix("stage"))].to(torch.bfloat16)
        elif item.startswith("attention"):
            arrays[item] = attention_map(outputs.features[int(item.removeprefix("attention"))])
        elif item == "logits":
            arrays[item] = kept.pack(outputs.logits)
        else:
            arrays[item] = getattr(outputs, item).float()
    return arrays


def _bytes_per_sample(array: torch.Tensor) -> int:
    return array[0].numel() * array.element_size()


def _release_if_stale(claim: Path) -> None:
    """Remove a claim that has not been touched for STALE_SECONDS: its process has died."""
    try:
        if time.time() - claim.stat().st_mtime > STALE_SECONDS:
            claim.unlink(missing_ok=True)
    except FileNotFoundError:
        return
