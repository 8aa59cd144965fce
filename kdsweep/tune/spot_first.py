"""Which machines Ray's autoscaler starts: on-demand ones only while spot ones cannot be had.

Ray's own choice knows nothing of launches that failed, and would ask for the same spot machines again and again.
The head of cluster.yaml names this function in RAY_AUTOSCALER_UTILIZATION_SCORER.
"""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer


def spot_first(
    node_resources: dict[str, Any],
    resources: list[dict[str, Any]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[Any, ...] | None:
    """Score a node type; the autoscaler starts the one with the highest score.

    Args:
        node_resources: What a node of that type has.
        resources: What waiting work needs.
        node_type: Name of the type; one with `spot` in it is preferred to an equal one.
        node_availability_summary: Which types could not be launched lately, and for how long Ray remembers that.

    Returns:
        The score: whether a launch may succeed, then Ray's own score, then whether it is a spot type. None if the type
        can serve nothing.
    """
    score = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if score is None:
        return None
    known = node_availability_summary.node_availabilities.get(node_type)
    return (known is None or known.is_available, *score, "spot" in node_type)
