"""Ships the Python objects that a sweep is made of to its workers: pickled by Ray in memory, never to a file.

A worker unpickles only what its own driver sent through Ray, which sends all functions and arguments in the same way.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from ray import cloudpickle

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError, SweepDirError
from kdsweep.registry import extend_path, give, given, import_from
from kdsweep.storage.paths import SweepDir


def packed(spec: SweepSpec) -> bytes:
    """Pickle the Python objects of a sweep; empty if it has none.

    Raises:
        InputError: If an object cannot be pickled.
    """
    found = {name: (role, _pickled(role, name)) for role, name in spec.given_objects.items()}
    return cloudpickle.dumps((_code_folders(), found)) if found else b""


def unpack(objects: bytes) -> None:
    """Make the objects known in a worker.

    Raises:
        InputError: If one cannot be loaded here.
    """
    folders, found = cloudpickle.loads(objects)
    for folder in reversed(folders):
        import_from(folder)
    extend_path()
    for name, (role, content) in found.items():
        try:
            give(name.partition(":")[2], cloudpickle.loads(content))
        except Exception as error:  # unpickling runs the user's code
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{role}: workers cannot load it: {reason}; accepted: classes and functions of the notebook or script "
                "itself, of modules beside it, or of installed packages"
            ) from error


def need_objects(spec: SweepSpec, sweep: SweepDir) -> None:
    """Check that this process has the Python objects of a sweep.

    Raises:
        SweepDirError: If it lacks one.
    """
    try:
        for name in spec.given_objects.values():
            given(name)
    except InputError:
        made_from = ", ".join(f"{role} {name.partition(':')[2]}" for role, name in spec.given_objects.items())
        raise SweepDirError(
            f"{sweep}: was made from Python objects ({made_from}); continue it with the same call of "
            f"kdsweep.sweep(..., name={spec.name!r})"
        ) from None


def _pickled(role: str, name: str) -> bytes:
    try:
        content: bytes = cloudpickle.dumps(given(name))
    except Exception as error:  # pickling runs the user's code
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{role}: cannot be sent to workers: {reason}; accepted: objects that pickle, without locks, open files or "
            "generators"
        ) from error
    return content


def _code_folders() -> list[str]:
    """The directories of `sys.path` from which the program imports its own modules."""
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders = [Path(entry or ".").absolute() for entry in sys.path]
    own = (folder for folder in folders if folder.is_dir() and not any(folder.resolve() == path for path in installed))
    return list(dict.fromkeys(map(str, own)))
