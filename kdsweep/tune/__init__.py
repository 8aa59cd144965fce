"""Everything that touches Ray, and nothing else may.

Ray reads its settings when it is imported, so they stand here, before that.
"""

from __future__ import annotations

import logging
import os

_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, every worker would build an environment of its own
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files per trial and per report that nobody asked for
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an epoch that failed has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # the sweep directory remembers, not Ray Tune
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)

# That trials failed or that a disk is full kdsweep says itself, and Ray Tune's own state is never restored.
for _name in ("ray.tune.tune", "ray.tune.execution.experiment_state"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
