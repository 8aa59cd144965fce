"""What Ray says about a worker that it could not start, or about versions that differ, in one line."""

from __future__ import annotations

import re

_STARTS = ("RuntimeEnvSetupError", "ActorUnschedulableError", "TaskUnschedulableError")
_RUNTIME_ENV = "Failed to set up runtime environment."
_RAISED, _NODE = re.compile(r"[\w.]+(Error|Exception|Exit): \S"), re.compile(r"\[Node ([^\]]+)\]")
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")
MOST_CHARACTERS = 400


def start_failure(log: str) -> str:
    """Return why Ray could not start a worker; empty if the worker was lost for another reason.

    Args:
        log: What Ray Tune has logged about the failures of one piece of work; the last one counts.
    """
    last = log.rpartition("Failure # ")[2]
    if _RUNTIME_ENV in last or _STARTS[0] in last:
        return f"Ray could not set up the runtime environment of a worker: {_reason(last, _RUNTIME_ENV)}"
    for name in _STARTS[1:]:
        if name in last:
            return f"Ray could not place a worker on any node: {_reason(last, name)}"
    return ""


def _reason(text: str, after: str) -> str:
    """Return what was raised, with the node, from the text behind the last occurrence of another; else all of it."""
    found = text.rpartition(after)[2]
    raised = [line.strip() for line in found.splitlines() if _RAISED.match(line.strip())]
    node = _NODE.search(found)
    told = (
        f"{raised[-1]} (node {node[1]})"
        if raised and node
        else raised[-1]
        if raised
        else " ".join(found.split()).lstrip(": ")
    )
    return told if len(told) <= MOST_CHARACTERS else f"{told[:MOST_CHARACTERS]} ..."


def version_mismatch(error: str) -> str:
    """Return in one line that the versions of a cluster and of this process differ; empty for other errors.

    Args:
        error: What Ray raised on connecting.
    """
    found = _VERSIONS.findall(error)
    if "Version mismatch" not in error or len(found) != 2:
        return ""
    (ray, python), (own_ray, own_python) = found
    advice = f"pip install 'ray=={ray}'" if ray != own_ray else f"Python {python}"
    return (
        f"the cluster runs Ray {ray} on Python {python}, this process Ray {own_ray} on Python {own_python}; they "
        f"must be equal, so use here what the cluster has: {advice}"
    )
