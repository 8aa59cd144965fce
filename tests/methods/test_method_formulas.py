"""Compare each method with its formula, written as float64 loops, and with a literal value."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from kdsweep import methods
from kdsweep.methods import METHODS, Method, Outputs

BATCH, CLASSES = 4, 5
SIZES = {"student": (6, 4, 2), "teacher": (6, 4, 4)}
CHANNELS = {"student": (2, 3, 4), "teacher": (3, 2, 5)}
WIDTHS = {"student": 4, "teacher": 5}
LABELS = np.array([3, 0, 4, 0])
SAMPLES, INDEX = 12, torch.tensor([7, 2, 0, 9])
REFERENCES: dict[str, Callable[[Method, Outputs, Outputs], float]] = {}


def given(who: str) -> Outputs:
    """Outputs drawn by numpy, so that literals do not depend on torch's generator."""
    draw = np.random.default_rng({"student": 1, "teacher": 2}[who])

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(draw.standard_normal(shape)).float()

    maps = tuple(normal(BATCH, c, s, s).relu() for c, s in zip(CHANNELS[who], SIZES[who], strict=True))
    embedding = maps[-1].mean((2, 3)) if who == "teacher" else normal(BATCH, WIDTHS[who])
    classifier = (normal(CLASSES, WIDTHS[who]), normal(CLASSES))
    return Outputs(2 * normal(BATCH, CLASSES), embedding, maps, classifier)


def make(name: str, **params: float) -> Method:
    """A method in mid-training, with adapters that do not depend on torch's generator."""
    method = methods.create(name, given("student"), given("teacher"), **params)
    method.prepare(SAMPLES)
    method.advance(0.5, INDEX)
    draw = np.random.default_rng(3)
    memories = [buffer for key, buffer in method.adapters.named_buffers() if key.endswith("memory")]
    with torch.no_grad():
        for tensor in (*method.parameters(), *memories):
            tensor.copy_(torch.as_tensor(0.3 * draw.standard_normal(tuple(tensor.shape))))
    return method


def reference(name: str) -> Callable:
    def declare(function):
        REFERENCES[name] = function
        return function

    return declare


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def pooled(maps: np.ndarray, size: int) -> np.ndarray:
    step = maps.shape[-1] // size
    out = np.zeros((*maps.shape[:2], size, size))
    for y in range(size):
        for x in range(size):
            window = maps[:, :, y * step : (y + 1) * step, x * step : (x + 1) * step]
            out[:, :, y, x] = window.reshape(*maps.shape[:2], -1).sum(-1) / step**2
    return out


def convolved(maps: np.ndarray, weight: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """A same-size padded convolution."""
    kernel, size = weight.shape[-1], maps.shape[-1]
    edge = kernel // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    out = np.zeros((len(maps), len(weight), size, size))
    for y in range(size):
        for x in range(size):
            window = padded[:, :, y : y + kernel, x : x + kernel].reshape(len(maps), -1)
            out[:, :, y, x] = window @ weight.reshape(len(weight), -1).T + bias
    return out


# The pairs of SIZES by resolution: 6-6, 4-4, 2-4.
PAIRS = ((0, 0), (1, 1), (2, 2))


@reference("none")
def none(method, student, teacher):
    return 0.0


@reference("kd")
def kd(method, student, teacher):
    t = method.temperature
    rows = zip(array(student.logits), array(teacher.logits), strict=True)
    return sum(t * t * kl(softmax(b / t), softmax(a / t)) for a, b in rows) / BATCH


@reference("mse")
def mse(method, student, teacher):
    difference = array(student.logits) - array(teacher.logits)
    return sum(d * d for d in difference.ravel()) / (BATCH * CLASSES)


@reference("dkd")
def dkd(method, student, teacher):
    t, total = method.temperature, 0.0
    for a, b, y in zip(array(student.logits), array(teacher.logits), LABELS, strict=True):
        p, q = softmax(b / t), softmax(a / t)
        total += method.target_weight * kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        total += method.beta * kl(np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y]))
    return t * t * total / BATCH


@reference("cosine")
def cosine(method, student, teacher):
    weight, bias = (array(p) for p in method.parameters())
    total = 0.0
    for a, b in zip(array(student.embedding) @ weight.T + bias, array(teacher.embedding), strict=True):
        total += 1 - (a @ b) / math.sqrt((a @ a) * (b @ b))
    return total / BATCH


@reference("hint")
def hint(method, student, teacher):
    weight, bias = (array(p) for p in method.parameters())
    regressed = convolved(array(student.features[-1]), weight, bias)
    return ((regressed - pooled(array(teacher.features[-1]), 2)) ** 2).mean()


@reference("at")
def at(method, student, teacher):
    total = 0.0
    for i, j in PAIRS:
        size = SIZES["student"][i]
        directions = []
        for maps in (array(student.features[i]), array(teacher.features[j])):
            rows = pooled((maps**2).mean(1, keepdims=True), size).reshape(BATCH, -1)
            directions.append([row / math.sqrt(row @ row) for row in rows])
        total += ((np.array(directions[0]) - np.array(directions[1])) ** 2).mean()
    return total


@reference("lskd")
def lskd(method, student, teacher):
    t, total = method.temperature, 0.0
    for a, b in zip(array(student.logits), array(teacher.logits), strict=True):
        scores = []
        for z in (a, b):
            deviation = math.sqrt(((z - z.mean()) ** 2).sum() / (CLASSES - 1))
            scores.append((z - z.mean()) / (deviation + 1e-7))
        total += kl(softmax(scores[1] / t), softmax(scores[0] / t))
    return t * t * total / BATCH


@reference("dist")
def dist(method, student, teacher):
    t = method.temperature
    p, q = (np.array([softmax(z / t) for z in array(o.logits)]) for o in (student, teacher))

    def pearson(a, b):
        a, b = a - a.mean(), b - b.mean()
        return (a @ b) / math.sqrt((a @ a) * (b @ b))

    rows = sum(pearson(p[i], q[i]) for i in range(BATCH)) / BATCH
    columns = sum(pearson(p[:, i], q[:, i]) for i in range(CLASSES)) / CLASSES
    return t * t * (method.beta * (1 - rows) + method.gamma * (1 - columns))


@reference("nkd")
def nkd(method, student, teacher):
    t, total = method.temperature, 0.0
    for a, b, y in zip(array(student.logits), array(teacher.logits), LABELS, strict=True):
        total -= softmax(b)[y] * math.log(softmax(a)[y])
        rest = zip(softmax(np.delete(a, y) / t), softmax(np.delete(b, y) / t), strict=True)
        total -= method.gamma * t * t * sum(q * math.log(p) for p, q in rest)
    return total / BATCH


@reference("ctkd")
def ctkd(method, student, teacher):
    t = 1 + 20 / (1 + math.exp(-method.state_dict()["theta"].item()))
    rows = zip(array(student.logits), array(teacher.logits), strict=True)
    return sum(t * t * kl(softmax(b / t), softmax(a / t)) for a, b in rows) / BATCH


@reference("tfkd")
def tfkd(method, student, teacher):
    t, total = method.temperature, 0.0
    for a, y in zip(array(student.logits), LABELS, strict=True):
        made = np.full(CLASSES, (1 - method.target_probability) / (CLASSES - 1))
        made[y] = method.target_probability
        powers = made ** (1 / t)
        total += t * t * kl(powers / powers.sum(), softmax(a / t))
    return total / BATCH


def smooth_l1(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


@reference("rkd")
def rkd(method, student, teacher):
    every = range(BATCH)
    distances, cosines = [], []
    for e in (array(student.embedding), array(teacher.embedding)):
        d = [[math.dist(e[i], e[j]) for j in every] for i in every]
        mean = sum(map(sum, d)) / (BATCH * (BATCH - 1))
        distances.append([d[i][j] / mean for i in every for j in every])
        cosines.append(
            [
                (e[j] - e[i]) @ (e[k] - e[i]) / (d[i][j] * d[i][k]) if i not in (j, k) else 0.0
                for i in every
                for j in every
                for k in every
            ]
        )

    def compared(sides):
        return sum(smooth_l1(a - b) for a, b in zip(*sides, strict=True)) / len(sides[0])

    return 25 * compared(distances) + 50 * compared(cosines)


@reference("pkt")
def pkt(method, student, teacher):
    total, tables = 0.0, []
    for e in (array(student.embedding), array(teacher.embedding)):
        near = [[(a @ b / math.sqrt((a @ a) * (b @ b)) + 1) / 2 for b in e] for a in e]
        tables.append([[x / sum(row) for x in row] for row in near])
    for row_s, row_t in zip(*tables, strict=True):
        total += kl(row_t, row_s)
    return total / BATCH**2


@reference("cc")
def cc(method, student, teacher):
    state = {key: array(value) for key, value in method.state_dict().items()}
    ours = array(student.embedding) @ state["student.weight"].T + state["student.bias"]
    theirs = array(teacher.embedding) @ state["teacher.weight"].T + state["teacher.bias"]
    delta = np.abs(ours - theirs)
    return sum(delta[i] @ delta[i + 1] for i in range(BATCH - 1)) / (BATCH - 1)


@reference("srrl")
def srrl(method, student, teacher):
    state = {key: array(value) for key, value in method.state_dict().items()}
    transferred = array(student.embedding) @ state["transfer.weight"].T + state["transfer.bias"]
    weight, bias = map(array, teacher.classifier)
    first = ((transferred - array(teacher.embedding)) ** 2).mean()
    return first + ((transferred @ weight.T + bias - array(teacher.logits)) ** 2).mean()


def normalised(maps: np.ndarray, state: dict[str, np.ndarray], prefix: str) -> np.ndarray:
    """Batch normalisation in training mode."""
    out = np.empty_like(maps)
    for c in range(maps.shape[1]):
        values = maps[:, c]
        scaled = (values - values.mean()) / math.sqrt(values.var() + 1e-5)
        out[:, c] = scaled * state[f"{prefix}.weight"][c] + state[f"{prefix}.bias"][c]
    return out


@reference("simkd")
def simkd(method, student, teacher):
    state = {key: array(value) for key, value in method.state_dict().items()}
    maps = array(student.features[-1])
    for part in ("reduce", "mix", "expand"):
        maps = normalised(convolved(maps, state[f"transfer.{part}.0.weight"]), state, f"transfer.{part}.1").clip(0)
    return ((maps - pooled(array(teacher.features[-1]), 2)) ** 2).mean()


@reference("sp")
def sp(method, student, teacher):
    grams = []
    for maps in (array(student.features[-1]), array(teacher.features[-1])):
        flat = maps.reshape(BATCH, -1)
        gram = [[a @ b for b in flat] for a in flat]
        grams.append([[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in gram])
    pairs = zip(np.ravel(grams[0]), np.ravel(grams[1]), strict=True)
    return sum((a - b) ** 2 for a, b in pairs) / BATCH**2


@reference("nst")
def nst(method, student, teacher):
    total = 0.0
    for i, j in PAIRS:
        size = SIZES["student"][i]
        sides = []
        for maps in (array(student.features[i]), array(teacher.features[j])):
            flat = pooled(maps, size).reshape(*maps.shape[:2], -1)
            sides.append([[f / max(math.sqrt(f @ f), 1e-12) for f in sample] for sample in flat])

        def kernel(xs, ys):
            values = [(f @ g) ** 2 for x, y in zip(xs, ys, strict=True) for f in x for g in y]
            return sum(values) / len(values)

        s, t = sides
        total += kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)
    return total


@reference("vid")
def vid(method, student, teacher):
    state = {key: array(value) for key, value in method.state_dict().items()}
    total = 0.0
    for k, (i, j) in enumerate(PAIRS):
        maps = array(student.features[i])
        for layer in (0, 2, 4):
            maps = convolved(maps.clip(0) if layer else maps, state[f"means.{k}.{layer}.weight"])
        target = pooled(array(teacher.features[j]), SIZES["student"][i])
        for c in range(target.shape[1]):
            variance = math.log(1 + math.exp(state[f"thetas.{k}"][c])) + 1e-5
            squares = ((maps[:, c] - target[:, c]) ** 2).mean()
            total += (squares / variance + math.log(variance)) / 2 / target.shape[1]
    return total


@reference("ofd")
def ofd(method, student, teacher):
    state = {key: array(value) for key, value in method.state_dict().items()}
    total = 0.0
    for k, (i, j) in enumerate(PAIRS):
        maps = normalised(convolved(array(student.features[i]), state[f"{k}.0.weight"]), state, f"{k}.1")
        target = pooled(array(teacher.features[j]), SIZES["student"][i])
        for s, t in zip(maps.ravel(), target.ravel(), strict=True):
            if t > 0 or s > 0:
                total += (s - t) ** 2 / 2 ** (2 - k) / BATCH
    return total


def enlarged(maps: np.ndarray, size: int) -> np.ndarray:
    return maps.repeat(size // maps.shape[-1], 2).repeat(size // maps.shape[-1], 3)


@reference("reviewkd")
def reviewkd(method, student, teacher):
    """On maps of 2 -> 4, 4 -> 4 and 6 -> 6: the deepest is upsampled, and 4 to 6 repeats rows as 0 0 1 2 2 3."""
    state = {key: array(value) for key, value in method.state_dict().items()}
    total, before = 0.0, None
    for k, (i, j) in enumerate(PAIRS[::-1]):
        maps = normalised(convolved(array(student.features[i]), state[f"reduce.{k}.0.weight"]), state, f"reduce.{k}.1")
        if before is not None:
            size = maps.shape[-1]
            rows = [y * before.shape[-1] // size for y in range(size)]
            deeper = before[:, :, rows][:, :, :, rows]
            both = np.concatenate([maps, deeper], 1)
            mix = convolved(both, state[f"mix.{k - 1}.0.weight"], state[f"mix.{k - 1}.0.bias"])
            mix = 1 / (1 + np.exp(-mix))
            maps = maps * mix[:, :1] + deeper * mix[:, 1:]
        target = array(teacher.features[j])
        before = enlarged(maps, target.shape[-1])
        out = normalised(convolved(before, state[f"expand.{k}.0.weight"]), state, f"expand.{k}.1")
        total += pyramid(out, target)
    return total


def pyramid(a: np.ndarray, b: np.ndarray) -> float:
    total, weights = ((a - b) ** 2).mean(), 1.0
    for size, weight in ((4, 0.5), (2, 0.25), (1, 0.125)):
        if a.shape[-1] == 4:
            weight *= 2
        if size < a.shape[-1]:
            small = [adaptively(x, size) for x in (a, b)]
            total += weight * ((small[0] - small[1]) ** 2).mean()
            weights += weight
    return total / weights


def adaptively(maps: np.ndarray, size: int) -> np.ndarray:
    """Averages over floor(i n / size) to ceil((i + 1) n / size): they overlap where size does not divide n."""
    n = maps.shape[-1]
    spans = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
    rows = np.stack([maps[:, :, a:b].mean(2) for a, b in spans], 2)
    return np.stack([rows[:, :, :, a:b].mean(3) for a, b in spans], 3)


@reference("crd")
def crd(method, student, teacher):
    """The first batch: the memory holds noise, and only the batch's own classes are known."""
    state = {key: array(value) for key, value in method.state_dict().items()}
    torch.manual_seed(5)
    drawn = torch.randint(SAMPLES, (SAMPLES,)).tolist()
    classes = dict(zip(INDEX.tolist(), LABELS.tolist(), strict=True))
    ours = array(student.embedding) @ state["student.weight"].T + state["student.bias"]
    theirs = array(teacher.embedding) @ state["teacher.weight"].T + state["teacher.bias"]
    total = 0.0
    for anchors, memory in ((ours, state["teacher.memory"]), (theirs, state["student.memory"])):
        positives, negatives = [], []
        for anchor, i, y in zip(anchors, INDEX.tolist(), LABELS, strict=True):
            anchor = anchor / math.sqrt(anchor @ anchor)
            positives.append(math.exp(anchor @ memory[i] / method.temperature))
            others = [j for j in drawn if classes.get(j) != y]
            negatives.append([math.exp(anchor @ memory[j] / method.temperature) for j in others])
        seen = [*positives, *(p for row in negatives for p in row)]
        z = SAMPLES * sum(seen) / len(seen)
        for positive, row in zip(positives, negatives, strict=True):
            noise = len(row) / SAMPLES
            total -= math.log(positive / z / (positive / z + noise))
            total -= sum(math.log(noise / (p / z + noise)) for p in row)
    return total / BATCH


LITERALS = {
    "at": 0.258605,
    "cc": 55.912,
    "cosine": 0.817866,
    "crd": 11.9363,
    "ctkd": 6.02103,
    "dist": 50.232,
    "dkd": 39.3105,
    "hint": 0.745175,
    "kd": 6.24094,
    "lskd": 1.45519,
    "mse": 15.9249,
    "nkd": 8.04107,
    "none": 0,
    "nst": 1.86424,
    "ofd": 30.5858,
    "pkt": 0.0794242,
    "reviewkd": 1.29068,
    "rkd": 4.61967,
    "simkd": 0.236051,
    "sp": 0.029051,
    "srrl": 3.34097,
    "tfkd": 4.96708,
    "vid": 0.288062,
}


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_is_its_formula(name):
    method, student, teacher = make(name), given("student"), given("teacher")
    expected = REFERENCES[name](method, student, teacher)
    torch.manual_seed(5)
    found = method(student, teacher, torch.from_numpy(LABELS)).item()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert found == pytest.approx(LITERALS[name], rel=1e-4)


def test_cosine_of_flat_maps_matches_the_tutorial():
    ours, theirs = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 8, 2, 2)
    theirs[0, 0, 0] = 4.0
    theirs[1, 7] = -1.0
    ours[0], ours[1] = 0.0, 0.0
    ours[0, 0, 0] = 1.0  # flat: 1 1 0 0 ...; the teacher's 4 4 0 0 0 0 0 0 ... by twos: 4 0 0 0 ...
    ours[1, 3, 1, 1] = 2.0  # ... 0 2; the teacher's -1 -1 -1 -1 by twos: ... -1 -1
    outputs = [Outputs(torch.zeros(2, 3), torch.zeros(2, 5), (maps,)) for maps in (ours, theirs)]
    method = methods.create("cosine", *outputs, flat=1)
    assert not list(method.parameters())
    expected = ((1 - 1 / math.sqrt(2)) + (1 + 1 / math.sqrt(2))) / 2
    assert method(*outputs, torch.tensor([0, 1])).item() == pytest.approx(expected)
    assert type(method).teacher_needs({"flat": 1}) == {"stage:-1"}
    assert type(method).teacher_needs({}) == {"embedding"}
