"""Contract tests that every stopping rule must pass."""

from __future__ import annotations

import random
from itertools import pairwise

from kdsweep.search.stopping import StoppingRule

EPOCHS = 12
Report = tuple[str, str, int, float]


class StoppingRuleContract:
    """Subclass this and implement `make`, which creates your stopping rule."""

    def make(self, epochs: int) -> StoppingRule:
        """Create a new rule for a budget of `epochs`."""
        raise NotImplementedError

    def test_it_looks_at_rising_epochs_below_the_budget(self) -> None:
        """Milestones must increase and stay below the budget, whose last epoch ends a trial anyway."""
        milestones = list(self.make(EPOCHS).milestones)
        assert all(earlier < later for earlier, later in pairwise(milestones)), milestones
        assert all(1 <= epoch < EPOCHS for epoch in milestones), milestones

    def test_it_stops_trials_at_its_milestones_only(self) -> None:
        """A worker does not ask between milestones."""
        rule = self.make(EPOCHS)
        stopped = [epoch for group, key, epoch, value in _reports() if rule.reached(group, key, epoch, value)]
        assert set(stopped) <= set(rule.milestones), stopped

    def test_the_same_reports_give_the_same_decisions(self) -> None:
        """A resumed sweep must stop the same trials as an uninterrupted one."""
        first, second = self.make(EPOCHS), self.make(EPOCHS)
        assert [first.reached(*report) for report in _reports()] == [second.reached(*report) for report in _reports()]

    def test_groups_do_not_concern_each_other(self) -> None:
        """Results of one group must not affect another."""
        together, alone = self.make(EPOCHS), self.make(EPOCHS)
        answers = [(report, together.reached(*report)) for report in _reports()]
        for report, answer in answers:
            if report[0] == "wide":
                assert alone.reached(*report) is answer, report

    def test_a_trial_that_comes_to_an_epoch_again_is_not_stopped_there(self) -> None:
        """The trial was already judged there before its worker was lost."""
        rule = self.make(EPOCHS)
        for report in _reports():
            if not rule.reached(*report):
                assert not rule.reached(*report), report

    def test_the_first_trial_of_a_group_is_not_stopped_while_it_improves(self) -> None:
        """There is no other trial to compare it with. A promoting rule may pause it."""
        rule = self.make(EPOCHS)
        stopped = [rule.reached("first", "0", epoch, epoch / EPOCHS) for epoch in range(1, EPOCHS)]
        assert rule.promotes or not any(stopped)

    def test_only_paused_trials_are_promotable_and_some_are(self) -> None:
        """A trial that has reported since it paused has been promoted before. Asking must not change the answer."""
        rule = self.make(EPOCHS)
        paused: set[str] = set()
        seen: set[str] = set()
        for group, key, epoch, value in _reports():
            if rule.reached(group, key, epoch, value):
                paused.add(key)
            else:
                paused.discard(key)
            promotable = list(rule.promotable())
            assert promotable == list(rule.promotable()), promotable
            assert set(promotable) <= paused, promotable
            seen.update(promotable)
        assert bool(seen) is rule.promotes

    def test_the_same_reports_promote_the_same_trials(self) -> None:
        """A resumed sweep must promote the same trials as an uninterrupted one."""
        assert self._promotable() == self._promotable()

    def test_groups_are_promoted_independently(self) -> None:
        """Results of one group must not affect which trials of another are promotable, nor their order."""
        wide = {key for group, key, *_ in _reports() if group == "wide"}
        together = [[key for key in keys if key in wide] for group, keys in self._promotable() if group == "wide"]
        assert together == [keys for _, keys in self._promotable("wide")]

    def _promotable(self, *groups: str) -> list[tuple[str, list[str]]]:
        """Return the promotable trials after each report of some groups, or of all."""
        rule = self.make(EPOCHS)
        found = []
        for report in _reports():
            if not groups or report[0] in groups:
                rule.reached(*report)
                found.append((report[0], list(rule.promotable())))
        return found


def _reports() -> list[Report]:
    """Simulate two groups of trials that improve at different rates, four at a time: (group, trial, epoch, best)."""
    draw = random.Random(0)
    reports: list[Report] = []
    for start in range(0, 40, 4):
        paces = {str(number): draw.random() for number in range(start, start + 4)}
        for epoch in range(1, EPOCHS):
            for key, pace in paces.items():
                value = round(pace * (1 - 0.5**epoch), 4)
                reports.append(("wide" if int(key) % 2 else "narrow", key, epoch, value))
    return reports
