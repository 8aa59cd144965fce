"""How good a model is on a split."""

from __future__ import annotations

from kdsweep.lazy import F, nn, torch
from kdsweep.tasks.image.batches import Images

# By device: a processor is twice as fast when activations stay in its caches.
EVALUATION_BATCH = {"cpu": 128, "cuda": 2048}


def evaluate(model: nn.Module, images: Images) -> tuple[float, float]:
    """Accuracy and mean cross entropy of a model, in float32 and eval mode, whatever the training's precision.

    Args:
        model: Takes normalised images.
        images: The split.

    Returns:
        Accuracy as a fraction, mean cross entropy in nats.
    """
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=images.labels.device)
    loss = torch.zeros((), dtype=torch.float64, device=images.labels.device)
    with torch.inference_mode():
        for batch, labels in images.batches(EVALUATION_BATCH[images.device.type]):
            logits = model(batch).float()
            correct += (logits.argmax(dim=1) == labels).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
    return int(correct) / len(images), float(loss) / len(images)
