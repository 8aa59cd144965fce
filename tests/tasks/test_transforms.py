"""Keyed transforms: torchvision's values, the same view in any batch, and labels mixed as the images are."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from kdsweep.seeds import derived_seed
from kdsweep.tasks.image.batches import Images
from kdsweep.tasks.image.transforms import TRANSFORMS, Draws
from kdsweep.tasks.image.transforms.blocks.boxes import Boxes
from kdsweep.tasks.image.transforms.blocks.menu import BINS, OPERATIONS, RAND, TRIVIAL, levels, operated
from kdsweep.tasks.image.transforms.written import faults_of, text_of, transforms_of, with_values
from kdsweep.tasks.image.views import View

CPU = torch.device("cpu")
EVERY = (
    "random_resized_crop+crop+flip+color_jitter+rand_augment+trivial_augment+random_erasing"
    "+mixup(alpha=0.4, probability=0.5)+cutmix(probability=0.4)"
)


def photos(count, height=16, width=20, channels=3):
    """Smooth images with some noise: made like photographs, so that neighbouring pixels are alike."""
    draw = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, channels, 4, 5, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 220
    return (smooth + 30 * torch.rand(count, channels, height, width, generator=draw)).to(torch.uint8)


# torchvision's values


def by_torchvision(image, name, level):
    """The operation on one image; levels of translations are pixels."""
    nearest = InterpolationMode.NEAREST
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "interpolation": nearest}
    shear = math.degrees(math.atan(level))
    return {
        "identity": lambda: image,
        "shear_x": lambda: vision.affine(image, **(still | {"shear": [shear, 0.0], "center": [0, 0]})),
        "shear_y": lambda: vision.affine(image, **(still | {"shear": [0.0, shear], "center": [0, 0]})),
        "translate_x": lambda: vision.affine(image, **(still | {"translate": [int(level), 0]})),
        "translate_y": lambda: vision.affine(image, **(still | {"translate": [0, int(level)]})),
        "rotate": lambda: vision.rotate(image, level, interpolation=nearest),
        "brightness": lambda: vision.adjust_brightness(image, 1 + level),
        "color": lambda: vision.adjust_saturation(image, 1 + level),
        "contrast": lambda: vision.adjust_contrast(image, 1 + level),
        "sharpness": lambda: vision.adjust_sharpness(image, 1 + level),
        "posterize": lambda: vision.posterize(image, int(level)),
        "solarize": lambda: vision.solarize(image, level),
        "autocontrast": lambda: vision.autocontrast(image),
        "equalize": lambda: vision.equalize(image),
    }[name]()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("relative", [True, False], ids=["rand", "trivial"])
def test_each_operation_has_the_values_of_torchvision_in_a_batch_of_all_operations(relative, channels):
    drawn = [(place, bin_, sign) for place in range(len(OPERATIONS)) for bin_ in (0, 7, 30) for sign in (False, True)]
    operation, bins = (torch.tensor(column) for column in list(zip(*drawn, strict=True))[:2])
    level = levels(RAND if relative else TRIVIAL, operation, bins, torch.tensor([sign for *_, sign in drawn]))
    images = photos(len(drawn), channels=channels)
    found = operated(images, operation, level, relative)
    height, width = images.shape[2:]
    assert found.dtype == torch.uint8
    for place, (image, seen) in enumerate(zip(images, found, strict=True)):
        name = OPERATIONS[drawn[place][0]]
        side = {"translate_x": width, "translate_y": height}.get(name, 1) if relative else 1
        expected = by_torchvision(image, name, float(level[place]) * side)
        difference = (seen.int() - expected.int()).abs()
        where = f"{name} {drawn[place]}"
        if name in ("shear_x", "shear_y", "rotate"):  # a pixel that lies between two may be rounded either way
            assert (difference > 0).float().mean() <= 0.02, where
        else:
            assert difference.max() <= 1, where
            assert (difference > 0).float().mean() <= 0.03, where


def test_the_levels_are_those_of_torchvision():
    from torchvision.transforms.v2 import RandAugment, TrivialAugmentWide

    theirs = {"Color": "color", "AutoContrast": "autocontrast"}
    for reach, cls, side in ((RAND, RandAugment, 40), (TRIVIAL, TrivialAugmentWide, 1)):
        for name, (magnitudes, signed) in cls._AUGMENTATION_SPACE.items():
            ours = theirs.get(name, "".join(f"_{c.lower()}" if c.isupper() else c for c in name).strip("_"))
            wanted = magnitudes(BINS, side, side)
            operation = torch.full((BINS,), OPERATIONS.index(ours))
            both = [levels(reach, operation, torch.arange(BINS), torch.full((BINS,), down)) for down in (False, True)]
            if wanted is None:
                continue
            scale = side if name.startswith("Translate") and reach is RAND else 255 if name == "Solarize" else 1
            assert torch.allclose(
                both[0] * (scale if name != "Solarize" else 1), wanted.float() * (255 if name == "Solarize" else 1)
            )
            assert torch.equal(both[1], -both[0] if signed else both[0])


def test_color_jitter_has_the_values_of_torchvision():
    images, transform = photos(64), TRANSFORMS.create("color_jitter", hue=0.3)
    drawn = transform.draw(Draws(0, 1, 64, "color_jitter"))
    for image, seen, factors in zip(images, transform.apply(images, drawn), drawn.tolist(), strict=True):
        brightness, contrast, saturation, hue = factors
        expected = vision.adjust_brightness(image, 1 + 0.4 * brightness)
        expected = vision.adjust_contrast(expected, 1 + 0.4 * contrast)
        expected = vision.adjust_saturation(expected, 1 + 0.4 * saturation)
        expected = vision.adjust_hue(expected, 0.3 * hue)
        difference = (seen.int() - expected.int()).abs()
        assert difference.max() <= 3
        assert difference.float().mean() < 0.1


def test_random_resized_crop_has_the_values_of_torchvision_in_boxes_of_the_asked_size():
    images, transform = photos(64), TRANSFORMS.create("random_resized_crop", scale=0.1)
    drawn = transform.draw(Draws(0, 1, 64, "random_resized_crop"))
    boxes = Boxes.drawn(drawn, (0.1, 1.0), 4 / 3, 16, 20)
    assert boxes.found.all()
    areas = (boxes.height * boxes.width) / 320
    assert 0.05 < areas.min() < 0.2
    assert areas.max() > 0.8
    for place, seen in enumerate(transform.apply(images, drawn)):
        top, left, height, width = (int(part[place]) for part in boxes[:4])
        assert top + height <= 16
        assert left + width <= 20
        expected = vision.resized_crop(images[place].float(), top, left, height, width, [16, 20], antialias=False)
        assert (seen.float() - expected).abs().max() < 0.51


def test_random_erasing_sets_boxes_of_the_asked_area_to_zero():
    images = torch.rand(400, 3, 16, 20) + 1
    transform = TRANSFORMS.create("random_erasing", smallest=0.2, largest=0.3)
    erased = transform.apply(images, transform.draw(Draws(0, 1, 400, "random_erasing")))
    gone = erased == 0
    assert torch.equal(erased[~gone], images[~gone])
    assert torch.equal(gone[:, 0], gone[:, 2])
    share = gone[:, 0].float().mean((1, 2))
    assert 0.4 < (share > 0).float().mean() < 0.6
    assert ((share == 0) | ((share > 0.15) & (share < 0.35))).all()
    for box in gone[:, 0][share > 0]:
        rows, columns = box.any(1).nonzero(), box.any(0).nonzero()
        assert box[rows[0, 0] : rows[-1, 0] + 1, columns[0, 0] : columns[-1, 0] + 1].all()


# Mixing


def split(pixels, classes=3):
    return Images(pixels, torch.arange(len(pixels)) % classes, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def test_mixup_and_its_labels_are_the_blend_of_the_two_images_computed_in_float64():
    images = split(photos(6, 3, 3))
    view, every = images.view("mixup(alpha=0.7)", 5, 2), torch.arange(6)
    share = np.random.default_rng(derived_seed(5, "view", 2, "mixup", "beta")).beta(0.7, 0.7, 6)
    partners = torch.randperm(6, generator=torch.Generator().manual_seed(derived_seed(5, "view", 2, "partner"))).numpy()
    pixels = images.images.numpy().astype(np.float64) / 255
    mean, std = (np.array(numbers)[None, :, None, None] for numbers in (images.mean, images.std))
    normalised, lam = (pixels - mean) / std, share[:, None, None, None]
    expected = lam * normalised + (1 - lam) * normalised[partners]
    assert np.abs(images.batch(every, view).numpy() - expected).max() < 1e-5
    labels = np.eye(3)[np.arange(6) % 3]
    wanted = share[:, None] * labels + (1 - share[:, None]) * labels[partners]
    targets = images.targets(every, view)
    assert np.abs(targets.probabilities(3).numpy() - wanted).max() < 1e-6
    assert targets.dominant().tolist() == np.where(share >= 0.5, np.arange(6) % 3, partners % 3).tolist()


def test_cutmix_pastes_a_box_of_the_partner_and_mixes_labels_by_its_area():
    count, height, width = 200, 16, 20
    images = split(photos(count, height, width))
    view, every = images.view("cutmix", 0, 1), torch.arange(count)
    own, targets = images.batch(every), images.targets(every, view)
    partners = torch.randperm(count, generator=torch.Generator().manual_seed(derived_seed(0, "view", 1, "partner")))
    mixed = images.batch(every, view)
    lam = np.random.default_rng(derived_seed(0, "view", 1, "cutmix", "beta")).beta(1.0, 1.0, count)
    for place in range(count):
        pasted = (mixed[place] != own[place]).any(0)
        assert torch.equal(mixed[place][:, pasted], own[partners[place]][:, pasted])
        assert 1 - float(targets.share[place]) >= float(pasted.float().mean()) - 1e-6
        # The box is at most as large as drawn: it may be cut off at the border.
        assert float(targets.share[place]) >= lam[place] - 1e-6
    kept = torch.as_tensor(lam)
    assert (targets.share - kept).abs().median() < 0.2
    assert torch.equal(targets.second, images.labels[partners])


def test_of_two_mixers_each_sample_is_mixed_by_one_in_their_proportion():
    images = split(photos(2000, 8, 8))
    every = torch.arange(2000)
    both = images.targets(every, images.view("mixup(probability=0.5)+cutmix(probability=0.2)", 0, 1)).share
    mixup, cutmix = (images.targets(every, images.view(name, 0, 1)).share for name in ("mixup", "cutmix"))
    assert 0.27 < (both == 1).float().mean() < 0.36  # 0.3, and boxes of no pixel
    assert 0.46 < (both == mixup).float().mean() < 0.54
    assert ((both == mixup) | (both == cutmix) | (both == 1)).all()
    halves = images.targets(every, images.view("mixup+cutmix", 0, 1)).share
    assert 0.46 < (halves == mixup).float().mean() < 0.54


# Keyed


def test_an_image_has_the_same_view_in_every_batch_and_order():
    images = split(photos(40))
    every = torch.arange(40)
    view = images.view(EVERY, 3, 7)
    whole, targets = images.batch(every, view), images.targets(every, view)
    assert (whole - images.batch(every)).abs().flatten(1).amax(1).min() > 0.1
    order = torch.randperm(40)
    for size in (1, 3, 16, 40):
        again = images.view(EVERY, 3, 7)
        for index, found in zip(order.split(size), images.sequence(order.split(size), again), strict=True):
            assert torch.equal(found, whole[index])
            assert found.is_contiguous(memory_format=torch.channels_last)
            assert all(map(torch.equal, images.targets(index, again), (part[index] for part in targets)))
    for other in (images.view(EVERY, 3, 8), images.view(EVERY, 4, 7)):
        assert (images.batch(every, other) - whole).abs().flatten(1).amax(1).median() > 0.1


def test_lists_of_the_former_names_are_the_former_views():
    images, every = photos(300, 28, 28), torch.arange(300)
    for written, name in (
        (["crop", "flip"], "crop_flip"),
        (["flip"], "flip"),
        ([], "none"),
        (["crop_flip"], "crop_flip"),
    ):
        assert text_of(written) == name
    draw = torch.Generator().manual_seed(derived_seed(2, "view", 3))
    mirrored, shift = torch.rand(300, generator=draw) < 0.5, torch.rand(300, 2, generator=draw)
    found = View("crop_flip", 2, 3, 300, CPU).apply(images, every)
    padded = torch.nn.functional.pad(images, (3, 3, 3, 3))
    for place in range(300):
        top, left = (int(part * 7) for part in shift[place])
        window = padded[place, :, top : top + 28, left : left + 28]
        assert torch.equal(found[place], window.flip(2) if mirrored[place] else window)
    assert torch.equal(images.new_tensor(0) + View("crop+flip+mixup", 2, 3, 300, CPU).apply(images, every), found)


# Written


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("none", "none"),
        (["crop_flip", "mixup"], "crop+flip+mixup"),
        (["crop", {"mixup": {"alpha": 0.2}}], "crop+mixup(alpha=0.2)"),
        (["flip", {"mixup": {"alpha": 1.0, "probability": 0.5}}], "flip+mixup(probability=0.5)"),
        ("crop + flip + rand_augment(magnitude=5, operations=1)", "crop+flip+rand_augment(operations=1, magnitude=5)"),
        ([{"flip": {"probability": 0.5}}, {"crop": {}}], "flip+crop"),
    ],
)
def test_equal_lists_have_one_text_which_reads_back(written, text):
    assert text_of(written) == text
    assert text_of(text) == text


def test_values_replace_those_of_a_text():
    assert with_values("crop+mixup(probability=0.5)", {"mixup.alpha": 0.25, "cutmix.alpha": 3}) == (
        "crop+mixup(alpha=0.25, probability=0.5)"
    )
    assert with_values("crop_flip", {"mixup.alpha": 0.25}) == "crop_flip"
    assert [transform.name for transform in transforms_of("crop_flip")] == ["crop", "flip"]


@pytest.mark.parametrize(
    ("written", "path", "message"),
    [
        ("mixupp", (), "unknown transform 'mixupp'; did you mean 'mixup'"),
        (["crop", "flop"], (1,), "unknown transform 'flop'"),
        (["crop", {"mixup": {"alpha": -1}}], (1, "mixup", "alpha"), "found -1; accepted: a number from 0.01 to 100"),
        ([{"mixup": {"alpah": 1}}], (0, "mixup", "alpah"), "unknown parameter 'alpah' of mixup; did you mean 'alpha'"),
        (["mixup", "flip"], (1,), "flip comes too late; accepted: before mixup"),
        (["flip", "crop_flip"], (1,), "flip is listed twice; accepted: each transform once"),
        ([{"mixup": 0.2}], (0, "mixup"), "found 0.2; accepted: parameters, as in {mixup: {alpha: 0.2}}"),
        ([3], (0,), "found 3; accepted: a name, or {NAME: {PARAMETER: VALUE}}"),
        (7, (), "found 7; accepted: a list of transforms, or one of none, flip, crop_flip"),
        ("crop+mixup(alpha=much)", (), "found 'alpha=much' in 'crop+mixup(alpha=much)'; accepted: PARAMETER=NUMBER"),
        (
            [{"random_erasing": {"smallest": 0.5}}],
            (0, "random_erasing", "smallest"),
            "found 0.5; accepted: at most largest",
        ),
    ],
)
def test_a_fault_is_one_line_with_its_path(written, path, message):
    (found,) = faults_of(written)
    assert found[0] == path
    assert found[1].startswith(message)
    assert "\n" not in found[1]


def test_the_page_on_sweep_files_lists_every_transform_with_its_parameters():
    text = (Path(__file__).parents[2] / "docs" / "sweep-files.md").read_text(encoding="utf-8")
    _, _, section = text.partition("\n## Augmentation\n")
    rows = dict(re.findall(r"^\| (\w+) \| ([^|]*) \|", section.partition("\n## ")[0], re.MULTILINE))
    rows.pop("transform")
    listed = {name: {key: float(value) for key, value in re.findall(r"`(\w+): ([\d.]+)`", rows[name])} for name in rows}
    defaults = {name: {key: param.default for key, param in TRANSFORMS[name].params().items()} for name in TRANSFORMS}
    assert listed == {name: pytest.approx(own, abs=1e-3) for name, own in defaults.items()}
