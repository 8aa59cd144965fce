"""Changes to the settings of an existing sweep: those that leave its trials comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from kdsweep.config.load import MOST_TRIALS, tracking_faults, with_absolute_paths
from kdsweep.config.shapes import schema_faults
from kdsweep.config.spec import SweepSpec, differences, read_spec
from kdsweep.config.yaml import Document
from kdsweep.errors import SpecError
from kdsweep.storage.paths import SweepDir

# Trials that began before a change of these settings are comparable with those that begin after it. The data
# set may move, because its content is compared.
CHANGEABLE = (
    "search.trials", "search.plain_share", "confirm.top", "confirm.seeds", "confirm.margin", "resources",
    "dataset.root", "dataset.download", "dataset.skip_unreadable", "teacher.cache_gb", "tracking",
)  # fmt: skip


def changed_spec(sweep: SweepDir, overrides: Mapping[str, Any]) -> SweepSpec:
    """Return the spec of an existing sweep with some values changed.

    Args:
        sweep: The sweep's directory.
        overrides: Values by dotted path, such as `{"search.trials": 8}`.

    Raises:
        SpecError: With one line per invalid value, or per setting that cannot change.
    """
    document, before = Document(sweep.spec), read_spec(sweep)
    for dotted, value in overrides.items():
        document.override(dotted, value)
    try:
        spec = with_absolute_paths(SweepSpec.model_validate(document.values))
        changes = differences(before.model_dump(), spec.model_dump())
    except ValidationError as error:
        raise SpecError(list(dict.fromkeys(document.fault(*fault) for fault in schema_faults(error)))) from error
    faults = [
        f"--set {change}: cannot change in an existing sweep, because its trials would not be comparable; accepted: "
        f"{', '.join(CHANGEABLE)}; or run a new sweep with another --name"
        for change in changes
        if not any(change.startswith((f"{key}:", f"{key}.")) for key in CHANGEABLE)
    ]
    faults += [f"--set {'.'.join(map(str, keys))}: {message}" for _, keys, message in tracking_faults(spec)]
    if not before.search.trials <= spec.search.trials <= MOST_TRIALS:
        accepted = f"from {before.search.trials}, the present total, to {MOST_TRIALS}"
        faults.append(f"--set search.trials: found {spec.search.trials}; accepted: {accepted}")
    if faults:
        raise SpecError(faults)
    return spec
