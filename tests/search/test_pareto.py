"""Ranks, crowding and hypervolume, against definitions written out and numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kdsweep.search import pareto


@pytest.fixture(params=[(0, 2), (1, 3), (2, 2)])
def scores(request):
    """60 rows on a coarse grid, so that there are ties and equal rows."""
    seed, objectives = request.param
    return np.random.default_rng(seed).integers(0, 8, size=(60, objectives)).astype(float)


def dominates(one, other):
    return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def test_a_rank_is_one_more_than_the_worst_rank_of_those_that_dominate(scores):
    ranks = pareto.ranks(scores)
    for place, row in enumerate(scores):
        above = [rank for other, rank in zip(scores, ranks, strict=True) if dominates(other, row)]
        assert ranks[place] == (max(above) + 1 if above else 0)
    assert list(pareto.ranks(np.empty((0, 2)))) == []


def test_crowding_by_hand():
    # Spans are 4 and 8: (3 - 0) / 4 + (8 - 4) / 8 and (4 - 1) / 4 + (5 - 0) / 8.
    found = pareto.crowding([[0.0, 8.0], [1.0, 5.0], [3.0, 4.0], [4.0, 0.0]])
    assert list(found) == [np.inf, 1.25, 1.375, np.inf]


def test_ahead_are_better_ranks_and_then_less_crowded_places_but_never_equals():
    scores = {"a": (0.0, 8.0), "b": (1.0, 5.0), "c": (3.0, 4.0), "d": (4.0, 0.0), "e": (0.0, 4.0), "f": (3.0, 4.0)}
    assert [pareto.ahead(scores, key) for key in "ade"] == [0, 0, 5]
    assert pareto.ahead({key: scores[key] for key in "abcd"}, "b") == 3
    assert pareto.ahead({key: scores[key] for key in "abcd"}, "c") == 2
    assert pareto.ahead({"x": (1.0, 1.0), "y": (1.0, 1.0)}, "x") == 0
    assert pareto.ahead(scores, "c") == pareto.ahead(scores, "f")


def test_a_front_holds_what_nothing_dominates_and_equals_once(scores):
    rows = [tuple(row) for row in scores]
    expected = {row for row in rows if not any(dominates(other, row) for other in rows)}
    found = [rows[place] for place in pareto.front(scores)]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert [row[0] for row in found] == sorted((row[0] for row in found), reverse=True)
    assert all(place == rows.index(rows[place]) for place in pareto.front(scores))


def test_the_hypervolume_by_hand_and_by_counting_cells(scores):
    assert pareto.hypervolume([[2.0, 1.0], [1.0, 3.0]], [0.0, 0.0]) == 4.0
    assert pareto.hypervolume([[2.0, 1.0], [1.0, 3.0]], [1.0, 0.0]) == 1.0
    assert pareto.hypervolume([[1.0, 2.0, 3.0], [2.0, 1.0, 1.0]], [0.0, 0.0, 0.0]) == 7.0
    assert pareto.hypervolume(np.empty((0, 2)), [0.0, 0.0]) == 0.0
    cells = itertools.product(range(8), repeat=scores.shape[1])
    counted = sum(bool((scores >= np.array(cell) + 1).all(axis=1).any()) for cell in cells)
    assert pareto.hypervolume(scores, [0.0] * scores.shape[1]) == counted


def test_an_archive_does_not_depend_on_the_order(scores):
    found = []
    for order in (range(len(scores)), reversed(range(len(scores)))):
        archive = pareto.Archive()
        for number in order:
            archive.add(number, tuple(scores[number]))
        found.append((list(archive.least_crowded(100)), list(archive.least_crowded(3))))
    assert found[0] == found[1]
    assert {tuple(scores[number]) for number in found[0][0]} == {tuple(scores[n]) for n in pareto.front(scores)}


def test_positions_are_spread_from_end_to_end():
    assert pareto.spread_out(2, 3) == [0, 1]
    assert pareto.spread_out(9, 3) == [0, 4, 8]
    assert pareto.spread_out(9, 1) == [0]
    assert pareto.spread_out(9, 0) == []
