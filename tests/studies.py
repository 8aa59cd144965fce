"""Studies that are closed at the end of each test."""

from __future__ import annotations

import pytest

from kdsweep.search.study import Study

_open = []


@pytest.fixture(autouse=True)
def close_studies():
    """Close what `opened` has opened."""
    yield
    while _open:
        _open.pop().close()


def opened(spec):
    """Open the study of a sweep."""
    _open.append(Study(spec, spec.sweep_dir, spec.search_space))
    return _open[-1]
