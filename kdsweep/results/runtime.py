"""Runs ONNX files of students in onnxruntime."""

from __future__ import annotations

from kdsweep.lazy import nn, torch

INPUT, OUTPUT = "input", "logits"


class OnnxStudent(nn.Module):
    """An ONNX file in onnxruntime on the CPU, called like the student that it was made from.

    Args:
        content: The file.
    """

    def __init__(self, content: bytes):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes] for samples [B, ...] on the CPU."""
        (logits,) = self._session.run([OUTPUT], {INPUT: samples.numpy()})
        return torch.from_numpy(logits)
