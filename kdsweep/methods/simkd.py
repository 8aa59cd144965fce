"""Reuse of the teacher's classifier."""

from __future__ import annotations

from math import prod

from kdsweep.errors import MethodError
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import Method, Outputs, Shapes, register
from kdsweep.methods.srrl import frozen_classifier, need_classifier
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

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """The teacher's classifier reads as many values as its last stage map gives."""
        ours = stage(student.features, -1, self.name, "student")
        theirs = stage(teacher.features, -1, self.name, "teacher")
        need_classifier(teacher, self.name)
        channels, read = theirs.shape[1], teacher.embedding.shape[1]
        if read not in (channels, channels * prod(smaller_size(ours, theirs))):
            raise _reads_otherwise(student, teacher)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """Create the transfer and copy the teacher's classifier.

        Raises:
            MethodError: If the teacher's classifier reads other values than those of its last stage map.
        """
        from kdsweep.methods.adapters.head import TransferHead

        ours, theirs = student.features[-1], teacher.features[-1]
        classifier = frozen_classifier(teacher)
        size = smaller_size(ours, theirs)
        pooled = classifier.in_features == theirs.shape[1]
        read = theirs.mean((2, 3)) if pooled else pool(theirs, size).flatten(1)
        if not _alike(read, teacher.embedding):
            raise _reads_otherwise(student.shapes(), teacher.shapes())
        self._head = TransferHead(ours.shape[1], theirs.shape[1], *size, pooled, classifier.out_features)
        self._head.classifier = classifier
        return self._head

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        imitation = self._head.transferred(student.features[-1].float())
        return F.mse_loss(imitation, pool(teacher.features[-1].float(), self._head.size))

    def inference_head(self) -> nn.Module:
        return self._head


def _alike(read: torch.Tensor, embedding: torch.Tensor) -> bool:
    """Whether the values that the classifier would read are those that it reads, up to rounding."""
    return bool((read - embedding).float().norm() <= 0.02 * embedding.float().norm())


def _reads_otherwise(student: Shapes, teacher: Shapes) -> MethodError:
    ours, theirs = (list(shown.features[-1].shape) for shown in (student, teacher))
    return MethodError(
        f"method simkd needs a teacher whose classifier reads its last map {theirs}, averaged over positions, or "
        f"flattened where the student's {ours} is as large; this one reads other values of shape "
        f"{list(teacher.embedding.shape)}"
    )
