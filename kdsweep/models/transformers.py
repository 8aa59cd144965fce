"""Sequence classifiers of Hugging Face's transformers, built from their settings; needs the `text` extra.

Nothing is downloaded, and no code from a model's folder runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdsweep.errors import ModelError, UnknownNameError, did_you_mean, installing
from kdsweep.lazy import nn
from kdsweep.models.foreign import explained
from kdsweep.words import kind_of

FAMILY = "transformers/"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Where and how weights are stored, and names that the data set has too: none of it is part of the architecture.
_DROPPED = (
    "architectures", "_name_or_path", "transformers_version", "model_type", "torch_dtype", "dtype", "id2label",
    "label2id", "num_labels", "problem_type", "attn_implementation", "_attn_implementation", "use_cache",
)  # fmt: skip
_REFUSED = {"auto_map": "code of its own, which is not run", "quantization_config": "quantised weights"}


def need_installed(name: str) -> None:
    """Check that transformers, which the model `name` needs, is installed, without importing it.

    Raises:
        ModelError: If it is not; the message says how to install it.
    """
    if find_spec("transformers") is None:
        raise ModelError(f"model {name!r} needs transformers: {installing('text')}")


def build(
    model: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    width: float,
    vocabulary: int,
    padding: int,
    **options: Any,
) -> nn.Module:
    """Build the sequence classifier of a model type, with random weights.

    Args:
        model: A model type with a sequence classifier, such as `bert` or `distilbert`.
        input_shape: (length,) of the longest text.
        num_classes: Number of logits.
        width: Must be 1; the options decide the size.
        vocabulary: Number of tokens of the tokenizer.
        padding: The token that fills up short texts.
        options: Settings of the model type, as in a model's `config.json`.

    Raises:
        UnknownNameError: If there is no such model type.
        ModelError: If transformers is not installed or rejects a setting, or the model has too few tokens.
    """
    name = f"{FAMILY}{model}"
    need_installed(name)
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    from kdsweep.models.blocks.transformers import SequenceClassifier

    known = list(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    if model not in known:
        raise UnknownNameError(f"unknown transformers model type {model!r}; {did_you_mean(model, known)}")
    if width != 1:
        raise ModelError(
            f"model {name!r} has no width to vary, found {width}; accepted: 1, its options decide the size"
        )
    for key, what in _REFUSED.items():
        if key in options:
            raise ModelError(f"model {name!r}: {key} means {what}; accepted: models without")
    with explained(f"model {name!r} cannot be made"):
        chosen = {"vocab_size": vocabulary, **options, "pad_token_id": padding}
        config = AutoConfig.for_model(model, **chosen, num_labels=num_classes)
        network = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    if config.vocab_size < vocabulary:
        raise ModelError(
            f"model {name!r} knows {config.vocab_size:,} tokens and the tokenizer has {vocabulary:,}; accepted: the "
            "tokenizer that the model was trained with (dataset.text.tokenizer)"
        )
    return SequenceClassifier(network.float(), padding)


def is_folder(checkpoint: Path) -> bool:
    """Whether a teacher's checkpoint is a model's folder instead of a file."""
    return (checkpoint / CONFIG).is_file()


def options_of(folder: Path, name: str) -> dict[str, Any]:
    """The options for a model that transformers saved.

    Args:
        folder: Directory with `config.json` and `model.safetensors`.
        name: The model's name in the sweep file, `transformers/<type>`.

    Raises:
        ModelError: If the folder holds something else than a sequence classifier of this type and its weights.
    """
    config = _config(folder)
    found = config.get("model_type")
    if name != f"{FAMILY}{found}":
        raise ModelError(f"{folder} holds a model of type {found!r}; accepted: model: {FAMILY}{found}")
    for key, what in _REFUSED.items():
        if config.get(key):
            raise ModelError(f"{folder / CONFIG}: {key} means {what}; accepted: models without")
    kinds = config.get("architectures") or []
    if not any(str(kind).endswith("ForSequenceClassification") for kind in kinds):
        found = ", ".join(map(str, kinds)) or "no architectures"
        raise ModelError(f"{folder / CONFIG}: found {found}; accepted: a model ...ForSequenceClassification")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{folder}: {WEIGHTS} is missing; accepted: a model in one file, as written by "
            "model.save_pretrained(folder, max_shard_size='100GB')"
        )
    return {key: value for key, value in config.items() if key not in _DROPPED and value is not None}


def class_fault(folder: Path, class_names: Sequence[str]) -> str:
    """Why the classes of a saved model are not those of the data set; empty if they fit, or have no names."""
    named = {str(key): str(value) for key, value in (_config(folder).get("id2label") or {}).items()}
    theirs = [named.get(str(place), "") for place in range(len(named))]
    if all(name == f"LABEL_{place}" for place, name in enumerate(theirs)) or tuple(theirs) == tuple(class_names):
        return ""
    if sorted(theirs) == sorted(class_names):
        return (
            f"{folder}: its classes are in the order {', '.join(theirs)}, and those of the data set in the order "
            f"{', '.join(class_names)}; set dataset.text.classes: [{', '.join(theirs)}]"
        )
    return f"{folder}: its classes are {', '.join(theirs)}; accepted: those of the data set, {', '.join(class_names)}"


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: unreadable: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: found {kind_of(found)}; accepted: the settings of a model of transformers")
    return found
