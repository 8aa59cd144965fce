"""Asks Ray's autoscaler for nodes. Needs its version 2, which `ray up` and KubeRay have; version 1 counts as none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import placement_group, remove_placement_group

LOOK_SECONDS = 1.0


def adds_nodes() -> bool:
    """Whether the cluster has an autoscaler that may add nodes. Its nodes have the names of their types."""
    state = _status()
    if state is None or not state.autoscaling_state.autoscaler_state_version:
        return False
    return any(node.ray_node_type_name for node in state.cluster_resource_state.node_states)


def started(bundle: Mapping[str, float]) -> bool:
    """Wait until a node has a bundle of resources free, such as `{"CPU": 1, "GPU": 1}`. The autoscaler may start one.

    Returns:
        False if the autoscaler says that none of the nodes that it may still start has them.
    """
    asked = placement_group([dict(bundle)])
    try:
        while not asked.wait(LOOK_SECONDS):
            state = _status()
            refused = state.autoscaling_state.infeasible_gang_resource_requests if state is not None else ()
            if any(request.details.startswith(asked.id.hex()) for request in refused):
                return False
    finally:
        remove_placement_group(asked)
    return True


def _status() -> Any:
    """Return what the cluster's autoscaler last reported; None if that cannot be found out.

    `ray.autoscaler.v2.sdk.get_cluster_status` asks in the same way, and leaves out the refused requests.
    """
    try:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

        found = GetClusterStatusReply()
        found.ParseFromString(GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=10))
    except (RayError, ImportError, AttributeError, TypeError):  # parts of Ray that may move
        return None
    return found
