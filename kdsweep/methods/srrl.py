"""Softmax regression representation learning."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.errors import MethodError
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register


def need_classifier(teacher: Shapes, method: str) -> None:
    """Refuse a teacher whose last layer is not linear.

    Raises:
        MethodError: If so.
    """
    if len(teacher.classifier) != 2:
        raise MethodError(f"method {method} needs a teacher that ends in a linear layer; this one does not")


def frozen_classifier(teacher: Outputs) -> nn.Linear:
    """A copy of the teacher's last linear layer that is not trained."""
    weight, bias = teacher.classifier
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = (nn.Parameter(p.detach().float().clone()) for p in (weight, bias))
    return layer.requires_grad_(False)


@register
class SoftmaxRegression(Method):
    """Match the teacher's embedding, and its logits through the teacher's own classifier.

    Adapters: a linear map from the student's embedding to the teacher's, without the paper's batch normalisation
    and ReLU because embeddings may be negative; and a frozen copy of the teacher's classifier.
    """

    name = "srrl"
    formula = "mean (T e_s - e_t)² + mean (W_t T e_s + b_t - z_t)²"
    source = "Yang et al. 2021, Knowledge distillation via softmax regression representation learning, ICLR"
    needs = frozenset({"embedding", "logits"})
    weight = Param(1.0, "scale of the term", LogUniform(0.1, 5), valid=WEIGHT)

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """The teacher ends in a linear layer."""
        need_classifier(teacher, self.name)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """The transfer and the frozen classifier."""
        self._classifier = frozen_classifier(teacher)
        self._transfer = nn.Linear(student.embedding.shape[1], self._classifier.in_features)
        return nn.ModuleDict({"transfer": self._transfer, "classifier": self._classifier})

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        transferred = self._transfer(student.embedding.float())
        representation = F.mse_loss(transferred, teacher.embedding.float())
        return representation + F.mse_loss(self._classifier(transferred), teacher.logits.float())
