"""Predicts the classes of the test split, for the report. Nothing is chosen by these predictions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdsweep import tasks
from kdsweep.errors import CheckpointError, DataError, InputError, KdsweepError
from kdsweep.lazy import nn, torch
from kdsweep.registry import import_from
from kdsweep.results import predictions
from kdsweep.results.export import config_of
from kdsweep.results.frames import Results
from kdsweep.results.predictions import TEACHER, Model, disagreements, models_of
from kdsweep.results.student import rebuilt
from kdsweep.storage import weights
from kdsweep.storage.files import read_json
from kdsweep.storage.following import fetch
from kdsweep.tasks import Samples
from kdsweep.tasks.recorded import same_data, same_test
from kdsweep.training.batches import batch_size
from kdsweep.training.trainer import on_device
from kdsweep.worker.workbench import Workbench

MOST_PICTURES = 24
SIDE = 96  # pixels; larger images are shrunk to SHRUNK
SHRUNK = 160


def wanted(results: Results) -> bool:
    """Whether predictions are missing or outdated and the weights of the best confirmed student are there."""
    if results.spec.label_free:
        return False  # no image has a class to compare with
    return bool(results.predictions.empty and any(_is_there(model) for model in models_of(results)[:1]))


def provide(results: Results) -> str:
    """Make the predictions in this process and set `results.predictions`, if the data set can be read.

    Returns:
        A note for the user if something went wrong; else empty.
    """
    try:
        predict_here(results)
    except Exception as error:  # the user's own models and data sets may raise anything
        own = isinstance(error, KdsweepError)
        reason = " ".join((str(error) if own else f"{type(error).__name__}: {error}").split())
        what = "no predictions of the test split" if results.predictions.empty else "predictions were not saved"
        return f"note: {what}: {reason}"
    return ""


def predict(results: Results, bench: Workbench) -> None:
    """Predict the test split with the best confirmed student, its tuned plain student and the teacher, and save it.

    Args:
        results: The results of the sweep; `results.predictions` is set.
        bench: The workbench of the sweep; its test split is prepared.

    Raises:
        InputError: If there is no confirmed student, or its weights or the teacher's are missing or damaged.
        OSError: If the predictions cannot be written. They are set nevertheless.
    """
    models = _loadable(results)
    frame = pd.DataFrame({
        "sample": np.arange(len(bench.test), dtype=np.int32),
        "label": bench.test.labels.cpu().numpy().astype(np.int32),
    })  # fmt: skip
    for model in models:
        answers, confidences = predicted(_loaded(results, bench, model), bench.test)
        frame[f"{model.role}_class"], frame[f"{model.role}_confidence"] = answers, confidences
    frame["image"] = _pictures(frame, bench)
    results.predictions = frame
    predictions.save(frame, models, results.sweep)


def predict_here(results: Results) -> None:
    """Like `predict`, in this process and on its CPU, with the data read from the store or the data set.

    Raises:
        KdsweepError: As for `predict`, or if the data set cannot be read or has changed.
        OSError: As for `predict`.
    """
    _loadable(results)
    import_from(str(Path.cwd()))
    spec, sweep = results.spec, results.sweep
    section = spec.dataset.model_copy(update={"download": False})
    task = tasks.of(section)
    data = task.prepare(section, spec.seed, sweep.store)
    recorded = read_json(sweep.data)
    if not same_data(recorded, data) or not same_test(recorded, data):
        raise DataError(f"{sweep}: the data set has changed since the sweep")
    if not task.prepare_test(section, data):
        raise DataError(f"dataset {section.name!r}: has no test split")
    predict(results, Workbench.of(spec, sweep, data, torch.device("cpu")))


def predicted(model: nn.Module, samples: Samples) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The predicted class of every sample and its probability, in float32: [N] each."""
    model.eval()
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.inference_mode():
        for batch, _ in samples.batches(batch_size(model, samples)):
            confidence, answer = model(batch).float().softmax(dim=1).max(dim=1)
            found.append((answer, confidence))
    answers, confidences = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return answers.astype(np.int32), confidences


def _loadable(results: Results) -> list[Model]:
    """The models whose weights are there.

    Raises:
        InputError: If there is no confirmed student, or its weights were not kept.
    """
    models = models_of(results)
    if not models:
        raise InputError(f"{results.path}: no student has been confirmed")
    if not _is_there(models[0]):
        raise InputError(f"{models[0].weights}: missing; only the weights of the best trials are kept")
    return [model for model in models if _is_there(model)]


def _is_there(model: Model) -> bool:
    fetch(model.weights)
    return model.weights.is_file()


def _loaded(results: Results, bench: Workbench, model: Model) -> nn.Module:
    if model.role == TEACHER:
        with _broken(model):
            return bench.taught_by(model.trial or bench.spec.teacher_names[0]).teacher.model
    row = results.trial(model.trial)
    with _broken(model):
        config = config_of(results.sweep, bench.spec, row, results.confirmed, results.teacher)
        found = rebuilt(config, weights.load(model.weights), f"weights of trial {model.trial}")
    return on_device(found, bench.device)


@contextmanager
def _broken(model: Model) -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise InputError(f"{error}; the weights must be as the sweep wrote them") from error
    except KdsweepError:
        raise
    except RuntimeError as error:  # of load_state_dict
        raise InputError(f"{model.weights}: do not fit the model") from error


def _pictures(frame: pd.DataFrame, bench: Workbench) -> list[bytes | None]:
    """PNG, JPEG or text in UTF-8 of the first disagreements; None for all others, and if samples are neither."""
    pictures: list[bytes | None] = [None] * len(frame)
    chosen = disagreements(frame).head(MOST_PICTURES)["sample"].tolist()
    if chosen:
        index = torch.tensor(chosen)
        for place, text in zip(chosen, bench.data.task.texts(bench.data, bench.test, index), strict=False):
            pictures[place] = text.encode(errors="replace")
        found = bench.data.task.pictures(bench.test, index).permute(0, 2, 3, 1).numpy()
        if found.shape[3] in (1, 3):
            for place, pixels in zip(chosen, found, strict=True):
                pictures[place] = _encoded(pixels)
    return pictures


def _encoded(pixels: NDArray[Any]) -> bytes:
    """Encode uint8 [H, W, C] without loss if it is small, else shrunk as JPEG."""
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    if max(image.size) <= SIDE:
        image.save(file, "PNG", optimize=True)
    else:
        image.thumbnail((SHRUNK, SHRUNK), Image.Resampling.LANCZOS)
        image.save(file, "JPEG", quality=85)
    return file.getvalue()
