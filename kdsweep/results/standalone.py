"""`model.py` of an exported student: its architecture in plain PyTorch, copied from the family's own source."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from typing import Any

from kdsweep.errors import KdsweepError
from kdsweep.lazy import nn
from kdsweep.models import MODELS
from kdsweep.results.student_config import StudentConfig

MODEL = "model.py"
_PACKAGE = "kdsweep."
_INDENT = " " * 4


def stands_alone(config: StudentConfig) -> bool:
    """Whether a student can have a `model.py`: an image student of a built-in family, without a method's own head."""
    if config.model not in MODELS or config.head or config.task != "image":
        return False
    return MODELS[config.model].build.__module__.startswith(f"{_PACKAGE}models.")


def model_file(config: StudentConfig, model: nn.Module) -> str:
    """Write the source of a student; see `stands_alone`.

    Args:
        config: Description of the student.
        model: The student without its normalisation.

    Returns:
        A module with `load(folder)`, which needs torch and safetensors, and a class `Student`.
    """
    from kdsweep.models.blocks.normalise import normalise

    copied = _Copied()
    copied.add(normalise)
    base, arguments = _root(model, copied)
    return _FILE.format(
        model=config.model,
        width=f"{config.width:g}",
        shape=", ".join(map(str, config.input_shape)),
        version=config.kdsweep,
        imports=_sorted(copied.imports | _IMPORTS),
        sources="\n\n\n".join(copied.sources.values()),
        base=base,
        arguments=arguments,
        names=ascii(config.class_names),
        mean=list(config.mean),
        std=list(config.std),
    )


def _root(model: nn.Module, copied: _Copied) -> tuple[str, str]:
    """The class that `Student` extends, and the arguments of its constructor."""
    if type(model) is nn.Sequential:
        return "nn.Sequential", _ordered(model, copied, 2)
    copied.add(type(model))
    given = model.arguments
    assert isinstance(given, dict)
    return type(model).__name__, ", ".join(f"{name}={value!r}" for name, value in given.items())


def _built(module: nn.Module, copied: _Copied, depth: int) -> str:
    """The expression that builds a module of PyTorch."""
    if type(module) is not nn.Sequential:
        assert type(module).__module__.startswith("torch.nn.modules.")
        return f"nn.{module!r}".replace("=-inf", '=float("-inf")')
    names = [name for name, _ in module.named_children()]
    if names != [str(place) for place in range(len(names))]:
        return f"nn.Sequential({_ordered(module, copied, depth)})"
    inner = "".join(f"{_INDENT * (depth + 1)}{_built(child, copied, depth + 1)},\n" for child in module)
    return f"nn.Sequential(\n{inner}{_INDENT * depth})"


def _ordered(module: nn.Module, copied: _Copied, depth: int) -> str:
    copied.imports.add("from collections import OrderedDict")
    inner = "".join(
        f"{_INDENT * (depth + 1)}{name}={_built(child, copied, depth + 1)},\n"
        for name, child in module.named_children()
    )
    return f"OrderedDict(\n{inner}{_INDENT * depth})"


def _sorted(imports: set[str]) -> str:
    """Import statements, those of the standard library first."""
    own = {line for line in imports if line.split()[1].partition(".")[0] in sys.stdlib_module_names}
    return "\n\n".join("\n".join(sorted(group)) for group in (own, imports - own))


class _Copied:
    """Source of functions and classes of kdsweep, with that of everything of kdsweep that they use.

    Attributes:
        sources: Source by name; what is used comes first.
        imports: Import statements of everything else that they use.
    """

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.imports: set[str] = set()

    def add(self, item: Any) -> None:
        """Copy a function or class."""
        if item.__name__ in self.sources:
            return
        if isinstance(item, type) and issubclass(item, KdsweepError):
            self.sources[item.__name__] = f"{item.__name__} = ValueError"
            return
        source = inspect.getsource(item).rstrip()
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        for name in sorted(names - {item.__name__}):
            self._add_global(name, sys.modules[item.__module__])
        self.sources[item.__name__] = source

    def _add_global(self, name: str, module: Any) -> None:
        value = vars(module).get(name)
        if value is None or hasattr(builtins, name):
            return
        if (getattr(value, "__module__", "") or "").startswith(_PACKAGE):
            self.add(value)
            return
        for node in ast.parse(inspect.getsource(module)).body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    module_of = node.module if isinstance(node, ast.ImportFrom) else ""
                    statement = ast.ImportFrom(module_of, [alias], 0) if module_of else ast.Import([alias])
                    self.imports.add(ast.unparse(statement))


_IMPORTS = {
    "import torch",
    "from pathlib import Path",
    "from safetensors.torch import load_file",
    "from torch import nn",
}

_FILE = '''"""The student of this folder in plain PyTorch: {model}, width {width}.

It needs torch and safetensors, not kdsweep:

    from model import load

    student = load(".")  # this folder
    logits = student(images)  # images [B, {shape}] in 0..1, or of type uint8

With huggingface_hub, `Student.from_pretrained(FOLDER_OR_REPOSITORY)` loads it too. Copied from the source of kdsweep
{version}.
"""

from __future__ import annotations

{imports}

try:
    from huggingface_hub import PyTorchModelHubMixin
except ImportError:  # needed for from_pretrained alone

    class PyTorchModelHubMixin:
        pass


{sources}


class Student({base}, PyTorchModelHubMixin):
    """Takes images [B, {shape}] in 0..1, or of type uint8, and returns logits [B, classes]."""

    class_names = {names}

    def __init__(self) -> None:
        super().__init__({arguments})
        self.register_buffer("mean", torch.tensor({mean}).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor({std}).view(-1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise the images, then compute the logits."""
        return super().forward(normalise(images, self.mean, self.std))


def load(folder: str | Path = ".") -> Student:
    """Load the student of a folder, in eval mode."""
    student = Student()
    student.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return student.eval()
'''
