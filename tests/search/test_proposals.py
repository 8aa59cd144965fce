"""What the sampler remembers, and that a proposal depends on what is known and on nothing else."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from kdsweep.distributions import Config
from kdsweep.search.memory import BEST, RUNNING, BoundedMemory
from kdsweep.search.proposer import Proposer
from kdsweep.search.section import SearchSection
from kdsweep.search.space import SearchSpace

SEARCH = SearchSection(sampler="tpe", trials=100, startup_trials=5)
SPACE = SearchSpace.parse({
    "method": ["kd", "dkd", "none"],
    "temperature": {"loguniform": [1, 16]},
    "alpha": {"uniform": [0.05, 0.95]},
    "lr": {"loguniform": [1e-4, 1e-1]},
})  # fmt: skip


def value_of(config: Config) -> float:
    return 1.0 - abs(float(config["lr"]) - 0.01) - 0.1 * abs(float(config.get("alpha", 0.0)) - 0.5)


def run(proposer: Proposer, first: int, last: int, order: int = 1) -> list[Config]:
    """Propose and end trials, four at a time, each four ended forwards or backwards."""
    configs: list[Config] = []
    for start in range(first, last, 4):
        batch = [proposer.propose(number) for number in range(start, start + 4)]
        for config in batch[::order]:
            proposer.tell(config, TrialState.COMPLETE, [0.5 * value_of(config), value_of(config)])
        configs += batch
    return configs


def remembered(memory: BoundedMemory, study: optuna.Study) -> list[int]:
    return [trial.number for trial in memory.get_all_trials(study._study_id, states=(TrialState.COMPLETE,))]


def test_the_sampler_sees_the_best_and_the_latest_of_the_ended_trials():
    memory = BoundedMemory(recent=10)
    study = optuna.create_study(storage=memory, direction="maximize")
    for number in range(100):
        study.tell(study.ask(), 1.0 if number == 3 else number / 1000)
    # The last ten are also the best but for trial 3, so the best 25 reach down to trial 76.
    assert remembered(memory, study) == [3, *range(76, 100)]
    assert BEST == 25


def test_what_is_remembered_does_not_depend_on_the_order_in_which_trials_end():
    kept = []
    for order in (1, -1):
        memory = BoundedMemory(recent=10)
        study = optuna.create_study(storage=memory, direction="maximize")
        trials = [study.ask() for _ in range(60)]
        for trial in trials[::order]:
            study.tell(trial, float((trial.number * 37) % 60))
        kept.append(remembered(memory, study))
    assert kept[0] == kept[1]
    assert set(range(50, 60)) < set(kept[0])


def test_of_thousands_of_running_trials_the_latest_are_seen():
    memory = BoundedMemory(recent=2)
    study = optuna.create_study(storage=memory, direction="maximize")
    trials = [study.ask() for _ in range(3 * RUNNING)]
    study.tell(trials[-1], 0.5)
    seen = memory.get_all_trials(study._study_id, states=(TrialState.RUNNING,))
    assert [trial.number for trial in seen] == list(range(2 * RUNNING - 1, 3 * RUNNING - 1))


def test_a_running_trial_is_seen_beside_many_that_ended_and_failed_ones_are_not():
    memory = BoundedMemory(recent=2)
    study = optuna.create_study(storage=memory, direction="maximize")
    running = study.ask()
    for _ in range(40):
        study.tell(study.ask(), 0.5)
    study.tell(study.ask(), state=TrialState.FAIL)
    seen = study.get_trials(deepcopy=False)
    assert seen[0].number == running.number
    assert TrialState.FAIL not in {trial.state for trial in seen}
    assert len(seen) <= 1 + BEST + 2


def test_a_stopped_trial_ranks_below_complete_ones_and_by_the_epoch_it_reached():
    memory = BoundedMemory(recent=1)
    study = optuna.create_study(storage=memory, direction="maximize")
    for epoch, value in ((9, 0.3), (9, 0.2), (3, 0.9)):
        trial = study.ask()
        trial.report(value, epoch)
        study.tell(trial, state=TrialState.PRUNED)
    for _ in range(BEST - 1):
        study.tell(study.ask(), 0.1)
    seen = [trial.number for trial in study.get_trials(deepcopy=False)]
    assert seen == [0, *range(3, 3 + BEST - 1)]


def test_a_bound_changes_no_proposal_before_it_is_reached():
    bounded, unbounded = Proposer.of(SEARCH, SPACE, seed=1, recent=20), Proposer.of(SEARCH, SPACE, seed=1, recent=10**9)
    assert run(bounded, 0, 20) == run(unbounded, 0, 20)


@pytest.mark.parametrize("recent", [8, 10**9])
def test_a_search_taken_up_again_proposes_what_it_would_have_proposed(recent):
    live = Proposer.of(SEARCH, SPACE, seed=2, recent=recent)
    configs = run(live, 0, 60, order=-1)
    again = Proposer.of(SEARCH, SPACE, seed=2, recent=recent)
    for config in configs:
        again.recall(config)
    for config in configs:
        again.tell(config, TrialState.COMPLETE, [0.5 * value_of(config), value_of(config)])
    assert run(again, 60, 68) == run(live, 60, 68)
