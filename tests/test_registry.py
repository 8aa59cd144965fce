"""The registry: names found without a list, and objects of the user's own."""

from __future__ import annotations

import sys

import pytest
from inputs import CODE, refused

from kdsweep import registry as own_code
from kdsweep.errors import UnknownNameError, did_you_mean
from kdsweep.registry import Registry, import_from, is_user_object, load_user_object


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `found_things` of two modules that declare something, and one sub-package that must not matter."""
    root = tmp_path / "found_things"
    (root / "inner").mkdir(parents=True)
    (root / "__init__.py").write_text("from kdsweep.registry import Registry\nTHINGS = Registry('thing', __name__)\n")
    for name, value in (("pear", 1), ("apple", 2)):
        (root / f"{name}.py").write_text(f"from found_things import THINGS\nTHINGS.add({name!r}, {value})\n")
    (root / "inner" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield root
    for name in [name for name in sys.modules if name.startswith("found_things")]:
        del sys.modules[name]


def registry():
    from found_things import THINGS

    return THINGS


def test_a_new_module_is_found_without_a_list(package):
    (package / "cherry.py").write_text("from found_things import THINGS\nTHINGS.register('cherry')(3)\n")
    things = registry()
    assert list(things) == ["apple", "cherry", "pear"]
    assert {name: things[name] for name in things} == {"apple": 2, "cherry": 3, "pear": 1}
    assert len(things) == 3
    assert "cherry" in things


def test_modules_are_imported_at_the_first_look(package):
    things = registry()
    assert "found_things.pear" not in sys.modules
    assert "plum" not in things
    assert "found_things.pear" in sys.modules


def test_a_module_that_cannot_be_imported_is_tried_again(package):
    (package / "cherry.py").write_text("raise OSError('the disk was busy')\n")
    things = registry()
    for _ in range(2):  # not a registry that lacks what comes after it
        with pytest.raises(OSError, match="the disk was busy"):
            list(things)
    (package / "cherry.py").write_text("from found_things import THINGS\nTHINGS.add('cherry', 3)\n# mended\n")
    assert list(things) == ["apple", "cherry", "pear"]


def test_an_unknown_name_is_refused_with_the_nearest_and_all_others(package):
    with refused(CODE, UnknownNameError, match=r"^unknown thing 'aple'; did you mean 'apple'\? accepted: apple, pear$"):
        registry()["aple"]
    with refused(CODE, UnknownNameError, match=r"^unknown thing 'zzz'; accepted: apple, pear$"):
        registry()["zzz"]


def test_a_name_declared_twice_is_an_error_of_the_programmer():
    things: Registry[int] = Registry("thing", "nowhere")
    things.add("a", 1)
    with pytest.raises(ValueError, match="thing 'a' is declared twice"):
        things.register("a")(2)


def test_the_nearest_name_is_told_first():
    assert did_you_mean("kdd", ["none", "kd", "at"]) == "did you mean 'kd'? accepted: at, kd, none"
    assert did_you_mean(3, ["none"]) == "accepted: none"


def test_a_users_object_is_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "own_thing.py").write_text("def build():\n    return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert is_user_object("own_thing:build")
    assert not is_user_object("torchvision/resnet18")
    assert load_user_object("own_thing:build", "model")() == 7


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (
            "",
            "gone_thing:build",
            "model 'gone_thing:build': cannot import 'gone_thing': ModuleNotFoundError: No module",
        ),
        ("x = 1\n", "own_thing:build", "model 'own_thing:build': module 'own_thing' has no 'build'"),
        ("raise OSError('first\\nsecond')\n", "own_thing:build", "cannot import 'own_thing': OSError: first"),
        ("def build(:\n", "own_thing:build", "cannot import 'own_thing': SyntaxError"),
        ("raise ValueError\n", "own_thing:build", "cannot import 'own_thing': ValueError: "),
    ],
)
def test_an_object_that_cannot_be_imported_is_refused_in_one_line(source, name, message, tmp_path, monkeypatch):
    (tmp_path / "own_thing.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_thing", raising=False)
    with refused(CODE, UnknownNameError) as caught:
        load_user_object(name, "model")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def code_folder(tmp_path, monkeypatch):
    """A directory registered for user code; the import path is restored afterwards."""
    monkeypatch.setattr(own_code, "_code_folders", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    import_from(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_here", None)


def test_a_directory_is_appended_to_the_path_only_when_an_object_is_loaded(code_folder):
    (code_folder / "own_here.py").write_text("def build():\n    return 7\n")
    before = [*sys.path]
    with refused(CODE, UnknownNameError):
        Registry("thing", "kdsweep.search")["nope"]
    assert sys.path == before
    for _ in range(2):
        assert load_user_object("own_here:build", "model")() == 7
    assert sys.path == [*before, str(code_folder)]


def test_the_directory_registered_last_takes_precedence(code_folder, tmp_path_factory):
    before = [*sys.path]
    folders = [code_folder, tmp_path_factory.mktemp("second"), code_folder]
    for number, folder in enumerate(folders):
        sys.modules.pop("own_here", None)
        (folder / "own_here.py").write_text(f"NUMBER = {number}{' ' * number}\n")
        import_from(str(folder))
        assert load_user_object("own_here:NUMBER", "number") == number
    assert sys.path == [*before, str(folders[0]), str(folders[1])]


def test_user_code_does_not_shadow_installed_modules(code_folder):
    (code_folder / "wave.py").write_text("def build():\n    return 7\n")
    with refused(CODE, UnknownNameError) as caught:
        load_user_object("wave:build", "model")
    assert "module 'wave' has no 'build'; " in str(caught.value)
    assert f" takes precedence over {code_folder / 'wave.py'}; rename the latter" in str(caught.value)


def test_a_module_that_calls_sys_exit_is_reported(code_folder):
    (code_folder / "own_here.py").write_text("import sys\nsys.exit(3)\n")
    with refused(CODE, UnknownNameError, match="cannot import 'own_here': SystemExit: 3"):
        load_user_object("own_here:build", "model")
