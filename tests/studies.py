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


def without_times(attributes):
    """The attributes of a trial in a study, without when it started and ended."""
    summary = {key: value for key, value in attributes.get("summary", {}).items() if key != "ended_at"}
    return {key: value for key, value in attributes.items() if key != "started_at"} | {"summary": summary}


def opened(spec):
    """Open the study of a sweep."""
    _open.append(Study(spec, spec.sweep_dir, spec.search_space))
    return _open[-1]
