"""Files of an exported student that run without kdsweep: ONNX, torch.export, and ONNX quantised to int8."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from kdsweep import tasks
from kdsweep.datasets import get as dataset_named
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import InputError
from kdsweep.lazy import nn, torch
from kdsweep.results.runtime import INPUT, OUTPUT, OnnxStudent
from kdsweep.results.student import exported, rebuilt
from kdsweep.results.student_config import INT8, ONNX, TORCH_EXPORT, FileFacts, StudentConfig
from kdsweep.storage import weights
from kdsweep.tasks import Samples
from kdsweep.training.evaluate import evaluate

OPSET = 20
# Without pooling and padding: the padding of a maximum pool is -3.4e38, which would set the range of an int8 scale.
QUANTIZED_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Relu")
CALIBRATION_SAMPLES = 512
BATCH = 128


def deployed(
    config: StudentConfig,
    state: weights.State,
    spec: DatasetSpec,
    wanted: Container[str],
    where: str,
    tell: Callable[[str], object],
) -> dict[str, tuple[bytes, FileFacts]]:
    """Make the wanted files and compare each with the student over the whole validation split.

    Args:
        config: Description of the student.
        state: Its weights.
        spec: The `dataset` section of the sweep.
        wanted: Names of the files.
        where: Name of the student in error messages.
        tell: Receives a line before each step.

    Returns:
        Content and measurements by file name.

    Raises:
        InputError: If the student cannot be converted, or if a file computes something else than numbers.
        DataError: If the data set cannot be read.
    """
    model = rebuilt(config, state, where).eval()
    student = exported(config, model, where).eval().requires_grad_(False)
    task = tasks.get(config.task)
    example = config.input_spec.example(2)
    tell("reading the validation split")
    val = task.exported_split(spec, config.seed, "val")
    found: dict[str, tuple[bytes, FileFacts]] = {}

    def add(name: str, content: bytes, run: Callable[[torch.Tensor], torch.Tensor], **facts: float) -> None:
        tell(f"comparing {name} with the student over {len(val)} validation {task.noun}")
        found[name] = content, _facts(f"{where}: {name}", content, student, run, val, facts)

    if TORCH_EXPORT in wanted:
        tell(f"converting to {TORCH_EXPORT}")
        with _explained(f"{where}: torch.export"):
            content = torch_program(student, example)
            program = torch.export.load(io.BytesIO(content)).module()
        add(TORCH_EXPORT, content, program)
    if ONNX in wanted or INT8 in wanted:
        tell(f"converting to {ONNX}")
        with _explained(f"{where}: ONNX"):
            content = onnx_model(student, example)
        if ONNX in wanted:
            add(ONNX, content, OnnxStudent(content))
        if INT8 in wanted:
            tell(f"quantising to {INT8}")
            with _explained(f"{where}: int8"):
                quantized = int8_model(content, task.exported_split(spec, config.seed, "train"))
            run = OnnxStudent(quantized)
            add(INT8, quantized, run, **_metrics(config, spec, val, student, run))
    return found


def torch_program(student: nn.Module, example: torch.Tensor) -> bytes:
    """Export a student with torch.export, for batches of any size.

    Args:
        student: In eval mode.
        example: Samples [2, ...].

    Returns:
        A `.pt2` file, without the paths of the source files.
    """
    program = torch.export.export(student, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def onnx_model(student: nn.Module, example: torch.Tensor) -> bytes:
    """Convert a student to ONNX with PyTorch's exporter, for batches of any size.

    Args:
        student: In eval mode.
        example: Samples [2, ...].

    Returns:
        An ONNX file with input `input` and output `logits`, without the paths of the source files.
    """
    program = torch.onnx.export(
        student,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]
    return bytes(model.SerializeToString())


def int8_model(content: bytes, train: Samples) -> bytes:
    """Quantise an ONNX model to 8 bits, weights per channel, with onnxruntime.

    Args:
        content: The ONNX file.
        train: Training samples in the form that the model takes; activation ranges are those of up to 512 of them,
            evenly spaced.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = _calibration(train)

        def get_next(self) -> dict[str, NDArray[np.generic]] | None:
            return next(self._batches, None)

    with TemporaryDirectory(prefix="kdsweep-") as folder:
        given, prepared, quantized = (Path(folder) / name for name in ("given.onnx", "prepared.onnx", "int8.onnx"))
        given.write_bytes(content)
        if any(node.op_type == "LSTM" for node in onnx.load_model(given).graph.node):
            raise InputError("onnxruntime's quantiser takes no LSTM layers")
        quant_pre_process(given, prepared)
        quantize_static(
            prepared,
            quantized,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED_OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return quantized.read_bytes()


def _calibration(train: Samples) -> Iterator[dict[str, NDArray[np.generic]]]:
    chosen = torch.linspace(0, len(train) - 1, min(len(train), CALIBRATION_SAMPLES)).long()
    for index in chosen.split(BATCH):
        yield {INPUT: train.batch(index).numpy()}


def _facts(
    where: str,
    content: bytes,
    student: nn.Module,
    run: Callable[[torch.Tensor], torch.Tensor],
    val: Samples,
    metrics: dict[str, float],
) -> FileFacts:
    equal, largest = compared(student, run, val)
    if not np.isfinite(largest):
        raise InputError(f"{where}: computes logits that are not finite numbers, so it was not written")
    tools = [name for name in ("onnx", "onnxruntime") if where.endswith(".onnx")]
    return FileFacts(
        size_mb=len(content) / 1024**2,
        compared=len(val),
        equal=equal,
        max_difference=largest,
        metrics=metrics,
        versions={name: version(name) for name in ("torch", *tools)},
    )


def compared(student: nn.Module, run: Callable[[torch.Tensor], torch.Tensor], samples: Samples) -> tuple[int, float]:
    """Compare two models on a split.

    Returns:
        For how many samples both predict the same class, and the largest absolute difference of a logit (NaN if either
        model computes a NaN).
    """
    equal, largest = 0, torch.zeros(())
    with torch.no_grad():
        for batch, _ in samples.batches(BATCH):
            batch = batch.contiguous()
            ours, theirs = student(batch), run(batch)
            equal += int((ours.argmax(1) == theirs.argmax(1)).sum())
            largest = torch.maximum(largest, (ours - theirs).abs().amax())
    return equal, float(largest)


def _metrics(
    config: StudentConfig, spec: DatasetSpec, val: Samples, student: nn.Module, run: nn.Module
) -> dict[str, float]:
    """Metrics of a quantised student on validation and test, and of the student itself as `float_...`."""
    task = tasks.get(config.task)
    splits = {"val": val}
    source = spec.source()
    if "test" in dataset_named(spec.name).describe(source).splits:
        splits["test"] = task.exported_split(spec, config.seed, "test")
    measured: dict[str, float] = {}
    labelled = {split: samples for split, samples in splits.items() if int(samples.labels.min()) >= 0}
    for split, samples in labelled.items():
        for prefix, model in (("", run), ("float_", student)):
            found = evaluate(model, samples, task.measured((), len(config.class_names)))
            measured |= {f"{prefix}{split}_{name}": value for name, value in found.items()}
    return measured


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever a converter raises into one line, and keep it quiet meanwhile."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime's quantiser writes advice to the root logger
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise InputError(f"{what}: the student cannot be converted: {reason}") from error
    finally:
        root.setLevel(level)
