"""Hashes of the user's own source files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kdsweep.sources import source_digest, user_objects


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A directory of modules: own_model imports own_parts (a package) and, in a function, own_late."""
    files = {
        "own_model.py": "import json\nfrom own_parts import layers\ndef build():\n    import own_late\n",
        "own_parts/__init__.py": "",
        "own_parts/layers.py": "from . import deep as other\nfrom .inner.cell import size\n",
        "own_parts/deep.py": "x = 1\n",
        "own_parts/inner/__init__.py": "",
        "own_parts/inner/cell.py": "size = 1\n",
        "own_late.py": "y = 1\n",
        "own_unused.py": "z = 1\n",
        "own_unused_too.txt": "z = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


IMPORTED = (
    "own_model.py", "own_parts/__init__.py", "own_parts/layers.py", "own_parts/deep.py", "own_parts/inner/__init__.py",
    "own_parts/inner/cell.py", "own_late.py",
)  # fmt: skip


@pytest.mark.parametrize("name", IMPORTED)
def test_an_edit_in_a_module_or_in_one_that_it_imports_changes_its_hash(name, code):
    before = source_digest("own_model:build")
    (code / name).write_text((code / name).read_text() + "# edited\n")
    assert source_digest("own_model:build") != before


def test_other_files_and_the_place_of_the_directory_do_not_matter(code, tmp_path_factory, monkeypatch):
    before = source_digest("own_model:build")
    (code / "own_unused.py").write_text("z = 2\n")
    (code / "own_model.pyc").write_bytes(b"\x00")
    assert source_digest("own_model:build") == before
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "code"
    code.rename(elsewhere)
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    monkeypatch.syspath_prepend(elsewhere)
    assert source_digest("own_model:build") == before


def test_a_module_in_a_package_is_hashed_with_its_package(code):
    before = source_digest("own_parts.inner.cell:size")
    (code / "own_parts" / "__init__.py").write_text("import own_late\n")
    assert source_digest("own_parts.layers:size") != before
    (code / "own_late.py").write_text("y = 2\n")
    assert source_digest("own_parts.layers:size") != before


def test_a_module_is_hashed_in_a_process_that_has_not_imported_it(code):
    program = (
        "from kdsweep.registry import import_from\nfrom kdsweep.sources import source_digest\n"
        f"import_from({str(code)!r})\nprint(source_digest('own_model:build'))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == source_digest("own_model:build")


@pytest.mark.parametrize("name", ["torch.optim:RMSprop", "json:loads", "math:sqrt", "numpy:asarray"])
def test_installed_modules_have_no_hash(name):
    assert source_digest(name) == ""


def test_user_objects_are_found_wherever_they_are_named():
    spec = {
        "student": {"model": "own:build"},
        "space": {"method": {"choice": ["kd", "at+my.kd:Loss", "none"]}, "my.kd:Loss": {"weight": 1}},
        "points": [{"method": "other:Loss"}],
        "train": {"optimizer": {"name": "own:Adam"}},
        "teacher": {"model": "torchvision/resnet18"},
        "name": "a:b c", "url": "http://x", "time": "12:30",
    }  # fmt: skip
    assert user_objects(spec) == {"own:build", "my.kd:Loss", "other:Loss", "own:Adam"}
