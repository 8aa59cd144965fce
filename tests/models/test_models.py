from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from functools import partial
from urllib.error import URLError

import pytest
import torch
from inputs import CODE, refused
from torch import nn
from torch.nn import functional as F
from torchvision import models as torchvision_models

from kdsweep import models
from kdsweep.errors import InputError, ModelError, UnknownNameError
from kdsweep.models import MODELS, Tapped
from kdsweep.models import timm as timm_models
from kdsweep.models import torchvision as torchvision_family
from kdsweep.models.slimming import slimmed

SMALLEST = {"convnet3": 37}
FOR_IMAGES = [name for name in MODELS if MODELS[name].takes == "images"]
SIDES = {"mnist_teacher": 28, "mnist_student": 28, "convnet3": 128}


@pytest.fixture(autouse=True)
def _same_draws():
    torch.manual_seed(0)


def image_shape(name, channels=3):
    side = SIDES.get(name, 32)
    return (channels, side, side)


def tapped_outputs(name, model, input_shape):
    tapped = Tapped(model.eval(), models.taps(name, model, input_shape))
    with torch.no_grad():
        outputs = tapped(torch.randn(2, *input_shape))
    tapped.close()
    return outputs


def stage_shapes(name, input_shape, **options):
    model = models.build(name, input_shape, 10, **options)
    outputs = tapped_outputs(name, model, input_shape)
    weight, bias = outputs.classifier
    torch.testing.assert_close(outputs.embedding @ weight.T + bias, outputs.logits)
    return [tuple(features.shape[1:]) for features in outputs.features]


# Sizes


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters"),
    [
        ("mnist_teacher", (1, 28, 28), 10, 1_433_610),
        ("mnist_student", (1, 28, 28), 10, 20_490),
        ("convnet3", (3, 128, 128), 10, 189_854),
        ("tutorial_teacher", (3, 32, 32), 10, 1_186_986),
        ("lightnn", (3, 32, 32), 10, 267_738),
        ("resnet20", (3, 32, 32), 100, 278_324),
        ("resnet56", (3, 32, 32), 100, 861_620),
        ("resnet8x4", (3, 32, 32), 100, 1_233_540),
        ("resnet32x4", (3, 32, 32), 100, 7_433_860),
        ("wrn_16_2", (3, 32, 32), 100, 703_284),
        ("wrn_40_2", (3, 32, 32), 100, 2_255_156),
    ],
)
def test_a_model_has_the_published_number_of_parameters(name, shape, classes, parameters):
    assert models.count_parameters(models.build(name, shape, classes)) == parameters


@pytest.mark.parametrize("name", FOR_IMAGES)
def test_a_summary_tells_the_true_number_of_parameters(name):
    found = re.search(r"([\d,]+) parameters (?:at (\S+) )?with (\d+) classes", MODELS[name].summary)
    if found is None:  # it tells none, as where options decide
        return
    parameters, at, classes = found.groups()
    shape = tuple(map(int, at.split("x"))) if at else (3, 32, 32)
    model = models.build(name, shape, int(classes))
    assert f"{models.count_parameters(model):,}" == parameters


def test_sizes_match_the_densenet_notebook():
    shape = (3, 128, 128)
    teacher = models.size_mb(models.build("torchvision/densenet121", shape, 10, head_hidden=[250, 50]))
    student = models.size_mb(models.build("convnet3", shape, 10))
    assert round(teacher, 3) == 27.874
    assert round(student, 3) == 0.724
    assert round(100 * (student / teacher - 1), 2) == -97.40


def test_size_counts_buffers_and_shared_weights_once():
    norm = nn.BatchNorm2d(256)
    assert models.size_mb(nn.Sequential(norm, norm)) == (4 * 256 * 4 + 8) / 1024**2
    assert models.count_parameters(nn.Sequential(norm, norm)) == 512


@pytest.mark.parametrize("name", FOR_IMAGES)
def test_a_model_grows_with_its_width(name):
    sizes = [models.size_mb(models.build(name, image_shape(name), 10, width)) for width in (0.1, 0.25, 0.5, 1, 1.5)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", FOR_IMAGES)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 37, 64), (3, 40, 40)])
def test_a_model_takes_other_images_and_widths(name, channels, height, width):
    model = models.build(name, (channels, height, width), 7, 0.25)
    assert model(torch.randn(2, channels, height, width)).shape == (2, 7)


DRAWN = [
    *((name, {}) for name in FOR_IMAGES if MODELS[name].blueprint is not None),
    ("resnet", {"depth": 14, "base_width": 64}),
    ("wrn", {"depth": 22, "widen_factor": 4}),
]


@pytest.mark.parametrize(("name", "options"), DRAWN, ids=[" ".join(map(str, (n, *o.values()))) for n, o in DRAWN])
@pytest.mark.parametrize("shape", [(1, 37, 64), (3, 41, 39), (3, 128, 128)])
@pytest.mark.parametrize("width", [0.1, 0.3, 1, 1.5])
def test_a_blueprint_tells_what_the_model_is(name, options, shape, width):
    model = models.architecture(name, shape, 7, width, **options)
    told = models.describe(name, shape, 7, width, **options)
    assert told.state == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert told.parameters == models.count_parameters(model)
    assert told.size_mb == models.size_mb(model)
    assert models.count(name, shape, 7, width, **options) == (told.parameters, told.size_mb)
    if width < 1 and shape[1] < 128:  # others have the same layers, and take long
        assert told.shown == tapped_outputs(name, model, shape).shapes()


@pytest.mark.parametrize(("name", "options"), DRAWN, ids=[" ".join(map(str, (n, *o.values()))) for n, o in DRAWN])
def test_a_blueprint_counts_the_operations_that_torch_counts(name, options):
    shape, width = (3, 41, 39), 0.3
    if name in ("resnet56", "resnet110"):  # the same layers as the smaller ones, and slow
        return
    model = models.build(name, shape, 7, width, **options)
    assert models.flops(name, shape, 7, width, **options) == models.count_flops(model, torch.zeros(1, *shape))


def hand_counted():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
    )  # fmt: skip


def test_operations_are_those_counted_by_hand():
    # 8 x 8 outputs of 4 kernels of 3 x 3, and 64 x 3 weights, two operations for each multiply-add: 4608 + 384.
    model = hand_counted()
    assert models.count_flops(model, torch.zeros(1, 1, 8, 8)) == 4992
    assert models.count_flops(model, torch.zeros(3, 1, 8, 8)) == 3 * 4992
    assert model.training


def test_activations_are_those_counted_by_hand():
    # The input, and input and output of the ReLU, each 4 x 8 x 8 floats: 256 + 1024 + 1024 bytes.
    assert models.activation_mb(hand_counted(), torch.zeros(1, 1, 8, 8)) * 1024**2 == 2304


def test_a_model_without_a_blueprint_is_described_by_building_it():
    shape = (3, 16, 16)
    model = models.build(own(wrapped), shape, 5, 0.5)
    told = models.describe(own(wrapped), shape, 5, 0.5)
    assert told.state == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert told.shown == tapped_outputs(own(wrapped), model, shape).shapes()
    assert told.shown == models.describe("resnet8", shape, 5, 0.5).shown
    assert models.count(own(wrapped), shape, 5, 0.5) == models.count("resnet8", shape, 5, 0.5)
    assert models.count("torchvision/resnet18", shape, 1000) == (11_689_512, told_size(11_689_512, 4800 * 2, 20))


def told_size(parameters, floats, counters):
    return (4 * (parameters + floats) + 8 * counters) / 1024**2


@pytest.mark.parametrize(
    ("name", "shape", "width", "options"),
    [
        ("convnet3", (3, 36, 64), 1, {}),
        ("lightnn", (3, 32, 3), 1, {}),
        ("resnet", (3, 32, 32), 1, {"depth": 21}),
        ("wrn", (3, 32, 32), 1, {"widen_factor": 0}),
        ("resnet20", (3, 32, 32), 0, {}),
        ("resnet20", (3, 32, 32), 1, {"depth": 20}),
        ("lightnn", (3, 32), 1, {}),
    ],
)
def test_a_blueprint_refuses_what_the_builder_refuses(name, shape, width, options):
    told = []
    for attempt in (models.build, models.describe, models.count):
        with refused(CODE, ModelError) as caught:
            attempt(name, shape, 10, width, **options)
        told.append(str(caught.value))
    assert told[0] == told[1] == told[2]


def test_a_model_to_look_at_takes_no_memory_for_its_weights():
    """What is not filled is not there."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = models.architecture("lightnn", (3, 32, 32), 10, 50)
    assert models.count_parameters(model) > 5e8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_model_to_look_at_keeps_its_buffers():
    built, empty = (make("resnet8", (3, 16, 16), 5).state_dict() for make in (models.build, models.architecture))
    buffers = [key for key in built if "running" in key or "tracked" in key]
    assert len(buffers) > 10
    assert all(torch.equal(built[key], empty[key]) for key in buffers)


def test_options_choose_a_residual_network():
    by_option = models.build("resnet", (3, 32, 32), 100, depth=32, base_width=64)
    assert models.count_parameters(by_option) == 7_433_860
    assert models.count_parameters(models.build("wrn", (3, 32, 32), 100, depth=40, widen_factor=2)) == 2_255_156


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "lightnn", "torchvision/shufflenet_v2_x0_5"])
def test_the_same_seed_draws_the_same_weights(name):
    built = []
    for _ in range(2):
        torch.manual_seed(3)
        built.append(models.build(name, (3, 32, 32), 10).state_dict())
    assert all(torch.equal(built[0][key], built[1][key]) for key in built[0])
    torch.manual_seed(4)
    other = models.build(name, (3, 32, 32), 10).state_dict()
    assert any(not torch.equal(built[0][key], other[key]) for key in other)


# Families


class TutorialTeacher(nn.Module):
    """As the tutorial's reader would have it."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 128, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
            nn.Conv2d(64, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
        self.classifier = nn.Sequential(nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 10))

    def forward(self, images):
        return self.classifier(torch.flatten(self.features(images), 1))


def test_a_state_dict_of_the_tutorials_code_loads():
    theirs = TutorialTeacher().eval()
    ours = models.build("tutorial_teacher", (3, 32, 32), 10).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


# Where TensorFlow's first window starts, and how many there are, for kernel 3 and stride 2.
KERAS_WINDOWS = {14: (0, 7), 15: (-1, 8), 27: (-1, 14), 28: (0, 14), 29: (-1, 15)}


def keras_conv(maps, conv):
    """Kernel 3, stride 2, 'same': each output from the pixels that its window covers, one by one."""
    size = maps.shape[-1]
    start, count = KERAS_WINDOWS[size]
    out = conv.bias.view(1, -1, 1, 1).repeat(len(maps), 1, count, count)
    for i in range(count):
        for j in range(count):
            for a in range(3):
                for b in range(3):
                    y, x = start + 2 * i + a, start + 2 * j + b
                    if 0 <= y < size and 0 <= x < size:
                        out[:, :, i, j] += maps[:, :, y, x] @ conv.weight[:, :, a, b].T
    return out


@pytest.mark.parametrize("size", [27, 28, 29])
def test_the_keras_pair_pads_as_tensorflow_does(size):
    model = models.build("mnist_student", (1, size, size), 10, 0.25).eval()
    images = torch.randn(2, 1, size, size)
    with torch.no_grad():
        maps = F.leaky_relu(keras_conv(images, model.conv1), 0.2)
        side = range(maps.shape[-1])
        pooled = torch.stack([maps[:, :, i : i + 2, j : j + 2].amax((2, 3)) for i in side for j in side], 2)
        last = keras_conv(pooled.view_as(maps), model.conv2)
        torch.testing.assert_close(model(images), model.fc(last.flatten(1)))


class Published:
    """Layers of a residual network in evaluation mode, by the names of RepDistiller's state dicts."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, maps, stride=1):
        weight = self.state[f"{name}.weight"]
        return F.conv2d(maps, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, name, maps):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(maps, *(self.state[f"{name}.{key}"] for key in keys))

    def head(self, maps):
        return F.linear(maps.mean((2, 3)), self.state["fc.weight"], self.state["fc.bias"])

    def resnet(self, images, blocks):
        maps = F.relu(self.norm("bn1", self.conv("conv1", images)))
        for stage in (1, 2, 3):
            for block in range(blocks):
                at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                inner = F.relu(self.norm(f"{at}.bn1", self.conv(f"{at}.conv1", maps, stride)))
                inner = self.norm(f"{at}.bn2", self.conv(f"{at}.conv2", inner))
                if f"{at}.downsample.0.weight" in self.state:
                    maps = self.norm(f"{at}.downsample.1", self.conv(f"{at}.downsample.0", maps, stride))
                maps = F.relu(inner + maps)
        return self.head(maps)

    def wrn(self, images, blocks):
        maps = self.conv("conv1", images)
        for stage in (1, 2, 3):
            for block in range(blocks):
                at, stride = f"block{stage}.layer.{block}", 2 if stage > 1 and block == 0 else 1
                active = F.relu(self.norm(f"{at}.bn1", maps))
                inner = self.conv(f"{at}.conv1", active, stride)
                inner = self.conv(f"{at}.conv2", F.relu(self.norm(f"{at}.bn2", inner)))
                if f"{at}.convShortcut.weight" in self.state:
                    maps = self.conv(f"{at}.convShortcut", active, stride)
                maps = inner + maps
        return self.head(F.relu(self.norm("bn1", maps)))


@pytest.mark.parametrize(
    ("name", "published", "blocks", "shortcuts"),
    [
        ("resnet14", Published.resnet, 2, 2),
        ("resnet8x4", Published.resnet, 1, 3),
        ("wrn_16_1", Published.wrn, 2, 2),
        ("wrn_16_2", Published.wrn, 2, 3),
    ],
)
def test_a_residual_network_computes_what_was_published(name, published, blocks, shortcuts):
    model = models.build(name, (3, 16, 16), 10)
    model(torch.randn(8, 3, 16, 16))  # moves the batch norms' statistics off their start
    state = model.eval().state_dict()
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), published(Published(state), images, blocks))
    assert sum(key.endswith(("downsample.0.weight", "convShortcut.weight")) for key in state) == shortcuts


def test_a_small_image_is_refused_where_pooling_would_leave_nothing():
    with refused(CODE, ModelError, match="at least 37x37, found 64x36"):
        models.build("convnet3", (3, 36, 64), 10)


# Taps


@pytest.mark.parametrize("name", FOR_IMAGES)
def test_a_registered_model_shows_its_stages_and_its_classifier(name):
    shape = image_shape(name)
    stages = stage_shapes(name, shape)
    assert len(stages) == len(MODELS[name].taps.stages) >= 1
    sides = [height for _, height, _ in stages]
    assert sides == sorted(set(sides), reverse=True)
    assert all(height == width for _, height, width in stages)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("lightnn", [(16, 16, 16), (16, 8, 8)]),
        ("mnist_teacher", [(256, 14, 14), (512, 7, 7)]),
        ("convnet3", [(16, 31, 31), (32, 7, 7), (64, 3, 3)]),
        ("resnet8x4", [(64, 32, 32), (128, 16, 16), (256, 8, 8)]),
        ("wrn_16_2", [(32, 32, 32), (64, 16, 16), (128, 8, 8)]),
    ],
)
def test_stage_maps_have_the_published_shapes(name, stages):
    assert stage_shapes(name, image_shape(name)) == stages


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "resnet8x4", "lightnn", "convnet3"])
def test_stage_maps_are_taken_after_the_activation(name):
    shape = image_shape(name)
    outputs = tapped_outputs(name, models.build(name, shape, 10), shape)
    assert all(features.min() >= 0 for features in outputs.features)
    torch.testing.assert_close(outputs.features[-1].min(), torch.tensor(0.0))


@pytest.mark.parametrize("name", ["resnet20", "torchvision/mobilenet_v2", "torchvision/densenet121"])
def test_tapping_does_not_change_the_logits(name):
    shape = (3, 32, 32)
    model = models.build(name, shape, 10).eval()
    images = torch.randn(2, *shape)
    with torch.no_grad():
        plain = model(images)
        tapped = Tapped(model, models.taps(name, model, shape))
        assert torch.equal(tapped(images).logits, plain)
    tapped.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "stages", "head"),
    [
        ("resnet18", ("layer1", "layer2", "layer3", "layer4"), "fc"),
        ("resnet50", ("layer1", "layer2", "layer3", "layer4"), "fc"),
        (
            "densenet121",
            ("features.denseblock1", "features.denseblock2", "features.denseblock3", "features"),
            "classifier",
        ),
        ("mobilenet_v2", ("features.1", "features.3", "features.6", "features.13", "features"), "classifier.1"),
        ("shufflenet_v2_x0_5", ("stage2", "stage3", "conv5"), "fc"),
    ],
)
def test_a_torchvision_model_is_tapped_at_its_stages(name, stages, head):
    name = f"torchvision/{name}"
    shape = (3, 64, 64)
    model = models.build(name, shape, 10)
    assert models.taps(name, model, shape) == models.Taps(stages, head)
    outputs = tapped_outputs(name, model, shape)
    assert outputs.features[-1].shape[2:] == (2, 2)
    weight, bias = outputs.classifier
    torch.testing.assert_close(outputs.embedding @ weight.T + bias, outputs.logits)


def test_a_resolution_that_shrank_to_one_pixel_is_no_stage():
    assert stage_shapes("torchvision/resnet18", (3, 32, 32)) == [(64, 8, 8), (128, 4, 4), (256, 2, 2)]


class SharedActivation(nn.Module):
    """One ReLU for two resolutions, in place, and a counter that every call moves."""

    def __init__(self, channels, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.conv3 = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, num_classes)
        self.register_buffer("calls", torch.zeros(()))
        self.norm.eval()

    def forward(self, images):
        self.calls = self.calls + 1
        maps = self.relu(self.conv2(self.relu(self.conv1(images))))
        maps = F.dropout(self.relu(self.norm(self.conv3(maps))), 0.5, training=True)
        return self.fc(maps.mean((2, 3)))


def shared_activation(input_shape, num_classes, width, scale=1):
    return SharedActivation(input_shape[0], num_classes)


def own(function):
    return f"{__name__}:{function.__name__}"


def test_a_module_used_twice_is_tapped_only_where_it_ran_last():
    name, shape = own(shared_activation), (3, 16, 16)
    model = models.build(name, shape, 5)
    assert models.taps(name, model, shape) == models.Taps(("conv2", "relu"), "fc")


def test_looking_for_taps_leaves_no_trace():
    name, shape = own(shared_activation), (3, 16, 16)
    before = torch.get_rng_state()
    expected = SharedActivation(3, 5).state_dict()
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    model = models.build(name, shape, 5)
    models.taps(name, model, shape)
    assert torch.equal(torch.get_rng_state(), after)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert model.calls == 0
    assert model.training
    assert not model.norm.training
    assert not any(module._forward_hooks for module in model.modules())


def wrapped(input_shape, num_classes, width):
    return nn.Sequential(nn.Identity(), models.build("resnet8", input_shape, num_classes, width))


def nested(input_shape, num_classes, width):
    body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 1))
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def flat(input_shape, num_classes, width):
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(4, num_classes))


def attentive(input_shape, num_classes, width):
    return torchvision_models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=num_classes)


@pytest.mark.parametrize(
    ("function", "stages", "head"),
    [
        (wrapped, ("1.layer1", "1.layer2", "1.layer3"), "1.fc"),
        (nested, ("2",), "5"),
        (flat, ("0.3",), "2"),
        (attentive, (), "heads.head"),
    ],
)
def test_a_users_model_is_tapped_at_the_outermost_cuts(function, stages, head):
    shape = (3, 16, 16)
    model = models.build(own(function), shape, 5)
    assert models.taps(own(function), model, shape) == models.Taps(stages, head)


def fully_convolutional(input_shape, num_classes, width):
    return nn.Sequential(nn.Conv2d(3, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_model_without_a_linear_layer_has_no_embedding():
    model = models.build(own(fully_convolutional), (3, 16, 16), 5)
    with refused(CODE, ModelError, match="no linear layer that gives its logits"):
        models.taps(own(fully_convolutional), model, (3, 16, 16))


# torchvision and timm


def test_torchvisions_names_are_read_without_importing_it():
    assert list(torchvision_family.names()) == torchvision_models.list_models(module=torchvision_models)


def test_a_grey_image_gets_a_new_first_convolution():
    model = models.build("torchvision/resnet18", (1, 28, 28), 10)
    assert model.conv1.weight.shape == (64, 1, 7, 7)
    assert model.conv1.stride == (2, 2)
    assert model.conv1.bias is None


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mobilenet_v2", torchvision_models.mobilenet_v2(width_mult=0.5)),
        ("mobilenet_v3_small", torchvision_models.mobilenet_v3_small(width_mult=0.5)),
        ("mnasnet1_0", torchvision_models.mnasnet0_5()),
    ],
)
def test_a_torchvision_model_with_a_width_takes_it(name, published):
    half = models.build(f"torchvision/{name}", (3, 32, 32), 10, 0.5)
    *_, head = published.classifier
    assert models.count_parameters(published) - models.count_parameters(half) == 990 * (head.in_features + 1)


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "efficientnet_b5", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x2_0"]
)
def test_a_slimmed_model_is_torchvisions_own_at_width_1(name):
    with torch.device("meta"):
        ours, theirs = slimmed(name, name, 1.0)(), torchvision_models.get_model(name)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    ("name", "embedding"), [("torchvision/efficientnet_b0", 4 * 160), ("torchvision/shufflenet_v2_x1_0", 512)]
)
def test_a_slimmed_model_is_narrower_everywhere_and_takes_images(name, embedding):
    half = models.describe(name, (3, 32, 32), 10, 0.5)
    assert half.shown.embedding.shape == (2, embedding)
    whole, _ = models.count(name, (3, 32, 32), 10)
    assert 0.2 < half.parameters / whole < 0.4
    assert models.count(name, (3, 32, 32), 10, 0.05)[0] < half.parameters


def test_a_model_with_fixed_channels_says_which_have_a_width():
    expected = "because torchvision fixes its channels, found 0.5; accepted: 1; torchvision models with a width are mob"
    with refused(CODE, ModelError, match=expected):
        models.build("torchvision/efficientnet_v2_s", (3, 32, 32), 10, 0.5)


def fake_download(monkeypatch, answer):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", answer)


def test_pretrained_weights_are_loaded_beneath_a_new_head(monkeypatch):
    state = torchvision_models.shufflenet_v2_x0_5().state_dict()
    fake_download(monkeypatch, lambda *args, **kwargs: state)
    model = models.build("torchvision/shufflenet_v2_x0_5", (3, 32, 32), 10, weights="DEFAULT")
    assert torch.equal(model.conv5[0].weight, state["conv5.0.weight"])
    assert model.fc.weight.shape == (10, 1024)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_pretrained_inceptions_lose_their_auxiliary_heads(monkeypatch, name):
    state = torchvision_models.get_model(name, init_weights=False).state_dict()
    assert any("aux" in key.lower() for key in state)
    fake_download(monkeypatch, lambda *args, **kwargs: state)
    model = models.build(f"torchvision/{name}", (3, 80, 80), 10, weights="DEFAULT")
    assert model.train()(torch.randn(2, 3, 80, 80)).shape == (2, 10)
    assert not any("aux" in key.lower() for key in model.state_dict())


def test_a_failed_download_is_one_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no route\nto host")

    fake_download(monkeypatch, refuse)
    with refused(CODE, ModelError, match=r"weights DEFAULT cannot be fetched or read: .*no route") as caught:
        models.build("torchvision/resnet18", (3, 32, 32), 10, weights="DEFAULT")
    assert "\n" not in str(caught.value)


def test_timm_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(timm_models, "find_spec", lambda name: None)
    with refused(CODE, ModelError, match=re.escape("pip install '.[timm]' in a checkout of kdsweep")):
        models.exists("timm/resnet18")


@pytest.mark.slow  # timm is an extra, which the environment of the slow tests has
def test_a_timm_model_is_built_and_tapped():
    pytest.importorskip("timm")
    assert stage_shapes("timm/resnet18", (1, 64, 64)) == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    with refused(CODE, UnknownNameError, match="did you mean resnet18"):
        models.build("timm/resnt18", (3, 64, 64), 10)
    siblings = "sizes are models of their own: timm/mobilenetv3_small_050, timm/mobilenetv3_small_075"
    with refused(CODE, ModelError, match=siblings):
        models.build("timm/mobilenetv3_small_100", (3, 64, 64), 10, 0.5)


# Names, options and what is refused


def wrong_logits(input_shape, num_classes, width):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes + 1))


def several_outputs(input_shape, num_classes, width):
    class Both(nn.Module):
        def forward(self, images):
            return images, images

    return Both()


def no_module(input_shape, num_classes, width):
    return 3


def raises(input_shape, num_classes, width):
    raise RuntimeError("first line\nsecond line")


def needs_an_option(input_shape, num_classes, width, *, blocks):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes))


def two_arguments(input_shape, num_classes):
    return nn.Identity()


build = partial(models.build, input_shape=(3, 16, 16), num_classes=5)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"name": "lightn"}, r"did you mean 'lightnn'\?.*timm/<name>, transformers/<type>, package\.module:"),
        ({"name": "resnet18"}, r"did you mean 'torchvision/resnet18'\?"),
        ({"name": "somewhere/resnet18"}, r"unknown model 'somewhere/resnet18'"),
        ({"name": "torchvision/resnet19"}, r"unknown torchvision model 'resnet19'; did you mean 'resnet18'\?"),
        ({"name": "no_such_module:f"}, r"cannot import 'no_such_module'"),
        ({"name": f"{__name__}:nothing"}, r"has no 'nothing'"),
        ({"name": "a:b:c"}, r"accepted: package\.module:function"),
        ({"name": "math:pi"}, r"cannot be called as \(input_shape, num_classes, width\)"),
        ({"name": own(two_arguments)}, r"cannot be called as \(input_shape, num_classes, width\)"),
        ({"name": own(no_module)}, r"is an int; accepted: a torch\.nn\.Module"),
        ({"name": own(raises)}, r"cannot be built: first line$"),
        ({"name": own(wrong_logits)}, r"returns \[2, 6\] for 2 images; accepted: logits \[2, 5\]"),
        ({"name": own(several_outputs)}, r"returns a tuple; accepted: logits \[B, 5\]"),
        ({"name": own(needs_an_option)}, r"needs the option 'blocks'"),
        ({"name": own(shared_activation), "scal": 2}, r"no option 'scal'; did you mean 'scale'\? accepted: scale"),
        ({"name": own(shared_activation), "input_shape": (3, 16, 0)}, r"accepted: \(channels, height, width\)"),
        ({"name": "lightnn", "depth": 3}, r"no option 'depth'; it takes none"),
        ({"name": "lightnn", "num_classes": 0}, r"num_classes 0; accepted: .*above 0"),
        ({"name": "lightnn", "input_shape": (3, 16)}, r"input_shape is \(3, 16\)"),
        ({"name": "lightnn", "width": 0}, r"width is 0; accepted: a number above 0"),
        ({"name": "lightnn", "width": "wide"}, r"width is 'wide'; accepted: a number above 0"),
        ({"name": "lightnn", "width": float("inf")}, r"width is inf; accepted: a number above 0"),
        ({"name": "lightnn", "input_shape": (3, 2, 16)}, r"at least 4x4, found 16x2"),
        ({"name": "resnet", "depht": 20}, r"no option 'depht'; did you mean 'depth'\? accepted: base_width, depth"),
        ({"name": "resnet", "depth": 21}, r"depth is 21; accepted: 8, 14, 20"),
        ({"name": "resnet", "depth": 20.0}, r"depth is 20\.0; accepted: 8, 14, 20"),
        ({"name": "resnet", "base_width": True}, r"base_width is True; accepted: a whole number above 0"),
        ({"name": "resnet20", "depth": 32}, r"no option 'depth'; it takes none"),
        ({"name": "wrn", "depth": 20}, r"depth is 20; accepted: 10, 16"),
        ({"name": "wrn", "widen_factor": 0}, r"widen_factor is 0; accepted: a whole number above 0"),
        ({"name": "torchvision/resnet18", "width": 0.5}, r"no width to vary, because .+, found 0\.5; accepted: 1;"),
        ({"name": "torchvision/resnet18", "weights": "V1"}, r"no weights 'V1'.*accepted: DEFAULT, IMAGENET1K_V1"),
        ({"name": "torchvision/resnet18", "weights": ["V1"]}, r"no weights \['V1'\]"),
        (
            {"name": "torchvision/resnet18", "weights": "DEFAULT", "input_shape": (1, 32, 32)},
            r"takes images of 3 channels, found 1",
        ),
        ({"name": "torchvision/mobilenet_v2", "weights": "DEFAULT", "width": 0.5}, r"with weights has no width"),
        ({"name": "torchvision/resnet18", "head_hidden": [0]}, r"head_hidden is 0; accepted: a whole number"),
        ({"name": "torchvision/resnet18", "head_hidden": 50}, r"head_hidden is 50; accepted: a list of layer sizes"),
        ({"name": "torchvision/squeezenet1_1"}, r"does not end in a linear layer"),
        ({"name": "torchvision/vgg11"}, r"does not take 3x16x16 images: .*too small"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(request_, message):
    with refused(CODE, InputError, match=message) as caught:
        build(**request_)
    assert "\n" not in str(caught.value)


def test_names_and_options_are_checked_without_the_users_code():
    models.exists("no_such_module:function")
    models.check_options("no_such_module:function", ["anything"])
    models.check_options("torchvision/resnet18", ["weights", "head_hidden"])
    with refused(CODE, ModelError, match="did you mean 'weights'"):
        models.check_options("torchvision/resnet18", ["weight"])


def test_names_and_options_are_checked_without_torch():
    program = """
import sys
import kdsweep.models
from kdsweep.errors import UnknownNameError

for name in ("lightnn", "resnet20", "torchvision/densenet121", "package.module:function"):
    kdsweep.models.exists(name)
kdsweep.models.check_options("resnet", ["depth"])
kdsweep.models.check_options("torchvision/densenet121", ["head_hidden"])
try:
    kdsweep.models.exists("torchvision/densenet12")
except UnknownNameError as error:
    assert "did you mean 'densenet121'" in str(error)
else:
    raise AssertionError
assert not {"torch", "torchvision", "ray"} & set(sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


# Normalisation


def test_a_normalised_model_takes_images_scaled_to_one():
    model = models.build("lightnn", (3, 32, 32), 10).eval()
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    images = torch.rand(2, 3, 32, 32)
    channels = [(images[:, c] - mean[c]) / std[c] for c in range(3)]
    whole = models.normalised(model, mean, std)
    torch.testing.assert_close(whole(images), model(torch.stack(channels, 1)))
    assert whole.model is model
    assert set(whole.normalise.state_dict()) == {"mean", "std"}


def test_normalisation_needs_a_deviation_above_zero():
    with refused(CODE, ModelError, match="std above 0"):
        models.normalised(nn.Identity(), (0.5,), (0.0,))
