"""The fair baseline: plain students get as many trials as the best-served method, and each width trains one to the end.

The real Study runs on synthetic accuracies with simulated asynchronous workers. Nothing is trained.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter

import numpy as np
import pytest
from optuna.trial import TrialState

from kdsweep.config.load import load_spec
from kdsweep.config.spec import SweepSpec
from kdsweep.results.frames import load_results
from kdsweep.search import plan as plan_module
from kdsweep.search import study as study_module
from kdsweep.search.baseline import PlainShare
from kdsweep.search.proposer import Proposer
from kdsweep.search.section import SearchSection
from kdsweep.search.space import SearchSpace
from kdsweep.search.stopping import StoppingRule
from kdsweep.search.study import Study
from kdsweep.search.trial import State

EPOCHS = 18
WIDTHS = [0.25, 0.5, 1.0]
SPACE = {
    "method": ["kd", "dkd", "hint", "none"],
    "width": {"choice": WIDTHS},
    "temperature": {"loguniform": [1, 16]},
    "alpha": {"uniform": [0.05, 0.95]},
    "lr": {"loguniform": [1e-4, 1e-1]},
}


def spec_of(root, seed=0, rule="asha", **search):
    return SweepSpec.model_validate({
        "name": "synthetic", "dataset": {"name": "mnist_mini"}, "teacher": {"model": "mnist_teacher"},
        "student": {"model": "mnist_student"}, "seed": seed, "space": SPACE, "train": {"epochs": EPOCHS},
        "search": {"trials": 64} | search, "scheduler": {"name": rule}, "storage": str(root),
    })  # fmt: skip


def accuracy_of(config):
    """Wide students are better, distilled ones too, and each needs the right learning rate."""
    gain = {"none": 0.0, "kd": 0.02, "dkd": 0.025, "hint": 0.01}[config["method"]]
    return 0.8 + 0.04 * math.log2(4 * config["width"]) + gain - 0.04 * (math.log10(config["lr"]) + 2) ** 2


def line(epoch, accuracy):
    return {"epoch": epoch, "val_accuracy": accuracy, "val_loss": 1.0, "train_loss": 1.0, "lr": 0.1, "seconds": 1.0,
            "parameters": 10, "size_mb": 1.0}  # fmt: skip


def search(study, workers=8):
    """Run a search with workers that need longer for wider students."""
    ends, order = [], 0

    def start(now, trial):
        nonlocal order
        if trial is not None:
            heapq.heappush(ends, (now + 0.5 + trial.config["width"], order, trial))
            order += 1

    for _ in range(workers):
        start(0.0, study.ask())
    while ends:
        now, _, trial = heapq.heappop(ends)
        epoch = len(trial.values) + 1
        noise = 0.003 * np.random.default_rng([study.spec.seed, trial.number, epoch]).standard_normal()
        accuracy = accuracy_of(trial.config) - 0.3 * math.exp(-epoch / 5) + noise
        stop = study.report(trial.key, line(epoch, accuracy))
        if stop:
            study.leave(trial.key)
        elif epoch == EPOCHS:
            study.finish(trial.key, State.COMPLETE)
        start(now, study.ask() if stop or epoch == EPOCHS else trial)


def searched(spec):
    spec.sweep_dir.root.mkdir(parents=True)
    spec.save(spec.sweep_dir.spec)
    study = Study(spec, spec.sweep_dir, spec.search_space)
    search(study)
    study.close()
    return load_results(spec.sweep_dir.root)


@pytest.mark.parametrize(("rule", "seeds"), [("asha", 4), ("asha-promotion", 2)])
def test_every_width_has_complete_plain_trials_and_as_many_as_the_best_served_method(tmp_path, rule, seeds):
    # Without plain_share and own groups, these sweeps left 0.8, 0.0 and 0.0 complete plain trials per width.
    for seed in range(seeds):
        results = searched(spec_of(tmp_path / str(seed), seed, rule))
        effort = results.effort().set_index(["width", "method"])
        assert effort["trials"].sum() == 64
        assert effort["epochs"].sum() == results.trials["epochs"].sum()
        for width in WIDTHS:
            plain, others = effort.loc[(width, "none")], effort.loc[width].drop("none")
            assert plain["trials"] >= others["trials"].max()
            assert plain["complete"] >= 1
            (best,) = results.plain(width).to_dict("records")
            assert (best["state"], best["epochs"], best["width"]) == ("COMPLETE", EPOCHS, width)


def test_distilled_trials_do_not_stop_plain_ones(tmp_path):
    spec = spec_of(tmp_path, trials=9, points=[
        *({"method": "kd", "width": 1.0, "lr": lr} for lr in (0.01, 0.02, 0.03)),
        *({"method": "none", "width": 1.0, "lr": lr} for lr in (0.01, 0.02, 0.03)),
    ])  # fmt: skip
    study = Study(spec, spec.sweep_dir, spec.search_space)
    trials = [study.ask() for _ in range(6)]
    stopped = []
    for trial, accuracy in zip(trials, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], strict=True):
        study.report(trial.key, line(1, accuracy))
        stopped.append(study.report(trial.key, line(2, accuracy)))
    assert stopped == [False, True, True, False, True, True]
    study.close()


def test_plain_trials_of_each_width_are_a_group_even_if_group_by_is_empty(tmp_path):
    spec = spec_of(tmp_path, trials=9, points=[{"method": "none", "width": width} for width in (1.0, 0.5, 0.25)])
    spec = spec.replaced(scheduler=spec.scheduler.model_copy(update={"group_by": [], "grace_epochs": 1}))
    study = Study(spec, spec.sweep_dir, spec.search_space)
    trials = [study.ask() for _ in range(3)]
    assert [study.report(t.key, line(1, value)) for t, value in zip(trials, (0.9, 0.8, 0.7), strict=True)] == [
        False
    ] * 3
    study.close()


class StopsAll(StoppingRule):
    """Stops every trial after its first epoch."""

    def reached(self, group, key, epoch, value):
        return epoch < self.epochs


def test_the_best_plain_trial_of_a_width_is_trained_to_the_end_whatever_the_rule(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "rule_of", lambda spec, epochs=0: StopsAll(EPOCHS))
    results = searched(spec_of(tmp_path))
    complete = results.trials[results.trials["state"] == "COMPLETE"]
    assert set(complete["method"]) == {"none"}
    assert set(complete["width"]) == set(WIDTHS)
    for width in WIDTHS:
        plain = results.trials[(results.trials["method"] == "none") & (results.trials["width"] == width)]
        assert results.plain(width)["trial"][0] == plain.loc[plain["val_accuracy"].idxmax(), "trial"]


def test_a_failed_plain_trial_protects_nobody_and_the_next_best_is_protected(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "rule_of", lambda spec, epochs=0: StopsAll(EPOCHS))
    spec = spec_of(tmp_path, trials=3, points=[{"method": "none", "width": 1.0, "lr": lr} for lr in (0.01, 0.02, 0.03)])
    study = Study(spec, spec.sweep_dir, spec.search_space)
    first, second, third = (study.ask() for _ in range(3))
    assert not study.report(first.key, line(1, 0.9))
    assert study.report(third.key, line(1, 0.5))
    study.finish(third.key, State.PRUNED)
    study.finish(first.key, State.FAILED, "diverged")
    assert not study.report(second.key, line(1, 0.6))
    study.close()
    again = Study(spec, spec.sweep_dir, spec.search_space)
    assert not again.report(second.key, line(2, 0.6))
    again.close()


def test_a_running_trial_that_an_earlier_version_let_continue_is_not_stopped_afterwards(tmp_path, monkeypatch):
    points = [{"method": method, "width": 1.0} for method in ("none", "none", "none", "kd", "kd", "kd")]
    spec = spec_of(tmp_path, trials=6, points=points)
    with monkeypatch.context() as patch:  # the groups of version 0.1.0: plain and distilled trials together
        patch.setattr(study_module, "stopping_group", lambda space, config, group_by: config["width"])
        study = Study(spec, spec.sweep_dir, spec.search_space)
        trials = [study.ask() for _ in range(6)]
        for trial, accuracy in zip(trials, (0.5, 0.4, 0.3, 0.9, 0.8, 0.85), strict=True):
            study.report(trial.key, line(1, accuracy))
            stop = study.report(trial.key, line(2, accuracy))
            # The fifth and sixth are among the best two of their group of then five and six.
            assert stop == (accuracy in (0.4, 0.3))
        study.report(trials[4].key, line(3, 0.8))
        study.close()
    again = Study(spec, spec.sweep_dir, spec.search_space)
    # Among distilled trials alone only the first of three continues. The fifth has already trained on.
    assert list(again.running) == [trials[number].key for number in (0, 3, 4)]
    assert again.counts[State.PRUNED] == 3
    again.close()


# Proposals


def proposals(trials, space=None, seed=0, order=1, **search):
    """Propose trials, four running at a time, and end them with accuracies of their settings."""
    space = space or SearchSpace.parse(SPACE)
    proposer = Proposer.of(SearchSection(trials=trials, **search), space, seed)
    configs = []
    for start in range(0, trials, 4):
        batch = [proposer.propose(number) for number in range(start, min(start + 4, trials))]
        for config in batch[::order]:
            proposer.tell(config, TrialState.COMPLETE, [accuracy_of(config)])
        configs += batch
    return proposer, configs


def counts(configs):
    return Counter((config["width"], config["method"]) for config in configs)


def most(counted, width):
    return max(count for (at, method), count in counted.items() if at == width and method != "none")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_after_every_proposal_no_method_is_ahead_of_the_plain_students_of_its_width(sampler):
    _, configs = proposals(60, sampler=sampler)
    for end in range(1, 61):
        counted = counts(configs[:end])
        assert all(counted[width, "none"] >= count for (width, method), count in counted.items())
    assert sum(config["method"] == "none" for config in configs) <= 32


def test_methods_other_than_the_best_served_get_their_trials_without_further_plain_ones():
    _, configs = proposals(120, sampler="random")
    for width in WIDTHS:
        counted = counts(configs)
        # A random sampler draws plain students itself, so there may be a few more than demanded.
        assert most(counted, width) <= counted[width, "none"] <= most(counted, width) + 5


@pytest.mark.parametrize(("share", "least"), [(0.0, 0), (0.5, 0.5), (2.0, 2.0)])
def test_the_share_is_a_multiple_of_the_best_served_methods_trials(share, least):
    _, configs = proposals(80, plain_share=share, sampler="random")
    counted = counts(configs)
    assert all(counted[width, "none"] >= least * most(counted, width) for width in WIDTHS)
    if share == 0.0:
        assert any(counted[width, "none"] < most(counted, width) for width in WIDTHS)


def test_points_count_and_what_they_owe_comes_right_after_them():
    points = [{"method": "kd", "width": 1.0}, {"method": "kd", "width": 1.0}, {"method": "dkd", "width": 0.5}]
    _, configs = proposals(12, points=points)
    assert counts(configs[:3]) == {(1.0, "kd"): 2, (0.5, "dkd"): 1}
    assert counts(configs[3:6]) == {(1.0, "none"): 2, (0.5, "none"): 1}


def test_a_search_taken_up_again_proposes_the_same_plain_trials():
    whole, configs = proposals(60, order=-1)
    again = Proposer.of(SearchSection(trials=80), SearchSpace.parse(SPACE), 0)
    for config in configs:
        again.recall(config)
    for config in configs:
        again.tell(config, TrialState.COMPLETE, [accuracy_of(config)])
    ahead = [[proposer.propose(number) for number in range(60, 80)] for proposer in (whole, again)]
    assert ahead[0] == ahead[1]
    assert any(config["method"] == "none" for config in ahead[0])


def test_plain_trials_stop_when_every_plain_configuration_of_a_width_was_tried():
    space = SearchSpace.parse(SPACE | {"lr": {"choice": [0.01, 0.02]}})
    _, configs = proposals(60, space)
    plain = [tuple(sorted(config.items())) for config in configs if config["method"] == "none"]
    assert len(plain) == len(set(plain)) == 6


def test_widths_of_a_range_are_counted_together():
    space = SearchSpace.parse(SPACE | {"width": {"uniform": [0.25, 1.0]}})
    _, configs = proposals(40, space)
    by_method = Counter(config["method"] for config in configs)
    assert by_method["none"] >= max(by_method[method] for method in ("kd", "dkd", "hint"))
    assert len({config["width"] for config in configs}) == 40


@pytest.mark.parametrize("methods", [["kd", "dkd"], ["none"]])
def test_nothing_is_counted_where_there_is_nothing_to_compare(methods):
    share = PlainShare(SearchSpace.parse(SPACE | {"method": methods}), 1.0)
    config = {"method": methods[0], "width": 1.0, "lr": 0.01}
    assert not share.active
    assert share.before(config) == {}
    share.note(config)
    assert share.owed() == {}


def test_a_grid_lists_its_plain_trials_itself(sweep_file):
    space = {"method": ["kd", "none"], "temperature": {"choice": [2, 4]}, "alpha": {"choice": [0.5]}}
    spec = load_spec(sweep_file, {"space": space, "search": {"sampler": "grid", "trials": 99}})
    proposer = Proposer.of(spec.search, spec.search_space, 0)
    methods = [proposer.propose(number)["method"] for number in range(proposer.limit)]
    assert methods == ["kd", "kd", "none"]


def test_plain_trials_are_tuned_by_the_history_of_plain_trials():
    """Distillation works best at 1e-2, the plain student at 1e-3: its trials gather there."""
    space = SearchSpace.parse(SPACE | {"width": 1.0, "lr": {"loguniform": [1e-5, 1.0]}})
    proposer = Proposer.of(SearchSection(trials=80, startup_trials=8), space, 0)
    rates = {"none": [], "kd": []}
    for number in range(80):
        config = proposer.propose(number)
        best = -3 if config["method"] == "none" else -1
        value = 0.9 - 0.1 * abs(math.log10(config["lr"]) - best) + (0.02 if config["method"] == "kd" else 0)
        proposer.tell(config, TrialState.COMPLETE, [value])
        rates.setdefault(config["method"], []).append(math.log10(config["lr"]))
    assert np.median(rates["none"][-12:]) == pytest.approx(-3, abs=0.5)
    assert np.median(rates["kd"][-12:]) == pytest.approx(-1, abs=0.5)
