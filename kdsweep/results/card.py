"""The model card (README.md) of an exported student."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from kdsweep import tasks
from kdsweep.config.label_free import OF_LABELS
from kdsweep.errors import printable
from kdsweep.registry import OBJECTS, is_given
from kdsweep.results.agreement import NO_GAIN
from kdsweep.results.confirmed import judged_seeds, verdict_of
from kdsweep.results.standalone import stands_alone
from kdsweep.results.student_config import INT8, ONNX, TORCH_EXPORT, FileFacts, StudentConfig
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks.image.transforms.written import text_of
from kdsweep.tasks.metrics import is_fraction, shown, shown_gain
from kdsweep.training.section import TrainSpec

_AVERAGED = (
    "These weights, and the statistics of batch normalisation, are an exponential moving average over training (decay "
    "{decay:g} at each step); all scores are the average's."
)


_AGREEMENT = {
    "val_agreement": "Agreement is the share of images that student and teacher put into the same class.",
    "val_divergence": "Divergence is the mean Kullback-Leibler divergence of the student from the teacher, in nats.",
}


def card(config: StudentConfig) -> str:
    """Write the model card (README.md) of a student."""
    searched = {key: value for key, value in config.settings.items() if key != "train"}
    train = TrainSpec.model_validate(config.settings["train"]).with_searched(searched)
    dumped = train.model_dump(exclude={"capture", "cohort"})
    used = {key: value for key, value in dumped.items() if key not in train.unused()} | searched
    if config.label_free:
        used = {key: value for key, value in used.items() if key not in OF_LABELS}
    if "augment" not in used:
        used = {"augment": text_of(config.dataset.get("augment", "none"))} | used
    if config.dataset.get("views"):
        used["views"] = config.dataset["views"]
    settings = "\n".join(f"| {key} | {_cell(value)} |" for key, value in used.items())
    teacher = config.teacher
    task = tasks.get(config.task)
    averaged = f"\n{_AVERAGED.format(decay=train.ema_decay)}\n" if train.ema_decay else ""
    ((column, value),) = config.measured.items()
    metric = column.removeprefix("val_")
    rows = [f"| validation (selected by) | {shown(column, value)} |"]
    start, label_free = "", config.label_free
    if config.confirmed:
        rows += _confirmed_rows(config.confirmed, metric, plain=config.settings.get("method") == PLAIN)
        norm = config.confirmed["first_layer_norm"]
        start = f"\nNorm of the first layer before training: {norm:.4f} (first fresh seed, equal for the plain twin).\n"
        start = "" if label_free else start
    skipped = f"\nUnreadable images were left out: {tasks.counted(config.skipped)}.\n" if config.skipped else ""
    unlabelled = ""
    if config.unlabelled and config.settings.get("method") != PLAIN:
        also = "learnt" if label_free else "also learnt"
        unlabelled = f"\nIt {also} from {config.unlabelled:,} images without labels, from the teacher alone.\n"
    compared = f"| teacher, validation | {shown(column, teacher.get(column, float('nan')))} |\n"
    if label_free:
        compared = f"\n{_AGREEMENT[column]} {NO_GAIN}.\n"
    smaller = f", {1 - config.size_mb / teacher['size_mb']:.2%} smaller than its teacher" if teacher else ""
    return f"""---
{_metadata(config)}---

# {_text(config.model.removeprefix(f"{OBJECTS}:"))} trained on {_text(config.dataset["name"])}

{config.parameters:,} parameters, {config.size_mb:.3f} MiB{smaller}. Trial {config.trial} of the sweep
{_text(config.sweep)}, made with kdsweep {config.kdsweep}.

## Load it

```python
import kdsweep

{_load(config)}
{task.exported_call(config.input_shape)}
```

{_without_code(config)}{task.exported_note(config.model_dump())} Classes, in the order of
the logits: {", ".join(_text(name) for name in config.class_names)}.
{_files(config)}
## {metric.replace("_", " ").capitalize()}

| measured on | {metric.replace("_", " ")} |
|---|---|
{chr(10).join(rows)}
{compared}
## How it was trained

Teacher: {_text(str(teacher.get("model", "unknown")))} ({_text(str(teacher.get("origin", "")))}), \
{teacher.get("parameters", 0):,} parameters, {teacher.get("size_mb", 0.0):.3f} MiB.
{averaged}{start}{unlabelled}{skipped}
| setting | value |
|---|---|
{settings}
"""


def _load(config: StudentConfig) -> str:
    """The line of Python that loads the student."""
    if is_given(config.model):
        return 'student = kdsweep.load_student(".", student=build)  # this folder, and the function described below'
    return 'student = kdsweep.load_student(".")  # this folder'


def _without_code(config: StudentConfig) -> str:
    """How a student loads whose model was a Python object; else empty."""
    if not is_given(config.model):
        return ""
    names = "its state dict" if not config.head else "its state dict, below `student.`"
    return (
        "The model was defined by the program that ran the sweep; this folder holds no code. `build` is the function\n"
        f"that was passed to `kdsweep.sweep` as `student`, called with width {config.width:g}. The names in\n"
        f"`model.safetensors` are those of {names}, so the weights also load without kdsweep. Files exported with\n"
        "`onnx=True` or `torch_export=True` need no code at all.\n\n"
    )


def _metadata(config: StudentConfig) -> str:
    """The metadata that the Hugging Face Hub reads, as YAML."""
    task = tasks.get(config.task)
    ((column, value),) = config.measured.items()
    # Quoted, because the Hub reads YAML 1.1, where unquoted words such as `no` are not text.
    name, dataset, metric = map(
        DoubleQuotedScalarString,
        (f"{config.sweep}-{config.trial}", printable(str(config.dataset["name"])), column.removeprefix("val_")),
    )
    result = {
        "task": {"type": task.pipeline_tag or "other"},
        "dataset": {"type": dataset, "name": dataset, "split": "validation"},
        "metrics": [{"type": metric, "value": value}],
    }
    formats = {ONNX: "onnx", INT8: "onnx", TORCH_EXPORT: "torch.export"}
    tags = dict.fromkeys(tag for name, tag in formats.items() if name in config.files)
    metadata: dict[str, Any] = {
        "library_name": "kdsweep",
        "tags": ["knowledge-distillation", *tags],
        **({"pipeline_tag": task.pipeline_tag} if task.pipeline_tag else {}),
        "model-index": [{"name": name, "results": [result]}],
    }
    text = StringIO()
    YAML(typ="rt").dump(metadata, text)
    return text.getvalue()


_HEADING = """| file | call | size | same prediction | largest difference of a logit | measured with |
|---|---|---|---|---|---|"""
_ALONE = """`model.py` is the student in plain PyTorch. It needs `torch` and `safetensors`, and normalises its input.
Read it before you run it, like any code. With `huggingface_hub`, `Student.from_pretrained(".")` does the same.

```python
from model import load

student = load(".")  # this folder
```"""
_RUN_BY = {
    ONNX: ("onnxruntime", 'onnxruntime.InferenceSession("model.onnx").run(None, {"input": array})'),
    TORCH_EXPORT: ("torch", 'torch.export.load("model.pt2").module()(tensor)'),
    INT8: ("onnxruntime", 'onnxruntime.InferenceSession("model.int8.onnx").run(None, {"input": array})'),
}


def _files(config: StudentConfig) -> str:
    """Section on the files that run without kdsweep; empty if there are none."""
    parts = []
    if stands_alone(config):
        parts.append(_ALONE)
    if config.files:
        noun = tasks.get(config.task).noun
        rows = "\n".join(
            f"| `{name}` | `{_RUN_BY[name][1]}` | {facts.size_mb:.3f} MiB | {facts.equal} of {facts.compared} "
            f"| {facts.max_difference:.2g} | {_RUN_BY[name][0]} {_text(facts.versions[_RUN_BY[name][0]])} |"
            for name, facts in config.files.items()
        )
        normalise = "normalise their input too, and " if config.mean else ""
        parts.append(
            f"The files below {normalise}take batches of any size. Each was compared with the "
            f"student above\nover all validation {noun}.\n\n{_HEADING}\n{rows}"
        )
        parts += [_quantized(name, facts) for name, facts in config.files.items() if facts.metrics]
    return "\n## Without kdsweep\n\n{}\n".format("\n\n".join(parts)) if parts else ""


def _quantized(name: str, facts: FileFacts) -> str:
    shares = [
        f"{label} {metric} {shown(metric, facts.metrics[f'{split}_{metric}'])} "
        f"(the student's: {shown(metric, facts.metrics[f'float_{split}_{metric}'])})"
        for split, label in (("val", "validation"), ("test", "test"))
        for metric in ("accuracy",)
        if f"{split}_{metric}" in facts.metrics
    ]
    return f"`{name}` has weights and activations of 8 bits: {', '.join(shares)}."


def _confirmed_rows(confirmed: Mapping[str, Any], metric: str, plain: bool = False) -> list[str]:
    """Table rows for the confirmed metrics and gains; missing ones are omitted.

    A plain student is not compared with plain students.
    """
    baselines = {
        "kd_gain": ("plain", "plain student with the same settings and seeds"),
        "kd_gain_tuned": ("tuned_plain", "plain student with the best plain settings of the sweep"),
    }
    seeds = judged_seeds(confirmed) or int(confirmed["seeds"])
    ours = f"test, these settings on {seeds} fresh seed{'s' if seeds > 1 else ''}"
    rows = [_mean_row(ours, f"test_{metric}", confirmed, metric)]
    if plain:
        return [row for row in rows if row]
    for gain, (prefix, meaning) in baselines.items():
        rows.append(_mean_row(f"test, {meaning}", f"{prefix}_test_{metric}", confirmed, metric))
        if gain in confirmed:
            rows.append(f"| difference from that plain student, paired by seed | {_gain(confirmed, gain, metric)} |")
    return [row for row in rows if row]


def _mean_row(meaning: str, name: str, confirmed: Mapping[str, Any], metric: str) -> str:
    """Row of a mean over the seeds; empty if it is unknown."""
    if name not in confirmed:
        return ""
    spread = f" ± {shown(metric, confirmed[f'{name}_std'])}" if f"{name}_std" in confirmed else ""
    return f"| {meaning} | {shown(metric, confirmed[name])}{spread} |"


def _gain(confirmed: Mapping[str, Any], gain: str, metric: str) -> str:
    verdict = verdict_of(confirmed, gain)
    if verdict is not None:
        return verdict.text(metric)
    # Confirmed by version 0.1.0, which gave no verdicts.
    return shown_gain(metric, confirmed[gain]) + (" points" if is_fraction(metric) else "")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "–"
    return _text(str(value))


def _text(value: str) -> str:
    """Escape Markdown, HTML and control characters in text for the card."""
    kept = printable(value.replace("\n", " ").replace("\r", " ")).replace("\\", "\\\\")
    for mark in "|`<>[]*_#&~$":
        kept = kept.replace(mark, f"\\{mark}")
    return kept
