"""Stored teacher outputs equal those of a teacher in the loop and are computed once."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.methods import Outputs
from kdsweep.storage.arrays import map_array
from kdsweep.tasks.image.splits import prepare
from kdsweep.tasks.image.views import View
from kdsweep.teacher import outputs
from kdsweep.teacher.outputs import (
    OutputStore,
    StoredOutputs,
    StoredTeacher,
    TeacherInLoop,
    items_of,
    sweep_needs,
    trial_needs,
)
from kdsweep.training.teaching import NoTeacher
from kdsweep.training.trainer import Training
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
COUNT, EPOCHS = 100, 3


def written(root, space, **sections):
    """Return the spec of a small MNIST sweep, with `sections` merged into it."""
    values = {
        "name": "small",
        "dataset": {"name": "mnist_mini", "subset": 2 * COUNT, "val_fraction": 0.5},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "lightnn"},
        "train": {"epochs": EPOCHS, "batch_size": 32},
    }
    merged = {key: {**value, **sections.pop(key, {})} if isinstance(value, dict) else value
              for key, value in values.items()}  # fmt: skip
    return SweepSpec.model_validate(merged | {"space": space, "storage": str(root)} | sections)


def open_bench(spec):
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    card = provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    return Workbench(spec, spec.sweep_dir, data, card, CPU)


def config_of(method):
    return {"method": method, "width": 0.5, "lr": 3e-3, "alpha": 0.8}


def curve(bench, method, source=None):
    """Return the training and validation losses of every epoch."""
    recipe = trial_recipe(bench.spec, config_of(method), 1)
    source = bench.source(recipe) if source is None else source
    training = Training(recipe, bench.data, bench.train, bench.val, source)
    epochs = [training.run_epoch() for _ in range(EPOCHS)]
    return [value for metrics in epochs for value in (metrics["train_loss"], metrics["val_loss"])]


def stored_files(storage):
    return sorted(path.relative_to(storage) for path in (storage / ".cache" / "outputs").rglob("*.bin"))


class CountingTeacher(TeacherInLoop):
    """Counts the images that the sweep's teacher processes."""

    def __init__(self, inner):
        self._inner = inner
        self.shown = 0
        self._lock = threading.Lock()

    def outputs(self, images):
        with self._lock:  # a network's hooks can handle only one batch at a time
            self.shown += len(images)
            return self._inner.outputs(images)


# Equal to a teacher in the loop


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["none", "crop_flip", "crop+flip+rand_augment+mixup+cutmix"])
def test_stored_outputs_give_the_curve_of_a_teacher_in_the_loop(augment, tmp_path):
    # Stage maps are kept in bfloat16, which has 8 bits of mantissa.
    tolerances = {"kd": 1e-5, "at": 1e-5, "cosine": 1e-5, "hint": 1e-3}
    bench = open_bench(written(tmp_path, {"method": list(tolerances)}, dataset={"augment": augment}))
    for method, tolerance in tolerances.items():
        recipe = trial_recipe(bench.spec, config_of(method), 1)
        assert isinstance(bench.source(recipe), StoredTeacher)
        in_loop = curve(bench, method, bench.teacher)
        assert curve(bench, method) == pytest.approx(in_loop, rel=tolerance)
        plain = curve(bench, "none", NoTeacher(CPU))
        assert plain != pytest.approx(in_loop, rel=0.05)


def test_with_mixed_images_stored_outputs_give_the_curve_of_a_teacher_in_the_loop(tmp_path):
    bench = open_bench(written(tmp_path, {"method": ["kd", "dkd"]}, dataset={"augment": ["crop_flip", "mixup"]}))
    for method in ("kd", "dkd"):
        in_loop = curve(bench, method, bench.teacher)
        assert curve(bench, method) == pytest.approx(in_loop, rel=1e-5)
    assert len(stored_files(tmp_path)) == EPOCHS
    unmixed = open_bench(written(tmp_path, {"method": "kd"}, dataset={"augment": "crop_flip"}))
    assert curve(unmixed, "kd") != pytest.approx(in_loop, rel=0.01)


def test_the_task_loss_sees_mixed_labels_and_methods_the_class_with_the_larger_share(tmp_path, monkeypatch):
    bench = open_bench(written(tmp_path, {"method": "kd"}, dataset={"augment": "mixup"}))
    training = bench.training(config_of("kd"), 1, tmp_path / "none")
    seen = []
    monkeypatch.setattr(training, "_task_loss", lambda logits, labels: seen.append(labels) or logits.sum() * 0)
    monkeypatch.setattr(type(training.method), "term", lambda self, s, t, labels: seen.append(labels) or s.logits.sum())
    training.run_epoch()
    for asked, shown in zip(seen[::2], seen[1::2], strict=True):
        assert asked.shape[1] == 10
        assert torch.allclose(asked.sum(1), torch.ones(len(asked)))
        assert ((asked > 0).sum(1) <= 2).all()
        assert torch.equal(asked.argmax(1), shown)
    assert any(((asked.amax(1) < 0.9).any()) for asked in seen[::2])


def test_a_pool_of_views_is_computed_once_and_cycled_over_the_epochs(tmp_path):
    pool = open_bench(written(tmp_path, {"method": "kd"}, dataset={"augment": ["crop", "mixup"], "views": 2}))
    cached = curve(pool, "kd")
    assert [path.parent.name for path in stored_files(tmp_path)] == ["view-0001", "view-0002"]
    assert cached == pytest.approx(curve(pool, "kd", pool.teacher), rel=1e-5)
    assert pool.outputs.store.view_root(3) == pool.outputs.store.view_root(1)
    # Fresh views begin with those of the pool, and so do the curves.
    fresh = open_bench(written(tmp_path, {"method": "kd"}, dataset={"augment": ["crop", "mixup"]}))
    found = curve(fresh, "kd")
    assert found[:4] == cached[:4]
    assert found[4:] != cached[4:]
    assert len(stored_files(tmp_path)) == 3


def test_trials_share_the_outputs_of_their_view_set_and_one_with_views_of_its_own_has_the_teacher_in_the_loop(tmp_path):
    lists = ["none", "crop_flip", ["crop", {"mixup": {"alpha": {"choice": [0.2, 1.0]}}}],
             [{"cutmix": {"alpha": {"uniform": [0.2, 1.0]}}}]]  # fmt: skip
    spec = written(tmp_path, {"method": "kd", "augment": {"choice": lists}})
    assert spec.view_sets == (("none", "crop_flip", "crop+mixup(alpha=0.2)", "crop+mixup"), ("cutmix.alpha",))
    bench = open_bench(spec)
    assert len(stored_files(tmp_path)) == 1
    drawn = {"none": {}, "crop_flip": {}, "crop+mixup": {"mixup.alpha": 0.2}, "cutmix": {"cutmix.alpha": 0.3}}
    for augment, values in drawn.items():
        recipe = trial_recipe(spec, config_of("kd") | {"augment": augment} | values, 1)
        source = bench.source(recipe)
        assert isinstance(source, StoredTeacher) is (augment != "cutmix")
        training = Training(recipe, bench.data, bench.train, bench.val, source)
        training.run_epoch()
    assert recipe.augment == "cutmix(alpha=0.3)"
    assert len(stored_files(tmp_path)) == 3
    assert len({path.parts[2] for path in stored_files(tmp_path)}) == 3
    # The budget is that of all view sets together: 400 bytes of logits in each of 10 views.
    fits = written(tmp_path, {"method": "kd", "augment": {"choice": lists}}, teacher={"cache_gb": 4.1e-5})
    small = written(tmp_path, {"method": "kd", "augment": {"choice": lists}}, teacher={"cache_gb": 3.9e-5})
    assert [open_bench(one).outputs_of("crop_flip").store.items for one in (fits, small)] == [{"logits"}, set()]


def test_stored_arrays_are_the_teachers_outputs_for_the_view(tmp_path):
    spec = written(tmp_path, {"method": ["kd+cosine", "at", "hint"]}, dataset={"augment": "crop_flip"})
    bench = open_bench(spec)
    every = torch.arange(COUNT)
    for epoch in (1, 2):
        found = bench.outputs.arrays(epoch, bench.outputs.store.items)
        view = View("crop_flip", spec.seed, epoch, COUNT, CPU)
        said = bench.teacher.outputs(bench.train.batch(every, view))
        torch.testing.assert_close(found["logits"], said.logits)
        torch.testing.assert_close(found["embedding"], said.embedding)
        torch.testing.assert_close(found["stage1"], said.features[1].bfloat16(), rtol=0.01, atol=1e-3)
        torch.testing.assert_close(found["attention0"], said.features[0].pow(2).mean(1, keepdim=True).sqrt())
        assert found["attention1"].shape == (COUNT, 1, 7, 7)
    assert "stage0" not in bench.outputs.store.items


def test_the_views_of_two_epochs_differ_and_without_augmentation_there_is_one(tmp_path):
    varied = open_bench(written(tmp_path, {"method": "kd"}, dataset={"augment": "flip"})).outputs
    first, second = (varied.arrays(epoch, frozenset({"logits"}))["logits"].clone() for epoch in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(varied.arrays(1, frozenset({"logits"}))["logits"], first)
    still = open_bench(written(tmp_path, {"method": "kd"})).outputs
    assert still.store.view_root(1) == still.store.view_root(3)
    assert still.arrays(1, frozenset({"logits"}))["logits"] is still.arrays(3, frozenset({"logits"}))["logits"]


def test_a_trial_that_computes_a_view_draws_the_same_dropout_as_one_that_loads_it(tmp_path):
    spec = written(tmp_path, {"method": "kd"}, dataset={"augment": "crop_flip"})
    assert open_bench(spec).example  # saves the example, so that the teacher is not loaded before the first epoch
    computing, finding = open_bench(spec), open_bench(spec)
    expected = curve(computing, "kd")
    assert "teacher" in vars(computing)
    assert curve(finding, "kd") == expected
    assert "teacher" not in vars(finding)


# Computed once


def test_without_augmentation_the_outputs_are_stored_before_the_search(tmp_path):
    bench = open_bench(written(tmp_path, {"method": ["kd", "hint"]}))
    assert [path.name for path in stored_files(tmp_path)] == ["logits.bin", "stage1.bin"]
    curve(bench, "kd")
    curve(bench, "hint")
    assert len(stored_files(tmp_path)) == 2


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_a_view_is_computed_once_by_four_concurrent_readers(augment, tmp_path):
    bench = open_bench(written(tmp_path, {"method": "at"}, dataset={"augment": augment}))
    store = OutputStore(tmp_path / "outputs", augment, 0, frozenset({"logits", "attention1"}), 2, EPOCHS)
    teacher = CountingTeacher(bench.teacher)
    everyone = threading.Barrier(4)
    found: list[list[torch.Tensor]] = []

    def ask():
        own = StoredOutputs(store, lambda: teacher, bench.train)
        everyone.wait(timeout=60)
        views = range(1, EPOCHS + 1)
        found.append([own.arrays(epoch, store.items)["logits"].clone() for epoch in views])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(found) == 4
    assert teacher.shown == COUNT * (1 if augment == "none" else EPOCHS)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))
    assert not list(store.root.glob("**/*.claim"))
    assert not list(store.root.glob("**/.*.partial"))


def test_a_process_that_finds_a_view_claimed_computes_the_next_one(tmp_path):
    bench = open_bench(written(tmp_path, {"method": "kd"}, dataset={"augment": "flip"}))
    store = OutputStore(tmp_path / "outputs", "flip", 0, frozenset({"logits"}), 2, EPOCHS)
    both = threading.Barrier(2)

    class Waiting(TeacherInLoop):
        """Returns only once both threads are computing, so neither can have waited for the other."""

        def __init__(self):
            self.shown = 0

        def outputs(self, images):
            self.shown += len(images)
            both.wait(timeout=60)
            with lock:
                return bench.teacher.outputs(images)

    lock = threading.Lock()
    assert bench.teacher
    teachers = [Waiting(), Waiting()]
    threads = [threading.Thread(target=store.ensure, args=(1, teacher, bench.train)) for teacher in teachers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [teacher.shown for teacher in teachers] == [COUNT, COUNT]
    assert store.complete(1)
    assert store.complete(2)
    assert not store.complete(3)


def test_a_claim_of_a_dead_process_is_taken_over(tmp_path):
    bench = open_bench(written(tmp_path, {"method": "kd"}))
    store = OutputStore(tmp_path / "outputs", "none", 0, frozenset({"logits"}), 2, EPOCHS)
    claim = tmp_path / "outputs" / "view.claim"
    claim.parent.mkdir()
    claim.touch()
    os.utime(claim, (1, 1))
    store.ensure(1, bench.teacher, bench.train)
    assert store.complete(1)
    assert not claim.exists()


def test_a_claim_is_not_taken_over_from_a_living_process(tmp_path):
    bench = open_bench(written(tmp_path, {"method": "kd"}))
    store = OutputStore(tmp_path / "outputs", "none", 0, frozenset({"logits"}), 2, EPOCHS)
    claim = tmp_path / "outputs" / "view.claim"
    claim.parent.mkdir()
    claim.touch()
    assert not store._compute(1, bench.teacher, bench.train)
    assert claim.exists()
    assert not store.complete(1)


def test_a_teacher_that_fails_leaves_no_claim_behind(tmp_path):
    bench = open_bench(written(tmp_path, {"method": "kd"}))
    store = OutputStore(tmp_path / "outputs", "none", 0, frozenset({"logits"}), 2, EPOCHS)

    class Broken(TeacherInLoop):
        def __init__(self):
            pass

        def outputs(self, images):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.ensure(1, Broken(), bench.train)
    assert list(store.root.rglob("*")) in ([], [store.root / "view"])
    store.ensure(1, bench.teacher, bench.train)
    assert store.complete(1)


def test_outputs_cut_short_are_computed_again(tmp_path):
    bench = open_bench(written(tmp_path, {"method": "kd"}))
    path = bench.outputs.store.view_root(1) / "logits.bin"
    expected = map_array(path).clone()
    path.write_bytes(path.read_bytes()[:-40])
    again = open_bench(bench.spec)
    assert torch.equal(again.outputs.arrays(1, frozenset({"logits"}))["logits"], expected)


def test_another_sweep_reuses_stored_outputs_and_computes_only_missing_ones(tmp_path):
    open_bench(written(tmp_path, {"method": "kd"}))
    (logits,) = ((tmp_path / path).stat().st_mtime_ns for path in stored_files(tmp_path))
    open_bench(written(tmp_path, {"method": ["kd", "cosine"]}, name="second"))
    files = stored_files(tmp_path)
    assert [path.name for path in files] == ["embedding.bin", "logits.bin"]
    assert (tmp_path / files[1]).stat().st_mtime_ns == logits


def test_different_data_augmentation_or_seeds_have_separate_files(tmp_path):
    space = {"method": "kd"}
    specs = [
        written(tmp_path, space),
        written(tmp_path, space, dataset={"normalize": "none"}),
        written(tmp_path, space, dataset={"augment": "flip"}),
        written(tmp_path, space, seed=5),
    ]
    assert len({open_bench(spec).outputs.store.root for spec in specs}) == len(specs)


# The budget


def test_beyond_the_budget_the_teacher_runs_in_the_loop_with_the_same_curve(tmp_path):
    space = {"method": ["kd", "hint"]}
    logits_gb = COUNT * 10 * 4 / 1e9
    roomy = open_bench(written(tmp_path / "roomy", space))
    tight = open_bench(written(tmp_path / "tight", space, teacher={"cache_gb": logits_gb}))
    none = open_bench(written(tmp_path / "none", space, teacher={"cache_gb": logits_gb * 0.99}))
    kept = {"logits.bin": True, "stage1.bin": True}
    assert [path.name for path in stored_files(tmp_path / "roomy")] == list(kept)
    assert [path.name for path in stored_files(tmp_path / "tight")] == ["logits.bin"]
    assert stored_files(tmp_path / "none") == []
    sources = {
        (name, method): type(bench.source(trial_recipe(bench.spec, config_of(method), 1)))
        for name, bench in (("roomy", roomy), ("tight", tight), ("none", none))
        for method in ("kd", "hint")
    }
    assert {key for key, source in sources.items() if source is StoredTeacher} == {
        ("roomy", "kd"), ("roomy", "hint"), ("tight", "kd"),
    }  # fmt: skip
    assert set(sources.values()) == {StoredTeacher, TeacherInLoop}
    for method, tolerance in (("kd", 1e-5), ("hint", 1e-3)):
        assert curve(none, method) == pytest.approx(curve(roomy, method), rel=tolerance)


def test_the_budget_counts_every_view(tmp_path):
    budget = {"cache_gb": COUNT * 10 * 4 * (EPOCHS - 0.5) / 1e9}
    still = open_bench(written(tmp_path, {"method": "kd"}, teacher=budget))
    varied = open_bench(written(tmp_path, {"method": "kd"}, teacher=budget, dataset={"augment": "flip"}))
    assert still.outputs.store.items == {"logits"}
    assert varied.outputs.store.items == set()


# Needs


@pytest.mark.parametrize(
    ("method", "params", "needs"),
    [
        ("none", {}, set()),
        ("tfkd", {}, set()),
        ("kd", {"temperature": 2.0}, {"logits"}),
        ("at", {}, {"attention"}),
        ("srrl", {}, {"logits", "embedding"}),
        ("hint", {}, {"stage:-1"}),
        ("hint", {"stage": 0}, {"stage:0"}),
        ("kd+hint", {"hint.stage": 0, "kd.weight": 2.0}, {"logits", "stage:0"}),
        ("tfkd+cosine", {}, {"embedding"}),
    ],
)
def test_a_trial_needs_what_its_terms_need(method, params, needs):
    assert trial_needs(method, params) == needs


@pytest.mark.parametrize(
    ("stage", "searched"),
    [({"choice": [0, 1]}, {"stage:0", "stage:1"}), ({"randint": [-2, -1]}, {"stage:-2", "stage:-1"}), (0, {"stage:0"})],
)
def test_a_sweep_needs_exactly_the_stages_that_may_be_drawn(stage, searched, tmp_path):
    spec = written(tmp_path, {"method": ["kd", "none", "hint"], "hint": {"stage": stage}})
    assert sweep_needs(spec) == searched | {"logits"}


def test_a_drawn_stage_is_read_from_the_files(tmp_path):
    bench = open_bench(written(tmp_path, {"method": "hint", "hint": {"stage": {"randint": [-2, -1]}}}))
    for stage in (-2, -1):
        recipe = trial_recipe(bench.spec, config_of("hint") | {"hint.stage": stage}, 1)
        assert isinstance(bench.source(recipe), StoredTeacher)


def test_items_contain_each_array_once():
    assert items_of({"stage:-1", "stage:2", "logits"}, 3) == {"stage2", "logits"}
    assert items_of({"features"}, 2) == {"stage0", "stage1"}
    assert items_of({"attention", "stage:0"}, 2) == {"attention0", "attention1", "stage0"}
    assert items_of(set(), 4) == set()


@pytest.mark.parametrize("methods", [["none"], ["none", "tfkd"]])
def test_a_sweep_without_teacher_needs_stores_nothing(methods, tmp_path):
    bench = open_bench(written(tmp_path, {"method": methods}))
    for method in methods:
        curve(bench, method)
    assert not (tmp_path / ".cache" / "outputs").exists()


# The example


def test_the_saved_example_is_the_teachers_outputs_with_its_classifier(tmp_path):
    bench = open_bench(written(tmp_path, {"method": "kd"}))
    outputs.save_example(bench.teacher.example(), tmp_path / "example.safetensors")
    kept, said = outputs.load_example(tmp_path / "example.safetensors", CPU), bench.teacher.example()
    assert isinstance(kept, Outputs)
    assert torch.equal(kept.logits, said.logits)
    assert torch.equal(kept.embedding, said.embedding)
    for ours, theirs in ((kept.features, said.features), (kept.classifier, said.classifier)):
        assert len(ours) == len(theirs) == 2
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    torch.testing.assert_close(kept.embedding @ kept.classifier[0].T + kept.classifier[1], kept.logits)


# Only the largest logits


def test_students_see_the_same_of_few_logits_whether_they_are_stored_or_not(tmp_path):
    augmented = {"augment": "crop_flip"}
    few = open_bench(
        written(tmp_path / "few", {"method": ["kd", "dist"]}, teacher={"keep_logits": 2}, dataset=augmented)
    )
    every = open_bench(written(tmp_path / "all", {"method": "kd"}, dataset=augmented))
    for method in ("kd", "dist"):
        stored = curve(few, method)
        assert stored == pytest.approx(curve(few, method, few.teacher), rel=1e-5)
        assert stored != pytest.approx(curve(every, method), rel=1e-4)
    (file, *_) = stored_files(tmp_path / "few")
    assert (tmp_path / "few" / file).stat().st_size < COUNT * (4 * 2 + 2) + 200  # and a header


def test_as_few_logits_as_another_sweep_keeps_are_not_taken_for_its(tmp_path):
    roots = set()
    for keep in ("all", 1, 2):
        spec = written(tmp_path, {"method": "kd"}, teacher={"keep_logits": keep})
        roots.add(open_bench(spec).outputs.store.root)
    assert len(roots) == 3
