"""Exported students on the Hugging Face Hub: the folder is a repository that its library reads."""

from __future__ import annotations

import shutil
import sys

import pytest
from inputs import COMMAND, STUDENT, refused

pytest.importorskip("huggingface_hub")

from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.utils import validate_repo_id

from kdsweep import cli
from kdsweep.errors import InputError, KdsweepError
from kdsweep.results.card import card as card_of
from kdsweep.results.export import CARD
from kdsweep.results.frames import load_results
from kdsweep.results.push import push_student
from kdsweep.results.student_config import WEIGHTS, FileFacts, read_config


@pytest.fixture(scope="module")
def folder(swept, tmp_path_factory):
    """An exported student; tests must not change it."""
    (made,) = load_results(swept).export(tmp_path_factory.mktemp("hub"), top=1)
    return made


@pytest.fixture(autouse=True)
def away(monkeypatch, tmp_path):
    """Nothing is sent anywhere, and no token of the user is found."""
    import huggingface_hub.constants as constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def test_the_hubs_library_reads_the_metadata_of_the_card(folder):
    config = read_config(folder)
    card = ModelCard.load(folder / CARD)
    assert card.data.library_name == "kdsweep"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.tags == ["knowledge-distillation"]
    (result,) = card.data.eval_results
    assert card.data.model_name == f"{config.sweep}-{config.trial}"
    assert (result.task_type, result.dataset_name, result.dataset_split) == (
        "image-classification", "mnist_mini", "validation",
    )  # fmt: skip
    assert (result.metric_type, result.metric_value) == ("accuracy", config.val_accuracy)
    assert metadata_load(folder / CARD) == card.data.to_dict()
    assert card.text.lstrip().startswith("# mnist")


@pytest.mark.parametrize("name", ["no", "1e3", "a: b", "- x", "#tag", "---", "'quoted\"", "two\nlines", "null", "{a}"])
def test_names_cannot_change_the_metadata(name, folder):
    config = read_config(folder)
    hostile = config.model_copy(update={"dataset": config.dataset | {"name": name}})
    (result,) = ModelCard(card_of(hostile)).data.eval_results
    assert result.dataset_name == name
    assert isinstance(result.dataset_name, str)


def test_the_metadata_tell_the_formats(folder):
    facts = FileFacts(size_mb=1, compared=10, equal=10, max_difference=0, versions={"torch": "1", "onnxruntime": "1"})
    config = read_config(folder).model_copy(update={"files": dict.fromkeys(("model.onnx", "model.pt2"), facts)})
    assert ModelCard(card_of(config)).data.tags == ["knowledge-distillation", "onnx", "torch.export"]


def test_the_folders_name_is_a_name_for_a_repository(folder):
    validate_repo_id(f"someone/{folder.name}")


# What is refused, before anything is sent


def test_a_folder_that_is_no_student_is_not_pushed(folder, tmp_path):
    with refused(STUDENT, InputError, match=r"not an exported student: config\.json is missing"):
        push_student(tmp_path, "someone/student")
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / WEIGHTS).unlink()
    with refused(STUDENT, InputError, match=r"model\.safetensors is missing; export the student again"):
        push_student(copy, "someone/student")


@pytest.mark.parametrize("repo", ["", "student", "a/b/c", "some one/x", "../x", "someone/", "https://hub/x"])
def test_other_names_than_user_and_name_are_refused(repo, folder):
    with refused(COMMAND, InputError, match="^--repo: found .*; accepted: USER/NAME"):
        push_student(folder, repo)


def test_a_push_without_a_token_says_how_to_get_one(folder):
    with refused(COMMAND, InputError, match="needs a token .*; run hf auth login, or set HF_TOKEN"):
        push_student(folder, "someone/student")


def test_a_push_without_the_package_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with refused(
        COMMAND, InputError, match=r"^push needs huggingface_hub: pip install '\.\[hub\]' in a checkout of kdsweep$"
    ):
        push_student(folder, "someone/student")


def test_a_hub_that_cannot_be_reached_is_reported_in_one_line(folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with pytest.raises(KdsweepError, match="^push to someone/student failed: ") as caught:
        push_student(folder, "someone/student")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(sys, "argv", ["kdsweep", "push", str(folder), "--repo", "someone/student"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("push to someone/student failed: ")
