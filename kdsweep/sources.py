"""Hashes of the user's own source files, so that edited code is not mistaken for the code that made a result."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdsweep.registry import is_given, load_user_object
from kdsweep.seeds import digest_of

_KNOWN = ("builtins", "kdsweep", "torch", "typing", "abc")  # packages whose classes are not the user's own
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def user_objects(value: Any) -> set[str]:
    """Return every `package.module:attribute` in nested mappings and lists, also as a term of a sum of methods."""
    if isinstance(value, str):
        return {term for term in value.split("+") if _NAME.fullmatch(term)}
    if isinstance(value, Mapping):
        return user_objects([*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        return {name for inner in value for name in user_objects(inner)}
    return set()


def source_digest(name: str) -> str:
    """Hash the module of `package.module:attribute`, and the modules of the same directory that it imports.

    Returns:
        The digest; of a class that the program gave, that of its source. Empty if the module belongs to an installed
        package, or for a model of the running program, whose name identifies it.

    Raises:
        UnknownNameError: If the object cannot be imported.
    """
    if is_given(name):
        return _digest_of_class(load_user_object(name, "object"))
    files = source_files(name)
    hashes = {path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in files.items()}
    return digest_of(hashes) if hashes else ""


def _digest_of_class(found: object) -> str:
    """Hash the source of a class and of its own bases; empty for anything else."""
    if not inspect.isclass(found):
        return ""
    return digest_of([_source_of(cls) for cls in found.__mro__ if cls.__module__.partition(".")[0] not in _KNOWN])


def _source_of(cls: type) -> list[str]:
    """Return the source of a class, or where a notebook defines it, of its functions."""
    with suppress(OSError, TypeError):
        return [inspect.getsource(cls)]
    sources = [cls.__qualname__]
    for value in vars(cls).values():
        with suppress(OSError, TypeError):
            sources.append(inspect.getsource(value))
    return sources


def source_files(name: str) -> dict[str, Path]:
    """Return the files of the module of `package.module:attribute`, and of those below its directory that it imports.

    Returns:
        The files by their path below the directory of the top-level module; empty if the module belongs to an
        installed package, or for an object of the running program.

    Raises:
        UnknownNameError: If the object cannot be imported.
    """
    load_user_object(name, "object")
    if is_given(name):
        return {}
    module_name = name.partition(":")[0]
    found = getattr(sys.modules[module_name], "__file__", None)
    if not found or _is_installed(Path(found)):
        return {}
    path = Path(found)
    depth = module_name.count(".") + (path.name == "__init__.py")
    root = path.parents[depth]
    return {str(file.relative_to(root)): file for file in sorted(_with_imports(path, root))}


def _is_installed(path: Path) -> bool:
    return any(path.is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))


def _with_imports(path: Path, root: Path) -> set[Path]:
    """Return a source file and all files below `root` that it imports, directly or not."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported(file, root)
    return found


def _imported(file: Path, root: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # a compiled module, or a file that is not imported after all
        return
    package = file.parent.relative_to(root).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            base = start + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield from _files(root, [*base, alias.name])


def _files(root: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files below `root` that importing `parts`, a module or an attribute of one, would execute."""
    for count in range(1, len(parts) + 1):
        at = root.joinpath(*parts[:count])
        yield from (file for file in (at / "__init__.py", at.with_suffix(".py")) if file.is_file())
