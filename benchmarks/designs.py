"""Simulated confirmations: false verdicts, gains found, and how often the truly best student is named.

Nothing is trained: the results of each training are drawn at random, and the designs of confirmation run on them as
they do in a sweep.

    python benchmarks/designs.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from measure import arguments, report, say

from kdsweep.distributions import Config
from kdsweep.results import designs
from kdsweep.results.confirmed import GAINS
from kdsweep.results.designs import AutoSeeds, Chosen, Design, Evidence, FixedSeeds, named, paired
from kdsweep.results.gains import Verdict, p_values
from kdsweep.tasks import Goal

GOAL = Goal()
TRIALS = 64
SHARED = 0.7  # part of the variance over seeds that validation and test have in common
Measure = Callable[[Config, int], Mapping[str, float]]


def main() -> None:
    """Simulate and print every table."""
    designs.run_name = quick_name
    parser = arguments(__doc__.splitlines()[0], "designs")
    parser.add_argument("--only", default="", help="name of the only table to make")
    parser.set_defaults(repeats=2000)
    options = parser.parse_args()
    tables = {
        "false": ("false verdicts without a gain, and gains of two spreads found", verdicts),
        "best": ("naming the best of 64 trials", selection),
    }
    for name, (title, rows) in tables.items():
        if options.only not in ("", name):
            continue
        say(title)
        out = options.out.with_stem(f"{options.out.stem}_{name}")
        report(f"{title}, {options.repeats} simulations", list(rows(options.repeats)), {}, out)


def quick_name(config: Config, seed: int) -> str:
    """A name of a training, without the hash of `run_name`."""
    return f"{config['method']} {config['width']} {config['lr']} {seed}"


def candidates(groups: int, each: int) -> list[Chosen]:
    """Candidates of several widths, each with its plain twin and the tuned plain student of its width."""
    return [
        Chosen.of(
            f"{width}-{number}",
            {"method": "kd", "width": width, "lr": number},
            {"method": "none", "width": width, "lr": -1},
            str(width),
        )
        for width in range(groups)
        for number in range(each)
    ]


class QuickAuto(AutoSeeds):
    """`AutoSeeds` that computes an interval only where p is small; without a margin, the verdicts are the same."""

    def _verdicts(self, gains: Mapping[str, np.ndarray], margin: float) -> dict[str, Verdict]:
        by_kind = list(gains.values())
        level = self.plan.levels[self.plan.seeds.index(len(by_kind[0]))]
        if len(gains) * p_values(np.array(by_kind), family=len(gains), level=level).min() <= level:
            return super()._verdicts(gains, margin)
        return {kind: Verdict(0.0, np.nan, np.nan, 1.0, "undecided", 0, len(by_kind[0])) for kind in gains}


def auto(chosen: list[Chosen], trainings: int | None = None) -> AutoSeeds:
    """The design with `seeds: auto`; no gain is called `same`, which would end a confirmation sooner."""
    return QuickAuto(chosen, trainings, lambda number: number, GOAL, margin=0.0)


def confirmed(design: Design, measure: Measure) -> tuple[dict[str, Mapping[str, float]], int]:
    """Run a design to its end. Return the results of all trainings, and their number."""
    results: dict[str, Mapping[str, float]] = {}
    while missing := {name: run for name, run in named(design.wanted(results)).items() if name not in results}:
        results |= {name: measure(*run) for name, run in missing.items()}
    return results, len(results)


def drawn(rng: np.random.Generator, gain: float = 0.0) -> Measure:
    """Equally good students whose results over seeds have a standard deviation of 1.

    Args:
        rng: The source of randomness.
        gain: What distilled students have more than plain ones, in standard deviations of the paired difference.
    """

    def measure(config: Config, seed: int) -> Mapping[str, float]:
        shared, val, test = rng.standard_normal(3)
        true = gain * np.sqrt(2) * (config["method"] != "none")
        return {
            GOAL.column: true + np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * val,
            GOAL.test_column: true + np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * test,
        }

    return measure


def outcomes(design: Design, results: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """The verdicts of a finished confirmation on each kind of gain."""
    evidence = [one for one in design.evidence(results) if one.judged]
    gains = {
        kind: {
            one.chosen.key: paired(one.chosen.config, one.chosen.baselines[kind], one.judged, results, GOAL)
            for one in evidence
        }
        for kind in GAINS
    }
    judged = design.judge(gains, 0.0)
    return {kind: [verdict.verdict for verdict in judged[kind].values()] for kind in GAINS}


def verdicts(repeats: int) -> Iterable[dict[str, object]]:
    """How many confirmations have a false verdict, and which share of the judged students has a verdict `gain`."""
    tried: dict[str, Design] = {
        "top 3 x 3 of one group": FixedSeeds(candidates(1, 3), range(3)),
        "top 1 x 8 of three groups": FixedSeeds(candidates(3, 1), range(8)),
        "auto, top 5 of one group, 27 trainings": auto(candidates(1, 5), 27),
        "auto, top 5 of one group": auto(candidates(1, 5)),
        "auto, top 3 of three groups": auto(candidates(3, 1)),
        "auto, top 9 of three groups": auto(candidates(3, 3)),
    }
    for name, design in tried.items():
        rng = np.random.default_rng(0)
        false = [outcomes(design, confirmed(design, drawn(rng))[0]) for _ in range(repeats)]
        with_gain = [confirmed(design, drawn(rng, gain=2.0)) for _ in range(repeats // 4)]
        gains = [outcomes(design, results) for results, _ in with_gain]
        judged = [verdict for found in gains for by_kind in found.values() for verdict in by_kind]
        yield {
            "design": name,
            "trainings at most": design.most,
            "false over twin (%)": percent([_any_false(found["kd_gain"]) for found in false]),
            "over tuned (%)": percent([_any_false(found["kd_gain_tuned"]) for found in false]),
            "over either (%)": percent([_any_false(found["kd_gain"] + found["kd_gain_tuned"]) for found in false]),
            "gains found (%)": percent([verdict == "gain" for verdict in judged]),
            "mean trainings": f"{np.mean([count for _, count in with_gain]):.1f}",
        }


def _any_false(found: list[str]) -> bool:
    return any(verdict in ("gain", "loss") for verdict in found)


def selection(repeats: int) -> Iterable[dict[str, object]]:
    """Which of 64 trials comes first; true accuracies and seeds both have a standard deviation of 0.3 points."""
    ways: list[tuple[int, Callable[[list[Chosen]], Design]]] = [
        (3, lambda chosen: FixedSeeds(chosen, range(3))),
        (4, auto),
        (5, auto),
        (6, lambda chosen: FixedSeeds(chosen, range(2))),
        (6, auto),
        (6, lambda chosen: FixedSeeds(chosen, range(3))),
        (8, auto),
        (9, auto),
    ]
    for top, create in ways:
        rng = np.random.default_rng(0)
        # Plain students do not affect the order of the candidates.
        chosen = [Chosen(one.key, one.config, None, None) for one in candidates(1, top)]
        design = create(chosen)
        hits, regrets = [], []
        for _ in range(2 * repeats):
            true = 0.3 * rng.standard_normal(TRIALS)
            order = np.argsort(-(true + 0.3 * rng.standard_normal(TRIALS)))
            results, _ = confirmed(design, of_trials(rng, true[order]))
            best = true[order[int(first(design, results).split("-")[1])]]
            hits.append(best == true.max())
            regrets.append(true.max() - best)
        each = f" x {design.most // top}" if isinstance(design, FixedSeeds) else ""
        yield {
            "candidates and seeds": f"top {top}{each}" if each else f"auto, top {top}",
            "trainings of candidates": design.most,
            "truly best named (%)": percent(hits),
            "regret (points)": f"{np.mean(regrets):.3f} ± {np.std(regrets) / np.sqrt(len(regrets)):.3f}",
        }


def of_trials(rng: np.random.Generator, true: np.ndarray) -> Measure:
    """Validation results of the candidates of one width."""
    return lambda config, seed: {GOAL.column: true[int(config["lr"])] + 0.3 * rng.standard_normal()}


def first(design: Design, results: Mapping[str, Mapping[str, float]]) -> str:
    """Key of the student with the best mean validation value over its fresh seeds."""

    def mean(one: Evidence) -> float:
        names = named([(one.chosen.config, seed) for seed in one.seeds])
        return float(np.mean([results[name][GOAL.column] for name in names]))

    return max(design.evidence(results), key=mean).chosen.key


def percent(hits: list[Any]) -> str:
    """Format a share as a percentage."""
    return f"{100 * np.mean(hits):.1f}"


if __name__ == "__main__":
    main()
