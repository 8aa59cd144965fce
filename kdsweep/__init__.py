"""kdsweep: hyperparameter sweeps for knowledge distillation.

    spec = kdsweep.load_spec("search_spaces/quickstart.yaml", {"search.trials": 8})
    results = kdsweep.run(spec)
    results.export("students", top=3)

Public names are imported at their first use, so that `import kdsweep` loads neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsweep.config.load import load_spec
    from kdsweep.config.spec import SweepSpec
    from kdsweep.errors import Interrupted, KdsweepError, SpecError
    from kdsweep.methods import METHODS, Method, Outputs
    from kdsweep.results.frames import Results, load_results
    from kdsweep.results.student import load_student
    from kdsweep.tune.driver import confirm, resume, run
    from kdsweep.tune.objects import sweep

_HOMES = {
    "METHODS": "kdsweep.methods",
    "Interrupted": "kdsweep.errors",
    "KdsweepError": "kdsweep.errors",
    "Method": "kdsweep.methods",
    "Outputs": "kdsweep.methods",
    "Results": "kdsweep.results.frames",
    "SpecError": "kdsweep.errors",
    "SweepSpec": "kdsweep.config.spec",
    "confirm": "kdsweep.tune.driver",
    "load_results": "kdsweep.results.frames",
    "load_spec": "kdsweep.config.load",
    "load_student": "kdsweep.results.student",
    "resume": "kdsweep.tune.driver",
    "run": "kdsweep.tune.driver",
    "sweep": "kdsweep.tune.objects",
}

__all__ = [
    "METHODS",
    "Interrupted",
    "KdsweepError",
    "Method",
    "Outputs",
    "Results",
    "SpecError",
    "SweepSpec",
    "confirm",
    "load_results",
    "load_spec",
    "load_student",
    "resume",
    "run",
    "sweep",
]


_PACKAGES = ("datasets", "methods", "models")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"kdsweep.{name}")
    if name == "__version__":
        return version("kdsweep")
    if name not in _HOMES:
        raise AttributeError(f"module 'kdsweep' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES, "__version__"])
