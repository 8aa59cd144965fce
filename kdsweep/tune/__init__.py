"""All code that uses Ray. No other package may import it.

Ray reads its settings at import time, so they are set here, before the first import.
"""

from __future__ import annotations

import logging
import os

_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, each worker would build its own environment
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they write files for every trial and report
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed epoch has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # state is kept in the sweep directory, not by Ray Tune
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)

# kdsweep reports failures and full disks itself, and never restores Ray Tune's own state.
for _name in ("ray.tune.tune", "ray.tune.execution.experiment_state"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
# In a notebook without ipywidgets, Ray asks for it when it is imported; nothing of kdsweep needs it.
logging.getLogger("ray.widgets").setLevel(logging.ERROR)
