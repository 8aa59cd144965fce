"""Text classification on a small real corpus: which of ten languages a sentence is in."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import corpus
import numpy as np
import pytest
import torch
from inputs import CODE, DATA, SPEC, refused
from safetensors.torch import load_file

import kdsweep
from kdsweep import datasets, methods, models, tasks
from kdsweep.config.load import load_spec
from kdsweep.datasets import Source
from kdsweep.datasets.section import LEAST_TOKENS, DatasetSpec
from kdsweep.errors import DataError, InputError, MethodError, ModelError, SpecError
from kdsweep.methods import Outputs
from kdsweep.methods import stages as method_stages
from kdsweep.models import InputSpec
from kdsweep.results import deploy
from kdsweep.results.student import evaluate_student
from kdsweep.storage.paths import Store
from kdsweep.tasks.text.student import TextStudent
from kdsweep.tasks.text.tokens import Tokens, train
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
TEXTS = InputSpec((16,), "int64", 300, 0)
SMALL_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
FAMILIES = [
    ("text_transformer", {"depth": 3}),
    ("bilstm", {"depth": 2}),
    ("transformers/bert", SMALL_BERT),
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    return corpus.write(tmp_path_factory.mktemp("corpus"))


def sweep(texts: Path, storage: Path, **more) -> dict:
    """A small sweep over the corpus."""
    return {
        "name": "languages",
        "dataset": {
            "name": "text_files", "root": str(texts), "val_fraction": 0.25, "subset": 1600,
            "text": {"length": 32, "vocabulary": 1000},
        },
        "teacher": {"model": "bilstm", "width": 1.0, "train": {"epochs": 8, "batch_size": 64, "lr": 1e-2}},
        "student": {"model": "bilstm"},
        "space": {
            "method": ["kd", "hint", "none"], "width": {"choice": [0.25, 0.5]}, "temperature": {"loguniform": [2, 8]},
            "alpha": {"uniform": [0.3, 0.9]}, "lr": {"loguniform": [5e-3, 2e-2]},
        },
        "train": {"epochs": 3, "batch_size": 64},
        "search": {"trials": 6, "startup_trials": 3},
        "scheduler": {"grace_epochs": 1},
        "confirm": {"top": 1, "seeds": 2},
        "storage": str(storage),
        **more,
    }  # fmt: skip


def tapped(name, options, spec=TEXTS):
    torch.manual_seed(0)
    model = models.build(name, spec, 5, **options).eval()
    return models.TappedTexts(model, models.taps(name, model, spec), spec)


# Models


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(("name", "options"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_padding_changes_no_output(name, options, padding):
    spec = InputSpec((16,), "int64", 300, padding)
    model = tapped(name, options, spec)
    tokens = torch.randint(8, 300, (3, 9))
    tokens[1, 4:] = padding
    full = torch.nn.functional.pad(tokens, (0, 7), value=padding)
    with torch.no_grad():
        whole, cut, alone = model(full), model(tokens), model(tokens[1:2, :4])
    assert whole.logits.std() > 0.01 * whole.logits.abs().max()
    for parts in zip(
        (whole.logits, whole.embedding, *whole.features), (cut.logits, cut.embedding, *cut.features), strict=True
    ):
        torch.testing.assert_close(*parts, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.logits[1], alone.logits[0], atol=1e-5, rtol=1e-5)
    for states, those in zip(whole.features, alone.features, strict=True):
        assert states.shape[:2] == (3, 16)
        assert not states[1, 4:].any()
        assert states[1, :4].any(dim=1).all()
        torch.testing.assert_close(states[1], those[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["text_transformer", "bilstm"])
@pytest.mark.parametrize("options", [{}, {"depth": 3}])
@pytest.mark.parametrize("width", [0.1, 0.25, 1, 1.5])
def test_a_blueprint_tells_what_a_model_for_texts_is(name, options, width):
    model = models.build(name, TEXTS, 5, width, **options)
    told = models.describe(name, TEXTS, 5, width, **options)
    assert told.state == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert (told.parameters, told.size_mb) == (models.count_parameters(model), models.size_mb(model))
    shown = models.TappedTexts(model.eval(), models.taps(name, model, TEXTS), TEXTS)(TEXTS.example(2)).shapes()
    assert told.shown == shown
    assert len(shown.features) == options.get("depth", {"text_transformer": 2, "bilstm": 1}[name])
    if name == "text_transformer":
        counted = models.count_flops(model, TEXTS.example(1))
        assert models.flops(name, TEXTS, 5, width, **options) == counted


def test_operations_of_a_bilstm_are_those_of_its_eight_matrices():
    # 16 tokens, size 64: per direction 4 gates of 64 values from 64 inputs and 64 states.
    assert models.flops("bilstm", TEXTS, 5) == 2 * (16 * 2 * 4 * 64 * (64 + 64) + 5 * 128)


def test_the_second_direction_reads_a_text_from_its_last_token():
    model = models.build("bilstm", TEXTS, 5).eval()
    layer = model.layers[0]
    tokens = torch.randint(8, 300, (1, 16))
    tokens[0, 5:] = 0
    with torch.no_grad():
        embedded = model.tokens(tokens[:, :5])
        behind, _ = layer.backwards(embedded.flip(1))
        ahead, _ = layer.forwards(embedded)
        expected = model.head(torch.cat([ahead, behind.flip(1)], dim=2).mean(dim=1))
        torch.testing.assert_close(model(tokens), expected)


@pytest.mark.parametrize(
    ("name", "given", "options", "message"),
    [
        (
            "lightnn",
            TEXTS,
            {},
            r"model 'lightnn' takes images, and the data set has texts; accepted: .*text_transformer",
        ),
        ("bilstm", (3, 32, 32), {}, r"model 'bilstm' takes texts, and the data set has images"),
        ("bilstm", TEXTS, {"depth": 0}, r"depth is 0; accepted: a whole number above 0"),
        ("bilstm", TEXTS, {"vocabulary": 9}, r"the data set decides 'vocabulary'; accepted: leave it out"),
        ("text_transformer", TEXTS, {"dropout": 1}, r"dropout is 1; accepted: a number from 0 to below 1"),
        ("text_transformer", TEXTS, {"dept": 1}, r"no option 'dept'; did you mean 'depth'"),
        ("transformers/brt", TEXTS, {}, r"unknown transformers model type 'brt'; did you mean 'bert'"),
        ("transformers/bert", TEXTS, {"vocab_size": 99}, r"knows 99 tokens and the tokenizer has 300"),
        ("transformers/bert", TEXTS, {"auto_map": {}}, r"auto_map means code of its own, which is not run"),
    ],
)
def test_a_model_that_does_not_fit_texts_is_refused(name, given, options, message):
    with refused(CODE, InputError, match=message):
        models.build(name, given, 5, **options)


# Hidden states in methods


def states(seed: int, size: int, layers: int = 2) -> Outputs:
    """Outputs for two texts of 3 and 6 tokens, padded to 8."""
    draw = torch.Generator().manual_seed(seed)
    found = torch.randn(layers, 2, 8, size, generator=draw)
    found[:, 0, 3:], found[:, 1, 6:] = 0, 0
    return Outputs(torch.randn(2, 5, generator=draw), torch.randn(2, size, generator=draw), tuple(found))


LABELS = torch.tensor([0, 1])


def test_hint_is_the_mean_over_tokens_alone():
    student, teacher = states(0, 4), states(1, 6)
    method = methods.create("hint", student, teacher, kernel_size=1)
    weight, bias = (part.detach().numpy() for part in method.adapters.parameters())
    ours, theirs = student.features[-1].numpy(), teacher.features[-1].numpy()
    errors = [
        (ours[b, t] @ weight[:, :, 0].T + bias - theirs[b, t]) ** 2 for b, n in ((0, 3), (1, 6)) for t in range(n)
    ]
    assert float(method(student, teacher, LABELS).detach()) == pytest.approx(np.mean(errors), rel=1e-5)


def test_at_compares_which_tokens_are_active_in_evenly_paired_layers():
    student, teacher = states(0, 4, layers=2), states(1, 6, layers=4)
    method = methods.create("at", student, teacher)
    total = 0.0
    for i, j in ((0, 1), (1, 3)):
        maps = [(parts.features[at].numpy() ** 2).mean(axis=2) for parts, at in ((student, i), (teacher, j))]
        q, p = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in maps)
        total += ((q - p) ** 2).mean()
    assert float(method(student, teacher, LABELS).detach()) == pytest.approx(total, rel=1e-5)
    reduced = teacher._replace(features=tuple(method_stages.attention_map(part) for part in teacher.features))
    assert float(method(student, reduced, LABELS)) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", ["at", "hint", "nst", "sp"])
def test_what_works_on_hidden_states_trains_the_student(name):
    student, teacher = states(0, 4), states(1, 6)
    for part in student.features:
        part.requires_grad_()
    method = methods.create(name, student, teacher)
    method(student, teacher, LABELS).backward()
    assert student.features[-1].grad[:, :3].any()
    methods.fit(name, student.shapes(), teacher.shapes())


@pytest.mark.parametrize("name", ["nst", "sp", "at"])
def test_equal_hidden_states_have_no_loss(name):
    student = states(0, 4)
    assert float(methods.create(name, student, student)(student, student, LABELS)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["vid", "ofd", "reviewkd", "simkd", "cosine"])
def test_methods_for_maps_refuse_hidden_states(name):
    with refused(CODE, MethodError, match=r"accepted: .*map"):
        methods.fit(name, states(0, 4).shapes(), states(1, 6).shapes(), **({"flat": 1} if name == "cosine" else {}))


def test_hidden_states_of_one_model_and_maps_of_the_other_are_refused():
    maps = states(1, 6)._replace(features=(torch.zeros(2, 6, 4, 4),))
    for name in ("hint", "at", "nst"):
        with refused(CODE, MethodError, match=r"accepted: .*hidden states \[B, T, D\]"):
            methods.fit(name, states(0, 4).shapes(), maps.shapes())


# Data sets


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


def rows(root: Path, split="train", **more):
    source = Source(root, **more)
    dataset = datasets.get("text_files")
    found = dataset.read(source, split)
    return list(found.images), [dataset.describe(source).class_names[label] for label in found.labels]


EXPECTED = (['say "hi", you', "123", "größer\nals"], ["b", "a", "b"])


def test_every_kind_of_file_gives_the_same_texts(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = "".join(json.dumps({"label": label, "text": text}) + "\n" for text, label in zip(*EXPECTED, strict=True))
    table = pa.table({"text": EXPECTED[0], "label": EXPECTED[1]})
    quoted = 'text,label\n"say ""hi"", you",b\n123,a\n"größer\nals",b\n'
    for name, content in {"jsonl": lines, "csv": quoted, "tsv": quoted.replace("you", "you", 1)}.items():
        folder = tmp_path / name
        folder.mkdir()
        if name == "tsv":
            content = 'text\tlabel\n"say ""hi"", you"\tb\n123\ta\n"größer\nals"\tb\n'
        (folder / f"train.{name}").write_text(content, encoding="utf-8")
        assert rows(folder) == EXPECTED
        assert rows(folder / f"train.{name}") == EXPECTED
    pq.write_table(table, tmp_path / "train.parquet")
    assert rows(tmp_path) == EXPECTED
    for place, (text, label) in enumerate(zip(*EXPECTED, strict=True)):
        parent = tmp_path / "folders" / "train" / label
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{place}.txt").write_text(text, encoding="utf-8")
    assert sorted(zip(*rows(tmp_path / "folders"), strict=True)) == sorted(zip(*EXPECTED, strict=True))


def test_columns_and_the_order_of_classes_can_be_named(tmp_path):
    root = write(tmp_path, train_csv="sentence,number\nx,10\ny,9\nz,10\n")
    source = Source(root, columns=("sentence", "number"))
    assert datasets.get("text_files").describe(source).class_names == ("9", "10")  # by size, not by the alphabet
    source = Source(root, columns=("sentence", "number"), classes=("10", "9"))
    assert datasets.get("text_files").read(source, "train").labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no training texts; accepted: a dataset\.root with train"),
        ({"train_csv": "text,label\nx,a\n"}, r"found 'a'; accepted: at least 2 different labels"),
        (
            {"train_csv": "words,label\nx,a\n"},
            r"no column 'text'; found 'words', 'label'; .*text\.text_column",
        ),
        ({"train_csv": "text,label\nx,\n"}, r"row 1: the label is missing; accepted: a word or a whole number"),
        ({"train_jsonl": '{"text": "x", "label": "a"}\n{"label": "b"}\n'}, r"row 2: the text is missing"),
        ({"train_jsonl": '{"text": "x", "label": 1.5}\n'}, r"row 1: the label is '1\.5'; accepted: a word or a whole"),
        ({"train_jsonl": '{"text": '}, r"unreadable: JSON parse error"),
        ({"train_csv": "text,label\nx,a\ny,b\n", "train_tsv": ""}, r"found train\.csv and train\.tsv; accepted: one"),
        ({"train_parquet": "no"}, r"train\.parquet: unreadable: "),
        ({"train_csv": "text,label\nx,a\ny,b\n", "test_csv": "text,label\nz,c\n"}, r"found the label 'c'; .*'a', 'b'"),
    ],
)
def test_files_without_texts_and_labels_are_refused(files, message, tmp_path):
    root = write(tmp_path, **files)
    with refused(DATA, DataError, match=message):
        rows(root)
        rows(root, "test")


OWN = """
import kdsweep.datasets

@kdsweep.datasets.texts
def messages(source, split):
    if split not in ("train", "test"):
        raise ValueError(split)
    return ["good", "bad", "fine"], [1, 0, 1], ["no", "yes"]

@kdsweep.datasets.texts
def words(source, split):
    return ["good", "bad"], ["yes", "no"]

@kdsweep.datasets.texts
def short(source, split):
    return ["good", "bad"], ["yes"]

@kdsweep.datasets.texts
def numbers(source, split):
    return [1, 2], ["yes", "no"]

def unmarked(source, split):
    return ["good", "bad"], [0, 1]
"""


def test_a_function_gives_texts(tmp_path, monkeypatch):
    (tmp_path / "own_messages.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    found = datasets.get("own_messages:messages")
    source = Source(tmp_path)
    assert found.task == "text"
    assert found.describe(source).class_names == ("no", "yes")
    assert found.describe(source).splits == ("train", "test")
    assert found.read(source, "test").labels.tolist() == [1, 0, 1]
    assert datasets.get("own_messages:words").describe(source).class_names == ("no", "yes")
    for name, message in (
        ("short", r"2 texts but 1 label;"),
        ("numbers", r"text 0 is an int; accepted: strings"),
        ("unmarked", r"images are <U4; texts need the decorator kdsweep\.datasets\.texts"),
    ):
        with refused(CODE, DataError, match=message):
            datasets.get(f"own_messages:{name}").describe(source)
    sys.modules.pop("own_messages")


# Tokens


def test_a_trained_tokenizer_is_the_same_again_and_reads_any_text(texts, tmp_path):
    spec = DatasetSpec(name="text_files", root=str(texts), text={"length": 12, "vocabulary": 500})
    first, second = (tasks.of(spec).prepare(spec, 0, Store(tmp_path / name)) for name in ("a", "b"))
    assert (first.root / "tokenizer.json").read_bytes() == (second.root / "tokenizer.json").read_bytes()
    assert first.digest == second.digest
    known = Tokens(first.root / "tokenizer.json", 12)
    assert known.decode(known.encode(["Where do you go?", "Ja"])) == ["where do you go?", "ja"]
    assert (known.vocabulary, known.padding) == (500, 0)
    empty, words, upper, other, long = known.encode(["", "hello you", "HELLO you", "你好 🙂", "a" * 99 + " b" * 99])
    assert (empty != 0).sum() == 1  # the start
    assert words.tolist() == upper.tolist() != other.tolist()
    assert (long != 0).all()
    split = first.split("val", CPU)
    batch, labels = next(iter(split.batches(64)))
    assert batch.dtype == torch.int64
    assert batch.shape[1] % 4 == 0
    assert len(batch) == len(labels) == 64
    index = torch.tensor([3, 1])
    (sequence,) = split.sequence([index])
    torch.testing.assert_close(split.batch(index)[:, : sequence.shape[1]], sequence)
    assert not split.batch(index)[:, sequence.shape[1] :].any()


def test_a_tokenizer_from_a_file_keeps_its_own_padding(texts, tmp_path):
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(kinds.WordLevel({"you": 0, "<unk>": 1, "are": 2, "<pad>": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    known = Tokens(path, 4)
    assert (known.vocabulary, known.padding) == (4, 3)
    assert known.encode(["you are", "", "are you you are you"]).tolist() == [[0, 2, 3, 3], [3] * 4, [2, 0, 0, 2]]
    spec = load_spec(sweep(texts, tmp_path), {"dataset.text": {"tokenizer": str(path), "length": 8}})
    data = tasks.of(spec.dataset).prepare(spec.dataset, 0, Store(tmp_path / "store"))
    assert data.input_spec == InputSpec((8,), "int64", 4, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset.augment": "flip"}, r"dataset\.augment: found 'flip'; accepted: 'none': texts are used unchanged"),
        ({"dataset.text.length": 1}, r"dataset\.text\.length: "),
        ({"dataset.text.lenght": 9}, r"dataset\.text\.lenght: .*did you mean 'length'"),
        ({"dataset.text": {"tokenizer": "none.json"}}, r"dataset\.text: .*none\.json: no such file; accepted: a token"),
        (
            {"dataset.text.tokenizer": "none.json"},
            r"dataset\.text: vocabulary is 1000, which has no effect with a tokenizer; accepted: leave it out",
        ),
        ({"dataset.text.classes": ["dutch", "latin"]}, r"dataset\.text\.classes is 'dutch', 'latin', and the"),
        ({"space.method": ["vid"]}, r"space\.method: vid: stage maps cannot be paired: .*accepted: models with"),
        ({"student.model": "lightnn"}, r"student\.model: model 'lightnn' takes images, and the data set has texts"),
        (
            {"dataset": {"name": "mnist_mini", "text": {"length": 9}}, "student.model": "mnist_student"},
            r"dataset\.text: accepted: leave it out, the samples are images",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_texts_is_a_fault_of_the_sweep_file(changes, message, texts, tmp_path):
    with refused(SPEC, SpecError, match=message):
        load_spec(sweep(texts, tmp_path), changes)


def test_too_few_different_tokens_are_told(texts, tmp_path):
    spec = DatasetSpec(name="text_files", root=str(texts), text={"vocabulary": 100_000})
    with refused(
        DATA, DataError, match=r"vocabulary: found 100,000, and the training texts have .*; accepted: from 258 to"
    ):
        tasks.of(spec).prepare(spec, 0, Store(tmp_path))


def test_the_smallest_vocabulary_fits_any_texts(tmp_path):
    spec = DatasetSpec(name="text_files", text={"vocabulary": LEAST_TOKENS})
    train(np.array(["a", "b"]), spec.text, tmp_path / "tokenizer.json")
    known = Tokens(tmp_path / "tokenizer.json", 8)
    assert known.vocabulary == LEAST_TOKENS
    assert (known.encode(["ab 好"]) != 0).sum() > 3


# Teachers of transformers


@pytest.fixture(scope="module")
def saved(texts, tmp_path_factory) -> Path:
    """A BERT that transformers saved, with the classes of the corpus."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    named = dict(enumerate(corpus.LANGUAGES))
    config = BertConfig(**SMALL_BERT, vocab_size=1000, max_position_embeddings=40, id2label=named)
    model = BertForSequenceClassification(config)
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    return folder


def with_bert(texts, storage, folder, **more):
    teacher = {"model": "transformers/bert", "checkpoint": str(folder)}
    return load_spec(sweep(texts, storage, teacher=teacher), more)


def test_a_saved_classifier_is_the_teacher_with_its_own_weights_and_settings(texts, saved, tmp_path):
    from transformers import AutoModelForSequenceClassification

    spec = with_bert(texts, tmp_path, saved)
    assert spec.teacher.options["hidden_size"] == 32
    data = tasks.of(spec.dataset).prepare(spec.dataset, 0, spec.sweep_dir.store)
    from kdsweep.teacher import build as teachers

    steps = teachers.make(spec, data, spec.sweep_dir.store, CPU)
    with pytest.raises(StopIteration) as end:
        next(steps)
    card = end.value.value
    stored = spec.sweep_dir.store.teacher(card.digest) / "model.safetensors"
    assert set(load_file(stored)) == set(load_file(saved / "model.safetensors"))
    model = teachers.load(spec, data, stored, CPU)
    tokens = data.split("val", CPU).batch(torch.arange(4))
    theirs = AutoModelForSequenceClassification.from_pretrained(saved).eval()
    with torch.no_grad():
        expected = theirs(input_ids=tokens, attention_mask=(tokens != 0).long(), output_hidden_states=True)
        found = model(tokens)
    torch.testing.assert_close(found.logits, expected.logits)
    mask = (tokens != 0)[..., None]
    for ours, states in zip(found.features, expected.hidden_states[1:], strict=True):
        torch.testing.assert_close(ours, states * mask)


def changed(saved: Path, folder: Path, **settings) -> Path:
    """A copy of the saved model with other settings."""
    folder.mkdir()
    config = json.loads((saved / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "roberta"}, r"holds a model of type 'roberta'; accepted: model: transformers/roberta"),
        ({"architectures": ["BertModel"]}, r"found BertModel; accepted: a model \.\.\.ForSequenceClassification"),
        ({"auto_map": {"AutoModel": "x.Y"}}, r"auto_map means code of its own, which is not run"),
        ({"id2label": {"0": "x", "1": "y"}}, r"its classes are x, y; accepted: those of the data set, dutch"),
        ({"vocab_size": 900}, r"knows 900 tokens and the tokenizer has 1,000"),
        (
            {"id2label": dict(enumerate(corpus.LANGUAGES[::-1]))},
            r"its classes are in the order turkish, .*set dataset\.text\.classes: \[turkish",
        ),
    ],
)
def test_a_folder_with_another_model_is_refused(settings, message, texts, saved, tmp_path):
    with refused(SPEC, SpecError, match=message):
        with_bert(texts, tmp_path, changed(saved, tmp_path / "changed", **settings))


def test_a_folder_without_safetensors_is_refused(texts, saved, tmp_path):
    folder = changed(saved, tmp_path / "changed")
    (folder / "model.safetensors").unlink()
    with refused(SPEC, SpecError, match=r"model\.safetensors is missing; accepted: a model in one file"):
        with_bert(texts, tmp_path, folder)
    with refused(CODE, ModelError, match=r"no width to vary, found 2"):
        models.build("transformers/bert", TEXTS, 5, 2.0)


# Sweeps


def test_trials_read_the_teachers_stored_hidden_states(texts, tmp_path):
    spec = load_spec(
        sweep(texts, tmp_path), {"teacher.train.epochs": 4, "teacher.train.lr": 2e-2, "dataset.subset": 1200}
    )
    data = tasks.of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    spec.sweep_dir.root.mkdir(parents=True)
    provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    bench = Workbench.of(spec, spec.sweep_dir, data, CPU)
    trained = {}
    for name in ("hint", "kd"):
        config = {"method": name, "width": 0.5, "alpha": 0.5, "lr": 1e-2}
        trained[name] = bench.training(config, 0, tmp_path / "state")
        assert type(bench.source(trained[name].recipe)).__name__ == "StoredTeacher"
    epoch = trained["hint"].run_epoch()
    assert epoch["train_loss"] == pytest.approx(0.5 * epoch["task_loss"] + 0.5 * epoch["distill_loss"], rel=1e-5)
    index = torch.arange(8)
    (tokens,) = bench.train.sequence([index])
    kept = bench.source(trained["hint"].recipe).epoch(1, None)(index, tokens).features[-1]
    live = bench.teacher.outputs(tokens).features[-1]
    torch.testing.assert_close(kept.float(), live, atol=0.02, rtol=0.02)  # kept in bfloat16
    assert torch.equal(kept == 0, live == 0)


@pytest.mark.slow
def test_a_sweep_of_texts_ends_with_a_student_that_classifies_sentences(local_ray, texts, tmp_path):
    results = kdsweep.run(load_spec(sweep(texts, tmp_path / "runs")), progress=False)
    assert set(results.trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert {"test_accuracy", "kd_gain"} <= set(results.confirmed.columns)
    best = results.best()["val_accuracy"][0]
    assert best > 0.6
    (folder,) = results.export(tmp_path / "students", top=1, onnx=True, torch_export=True)
    config = json.loads((folder / "config.json").read_text())
    assert (config["vocabulary"], config["padding"], config["input_shape"]) == (1000, 0, [32])
    for facts in config["files"].values():
        assert facts["equal"] == facts["compared"] == 400
        assert facts["max_difference"] < 1e-3
    assert str(tmp_path) not in (folder / "config.json").read_text() + (folder / "README.md").read_text()
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "student.classify(texts)" in card
    student = kdsweep.load_student(folder)
    said = student.classify(["where do you want to go today my friend?", "ik weet niet wat je bedoelt met dit boek"])
    assert said == ["english", "dutch"]
    sentences, labels = corpus.sentences("test")
    share = np.mean([a == b for a, b in zip(student.classify(sentences), labels, strict=True)])
    told = evaluate_student(folder, "test", root=str(texts))
    assert (told["texts"], told["accuracy"]) == (len(labels), pytest.approx(share))
    assert evaluate_student(folder, "val", root=str(texts))["accuracy"] == pytest.approx(best)
    with refused(CODE, InputError, match=r"int8: .*onnxruntime's quantiser takes no LSTM layers"):
        results.export(tmp_path / "quantized", top=1, quantize="int8")
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer.json").unlink()
    with refused(DATA, InputError, match=r"tokenizer\.json: no such file"):
        kdsweep.load_student(folder).classify(["hello"])
    assert (results.path / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch warns about its own LSTM, and kdsweep ignores that when it exports
@pytest.mark.parametrize(("name", "options"), FAMILIES[:2], ids=[name for name, _ in FAMILIES[:2]])
def test_a_student_for_texts_computes_the_same_in_onnx_and_torch_export(name, options):
    student = TextStudent(tapped(name, options).model, list("abcde"), 16).eval().requires_grad_(False)
    tokens = torch.randint(1, 300, (5, 16))
    tokens[2, 4:] = 0
    expected = student(tokens)
    program = torch.export.load(io.BytesIO(deploy.torch_program(student, TEXTS.example(2)))).module()
    torch.testing.assert_close(program(tokens), expected)
    found = deploy.OnnxStudent(deploy.onnx_model(student, TEXTS.example(2)))(tokens)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
