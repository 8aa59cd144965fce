"""What a sweep is made from, the data set and the user's own code, must stay the same until it ends."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import SweepDirError
from kdsweep.registry import import_from
from kdsweep.sources import source_digest, user_objects
from kdsweep.storage.files import read_json, write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Prepared
from kdsweep.tasks.recorded import same_data, same_test


def record_data(sweep: SweepDir, data: Prepared, *, scores: bool) -> str:
    """Record the data set in the sweep directory, or compare it with the one that was recorded there.

    The training and validation images are binding. The test images may change until a model is scored on them; after
    that, no further model is scored.

    Args:
        sweep: The sweep's directory.
        data: The data set as it is now.
        scores: Whether models will be scored on the test split.

    Returns:
        A note for the user; empty if there is nothing to say.

    Raises:
        SweepDirError: If the sweep began with other data, so that its results would not be comparable.
    """
    now = {**data.described(), "contents": dict(data.contents), "skipped": dict(data.skipped)}
    before = read_json(sweep.data) if sweep.data.is_file() else now
    then = before.get("contents", {})
    if not same_data(before, data):
        parts = [split for split in ("train", "val") if then.get(split) != data.contents.get(split)]
        which = f" ({' and '.join(parts)})" if then and parts else ""
        raise SweepDirError(
            f"{sweep}: the data set has changed since the sweep began{which}; restore the data or start a new sweep"
        )
    note = ""
    if not same_test(before, data):
        tests = [sweep.teacher_test, *sorted(sweep.root.glob("teachers/*/test.json"))]
        scored = [path for path in tests if path.is_file()] + sorted(sweep.confirmed.glob("*/result.json"))
        if scored and scores:
            raise SweepDirError(
                f"{sweep}: the test split has changed since models were scored on it; restore it, delete "
                f"{sweep.confirmed} and {sweep.teacher_test} to score them again, or resume with --set confirm.top=0"
            )
        if scored:
            now["contents"]["test"] = then.get("test")  # the one that the results are about
        note = "note: the test split has changed since the sweep began"
    write_json(sweep.data, now)
    for name in data.task.files:
        shutil.copyfile(data.root / name, sweep.root / name)
    return note


def record_code(spec: SweepSpec, sweep: SweepDir) -> None:
    """Record hashes of the user's own code in the sweep directory, or compare them with those recorded there.

    Raises:
        SweepDirError: If the code was edited since the sweep began, so that its trials would not be comparable.
        UnknownNameError: If it cannot be imported.
    """
    import_from(str(Path.cwd()))
    sections = spec.model_dump(
        exclude={
            "name": True,
            "storage": True,
            "dataset": {"root": True, "unlabelled": {"root"}},
            "teacher": {"checkpoint", "student"},
            "teachers": {"__all__": {"checkpoint", "student"}},
        }
    )
    now = {}
    for name in sorted(user_objects(sections)):
        if digest := source_digest(name):
            now[name] = digest
    before = read_json(sweep.code) if sweep.code.is_file() else now
    edited = [name for name in now if before.get(name, now[name]) != now[name]]
    if edited:
        raise SweepDirError(
            f"{sweep}: the code of {', '.join(edited)} has changed since the sweep began, so its trials would not "
            "be comparable; undo the edit or start a new sweep"
        )
    if now:
        write_json(sweep.code, now)
