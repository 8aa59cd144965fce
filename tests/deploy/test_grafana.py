"""deploy/grafana.json: Grafana's own model of a dashboard takes every key, and every metric in it exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from misspelling import misspelt

from kdsweep.tune.observed import COUNTERS, GAUGES, tags_of

DASHBOARD = json.loads((Path(__file__).parents[2] / "deploy/grafana.json").read_text(encoding="utf-8"))


def is_kept(given) -> bool:
    """Whether a dashboard is the same after Grafana's model has read and written it: it drops unknown keys."""
    try:
        back = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return holds(back, given)


def holds(whole, part) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(holds(*pair) for pair in zip(whole, part, strict=True))
    return whole == part


def test_no_key_of_the_dashboard_can_be_misspelt():
    plugins.register_default_plugins()
    assert is_kept(DASHBOARD)
    first_of_each_kind = {panel["type"]: panel for panel in reversed(DASHBOARD["panels"])}
    small = {**DASHBOARD, "panels": list(first_of_each_kind.values())}
    free = frozenset({"datasource"})  # which Grafana's model takes as it is in some places
    assert [path for path, changed in misspelt(small, free) if is_kept(changed)] == []
    parts = [*DASHBOARD["panels"], *(target for panel in DASHBOARD["panels"] for target in panel["targets"])]
    source, sweep = DASHBOARD["templating"]["list"]
    for part in (*parts, sweep):
        assert part["datasource"] == {"type": "prometheus", "uid": f"${{{source['name']}}}"}


def test_every_metric_and_label_of_the_dashboard_exists():
    exported = {f"ray_{name}": tags_of(name) for name in GAUGES} | {
        f"ray_{name}_total": tags_of(name) for name in COUNTERS
    }
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in DASHBOARD["templating"]["list"]]
    found = set()
    for query in queries:
        for name, labels in re.findall(r"(ray_\w+)(\{[^}]*\})?", query):
            assert name in exported
            assert set(re.findall(r"(\w+)=~?\"", labels)) <= set(exported[name])
            found.add(name)
    assert found == set(exported)  # and every metric is shown


def test_panels_do_not_overlap_and_have_numbers_of_their_own():
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
