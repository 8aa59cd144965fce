"""Reuse of the teacher's classifier."""

from __future__ import annotations

from kdsweep.errors import MethodError
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import Method, Outputs, register
from kdsweep.methods.srrl import frozen_classifier
from kdsweep.methods.stages import pool, smaller_size, stage


@register
class ReusedClassifier(Method):
    """Reuse the teacher's classifier on a student trained to reproduce the teacher's last stage map.

    Adapters: three convolutions with batch normalisation (1 x 1, 3 x 3, 1 x 1, with half the teacher's channels in
    between). Together with the teacher's frozen classifier they become the student's head: they count in its size
    and are exported with it. The larger map is average-pooled.
    """

    name = "simkd"
    formula = "mean (T(F_s) - F_t)² on the last stage; inference is W_t T(F_s) + b_t"
    source = "Chen et al. 2022, arXiv:2203.14001"
    needs = frozenset({"stage:-1"})

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """Create the transfer and copy the teacher's classifier.

        Raises:
            MethodError: If the input of the teacher's classifier is not its last stage map.
        """
        from kdsweep.methods.adapters.head import TransferHead

        ours = stage(student.features, -1, self.name, "student")
        theirs = stage(teacher.features, -1, self.name, "teacher")
        classifier = frozen_classifier(teacher, self.name)
        size = smaller_size(ours, theirs)
        pooled = classifier.in_features == theirs.shape[1]
        read = theirs.mean((2, 3)) if pooled else pool(theirs, size).flatten(1)
        if not _same(read, teacher.embedding):
            raise MethodError(
                f"method simkd needs a teacher whose classifier reads its last map {list(theirs.shape)}, averaged "
                f"over positions, or flattened if the student's map {list(ours.shape)} is as large; "
                f"this one reads other values of shape {list(teacher.embedding.shape)}"
            )
        self._head = TransferHead(ours.shape[1], theirs.shape[1], *size, pooled, classifier.out_features)
        self._head.classifier = classifier
        return self._head

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        imitation = self._head.transferred(student.features[-1].float())
        return F.mse_loss(imitation, pool(teacher.features[-1].float(), self._head.size))

    def inference_head(self) -> nn.Module:
        return self._head


def _same(read: torch.Tensor, embedding: torch.Tensor) -> bool:
    """Whether the classifier's input matches the expected one; on the meta device only shapes are compared."""
    if read.shape != embedding.shape or read.is_meta or embedding.is_meta:
        return read.shape == embedding.shape
    difference = (read - embedding).float().norm()
    return bool(difference <= 0.02 * embedding.float().norm())
