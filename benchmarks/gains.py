"""Error rates and power of verdicts on gains, and how well rules for distributing seeds find the best candidate.

Nothing is trained: differences over seeds are drawn at random, in units of their standard deviation, and judged in the
same way as by confirmation.

    python benchmarks/gains.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from measure import arguments, report, say

from kdsweep.results.allocation import Rule, halving, ocba, ranking
from kdsweep.results.gains import LEVEL, holm, interval, judge, judge_all, p_values
from kdsweep.results.sequential import LookPlan, pocock

Array = np.ndarray
Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]

SEEDS = range(2, 11)
FAMILIES = (1, 3, 8)
TRIALS = 64


def tail(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Runs that occasionally end far below the mean: skewness -2."""
    return 1 - rng.exponential(size=shape)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal differences."""
    return rng.standard_normal(shape)


# Differences without a gain, with a standard deviation of 1.
NOISES: dict[str, Noise] = {
    "normal": normal,
    "skewed runs, student and plain": lambda rng, shape: (tail(rng, shape) - tail(rng, shape)) / np.sqrt(2),
    "skewed runs of the student only": lambda rng, shape: (tail(rng, shape) - normal(rng, shape)) / np.sqrt(2),
    "normal, rounded to half a spread": lambda rng, shape: np.round(2 * normal(rng, shape)) / 2,
    "skewed differences": tail,
}


def main() -> None:
    """Simulate and print every table."""
    parser = arguments(__doc__.splitlines()[0], "gains")
    parser.set_defaults(repeats=2000)
    options = parser.parse_args()
    tables = {
        "false": ("false verdicts without a gain (%), by seeds", false_verdicts),
        "power": ("gains found (%), by seeds", power),
        "same": ("verdicts `same` (%), by seeds", sameness),
        "more": ("what `more_seeds` promises and what it brings", promises),
        "interval": ("95 % intervals that do not contain the mean (%), by seeds", coverage),
        "looks": ("judging while seeds are added", looks),
        "leader": ("false verdicts on the best of 8 equal candidates (%), by seeds", leaders),
        "allocation": ("choosing the best of 64 trials", allocation),
    }
    for name, (title, rows) in tables.items():
        say(title)
        out = options.out.with_stem(f"{options.out.stem}_{name}")
        report(f"{title}, {options.repeats} simulations", list(rows(options.repeats)), {}, out)


def false_verdicts(repeats: int) -> Iterable[dict[str, object]]:
    """Percentage of confirmations with at least one verdict `gain` or `loss`, although there is no gain."""
    for family in FAMILIES:
        for name, noise in NOISES.items():
            rng = np.random.default_rng(family)
            yield {"students": family, "noise of the difference": name} | {
                str(seeds): percent(found(noise(rng, (repeats, family, seeds))).any(axis=1)) for seeds in SEEDS
            }
    rng = np.random.default_rng(1)
    yield {"students": 1, "noise of the difference": "normal, by the rule of version 0.1.0: |gain| > its std"} | {
        str(seeds): percent(np.abs((drawn := normal(rng, (repeats, seeds))).mean(1)) > drawn.std(1, ddof=1))
        for seeds in SEEDS
    }


def power(repeats: int) -> Iterable[dict[str, object]]:
    """Percentage of confirmations that find the only student with a gain."""
    for family in (1, 8):
        for gain in (0.5, 1.0, 2.0, 3.0):
            rng = np.random.default_rng(family)
            row: dict[str, object] = {"students": family, "gain in spreads": gain}
            for seeds in SEEDS:
                gains = normal(rng, (repeats, family, seeds))
                gains[:, 0] += gain
                row[str(seeds)] = percent(found(gains)[:, 0])
            yield row


def found(gains: Array) -> Array:
    """[N, family] whether each verdict is `gain` or `loss`, in N confirmations [N, family, seeds].

    Only confirmations with a significant p are judged in full; the others cannot have such a verdict.
    """
    repeats, family, seeds = gains.shape
    ps = p_values(gains.reshape(-1, seeds), family=family).reshape(repeats, family)
    decided = np.zeros((repeats, family), dtype=bool)
    for index in np.flatnonzero([min(holm(list(row))) <= LEVEL for row in ps]):
        verdicts = judge_all(dict(enumerate(gains[index])))
        decided[index] = [verdicts[student].verdict in ("gain", "loss") for student in range(family)]
    return decided


def sameness(repeats: int) -> Iterable[dict[str, object]]:
    """Percentage of verdicts `same` on one student; false ones where the true difference is as large as the margin."""
    for margin in (0.5, 1.0, 2.0):
        for difference in (margin, 0.0):
            rng = np.random.default_rng(1)
            row: dict[str, object] = {"margin in spreads": margin, "true difference in spreads": difference}
            for seeds in SEEDS:
                gains = normal(rng, (repeats, seeds)) + difference
                row[str(seeds)] = percent(np.array([judge(one, margin=margin).verdict == "same" for one in gains]))
            yield row


def promises(repeats: int) -> Iterable[dict[str, object]]:
    """Undecided students get `more_seeds` further seeds: how many then have a verdict. The margin is half a spread.

    A tenth of the simulations, because up to 105 seeds are judged.
    """
    simulations = max(2, repeats // 10)
    for seeds in (3, 5):
        for gain in (0.0, 1.0, 2.0):
            rng = np.random.default_rng(1)
            asked, decided = [], []
            for _ in range(simulations):
                first = normal(rng, (seeds,)) + gain
                verdict = judge(first, margin=0.5)
                if verdict.verdict != "undecided":
                    continue
                asked.append(verdict.more_seeds)
                more = np.concatenate([first, normal(rng, (verdict.more_seeds,)) + gain])
                decided.append(judge(more, margin=0.5).verdict != "undecided")
            yield {
                "seeds": seeds,
                "true gain in spreads": gain,
                "undecided (%)": f"{100 * len(asked) / simulations:.1f}",
                "median of more_seeds": f"{np.median(asked):.0f}",
                "then decided (%)": percent(np.array(decided)),
            }


def coverage(repeats: int) -> Iterable[dict[str, object]]:
    """Percentage of intervals that do not contain the true mean, zero."""
    for name, noise in NOISES.items():
        rng = np.random.default_rng(0)
        row: dict[str, object] = {"noise of the difference": name}
        for seeds in SEEDS:
            ends = np.array([interval(gains) for gains in noise(rng, (repeats, seeds))])
            row[str(seeds)] = percent((ends[:, 0] > 0) | (ends[:, 1] < 0))
        yield row


def looks(repeats: int) -> Iterable[dict[str, object]]:
    """Verdicts, and seeds used, when stopping at the first verdict, with and without alpha spending."""
    seeds = (3, 5, 7, 9, 11)
    plans = {"O'Brien-Fleming spending": LookPlan(seeds), "Pocock spending": LookPlan(seeds, spending=pocock)}
    rules = {name: plan.judge for name, plan in plans.items()} | {"5 % at every step": judge}
    for name, rule in rules.items():
        row: dict[str, object] = {"judged with 3, 5, ..., 11 seeds": name}
        for gain in (0.0, 1.0, 2.0):
            rng = np.random.default_rng(0)
            ended = [stopped(rule, gains, seeds) for gains in normal(rng, (repeats, seeds[-1])) + gain]
            row[f"found, gain {gain:g} (%)"] = percent(np.array([decided for decided, _ in ended]))
            row[f"mean seeds, gain {gain:g}"] = f"{np.mean([used for _, used in ended]):.1f}"
        yield row


def stopped(rule: Callable[..., Any], gains: Array, seeds: Sequence[int]) -> tuple[bool, int]:
    """Whether a gain or loss was found, and after how many seeds. The margin is 0, so `same` never stops."""
    for count in seeds:
        if rule(gains[:count], margin=0.0).verdict in ("gain", "loss"):
            return True, count
    return False, seeds[-1]


def leaders(repeats: int) -> Iterable[dict[str, object]]:
    """False verdicts on the best of 8 equal candidates, chosen on the seeds that are also used to judge it.

    Validation and test accuracy of a run share 70 % of their variance.
    """
    shown = (4, 6, 8, 10)
    rng = np.random.default_rng(0)
    drawn = {}
    for seeds in shown:
        runs = normal(rng, (repeats, 9, seeds))  # the last one is the plain student
        noise = normal(rng, (2, repeats, 9, seeds))
        val, test = np.sqrt(0.7) * runs + np.sqrt(0.3) * noise
        leader = val[:, :8].mean(2).argmax(1)
        drawn[seeds] = test[np.arange(repeats), leader] - test[:, 8]
    rules: dict[str, Callable[[Array], str]] = {
        "all seeds, as one student": lambda gains: judge(gains).verdict,
        "all seeds, as one of the 8 candidates": lambda gains: judge(gains, family=8).verdict,
        "on the same number of new seeds": lambda gains: judge(normal(rng, gains.shape)).verdict,
    }
    for name, rule in rules.items():
        yield {"judged by": name} | {
            str(seeds): percent(np.array([rule(row) in ("gain", "loss") for row in drawn[seeds]])) for seeds in shown
        }


def allocation(repeats: int) -> Iterable[dict[str, object]]:
    """Which of 64 trials is chosen; true accuracies and seeds both have a standard deviation of 0.3 points.

    The trial that is best on its one seed is then overrated by 0.5 points.
    """
    ways: list[tuple[int, str, Callable[[Array, Array, Callable[[int], float]], int]]] = [
        (0, "the search's one seed", lambda first, order, run: int(order[0])),
        (9, "top 3 x 3", equal(3, 3)),
        (9, "halving of 4", spent(halving, 4, 9)),
        (9, "halving of 5", spent(halving, 5, 9)),
        (9, "OCBA of 5", spent(ocba, 5, 9)),
        (18, "top 3 x 6", equal(3, 6)),
        (18, "top 6 x 3", equal(6, 3)),
        (18, "halving of 6", spent(halving, 6, 18)),
        (18, "halving of 8", spent(halving, 8, 18)),
        (18, "halving of 9", spent(halving, 9, 18)),
        (18, "OCBA of 8", spent(ocba, 8, 18)),
    ]
    for trainings, name, way in ways:
        rng = np.random.default_rng(0)
        named, regrets = [], []
        for _ in range(2 * repeats):
            true, seed_noise = 0.3 * rng.standard_normal(TRIALS), 0.3 * rng.standard_normal((TRIALS, 19))
            first = true + seed_noise[:, 0]
            trained = [1] * TRIALS

            def run(trial: int, true: Array = true, noise: Array = seed_noise, trained: list[int] = trained) -> float:
                trained[trial] += 1
                return float(true[trial] + noise[trial, trained[trial] - 1])

            chosen = way(first, np.argsort(-first), run)
            named.append(true[chosen] == true.max())
            regrets.append(true.max() - true[chosen])
        error = np.std(regrets) / np.sqrt(len(regrets))
        yield {"trainings": trainings, "seeds": name, "truly best chosen (%)": percent(np.array(named)),
               "regret (points)": f"{np.mean(regrets):.3f} ± {error:.3f}"}  # fmt: skip


def equal(top: int, seeds: int) -> Callable[[Array, Array, Callable[[int], float]], int]:
    """The same number of seeds for each of the best trials of the search."""
    return lambda first, order, run: max(order[:top], key=lambda trial: sum(run(trial) for _ in range(seeds)))


def spent(rule: Rule[int], top: int, trainings: int) -> Callable[[Array, Array, Callable[[int], float]], int]:
    """Trainings distributed one by one by a rule."""

    def way(first: Array, order: Array, run: Callable[[int], float]) -> int:
        values: dict[int, list[float]] = {int(trial): [] for trial in order[:top]}
        for done in range(trainings):
            candidate = rule(values, trainings - done)
            values[candidate].append(run(candidate))
        return ranking(values)[0]

    return way


def percent(hits: Array) -> str:
    """Format a share as a percentage."""
    return f"{100 * np.mean(hits):.1f}"


if __name__ == "__main__":
    main()
