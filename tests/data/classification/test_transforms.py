import dataclasses
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision import transforms

from halonet.data.classification.transforms import RANDAUGMENT_OPERATIONS, AugmentationConfig, build_transform
from halonet.errors import UserError
from tests.data.samples import noise_image

GRAY = AugmentationConfig(image_size=28, in_chans=1, mean=(0.25,), std=(0.5,), crop_pct=1.0)
PLAIN = dataclasses.replace(GRAY, in_chans=3, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), image_size=32)


def as_bytes(tensor):
    return (tensor * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def seeded(transform, image, seed):
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)  # noqa: NPY002
    return transform(image)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("train_crop", ["random_resized", "pad", "none"])
@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(28, 28), (61, 40), (5, 90)])
def test_any_image_becomes_a_square_input(train, train_crop, in_chans, mode, size):
    config = AugmentationConfig(
        image_size=28,
        in_chans=in_chans,
        mean=(0.5,) * in_chans,
        std=(0.5,) * in_chans,
        train_crop=train_crop,
        randaugment_magnitude=9,
        color_jitter=0.4,
        random_erasing=0.5,
    )
    result = build_transform(config, train)(noise_image(0, size, mode))
    assert result.shape == (in_chans, 28, 28)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    assert result.min() >= -1.0001
    assert result.max() <= 1.0001


def test_values_are_normalized_by_channel():
    config = AugmentationConfig(image_size=2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0), crop_pct=1.0)
    result = build_transform(config, train=False)(Image.new("RGB", (2, 2), (255, 0, 51)))
    expected = torch.tensor([0.9 / 0.5, -0.2 / 0.25, (0.2 - 0.3) / 2.0]).reshape(3, 1, 1).expand(3, 2, 2)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("crop_pct", "size"), [(0.875, (97, 161)), (1.0, (40, 33)), (0.95, (224, 224))])
def test_evaluation_matches_timm(interpolation, crop_pct, size):
    config = AugmentationConfig(image_size=33, interpolation=interpolation, crop_pct=crop_pct)
    reference = transforms_imagenet_eval(33, crop_pct=crop_pct, interpolation=interpolation)
    image = noise_image(3, size)
    torch.testing.assert_close(build_transform(config, train=False)(image), reference(image))


def test_training_may_use_the_evaluation_crop():
    config = dataclasses.replace(PLAIN, train_crop="none", hflip=0.0)
    image = noise_image(0, (50, 41))
    assert torch.equal(build_transform(config, train=True)(image), build_transform(config, train=False)(image))


def test_pad_reaches_every_position_and_flips_half():
    config = dataclasses.replace(PLAIN, train_crop="pad", padding=1)
    image = noise_image(0, (32, 32))
    bordered = np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)))
    squares = {}
    for top in range(3):
        for left in range(3):
            square = bordered[top : top + 32, left : left + 32]
            squares[square.tobytes()] = (top, left, False)
            squares[np.ascontiguousarray(square[:, ::-1]).tobytes()] = (top, left, True)
    transform = build_transform(config, train=True)
    drawn = [squares[as_bytes(seeded(transform, image, seed)).tobytes()] for seed in range(200)]
    assert set(drawn) == set(squares.values())
    assert 0.35 < np.mean([flipped for _, _, flipped in drawn]) < 0.65


def test_pad_covers_the_length_of_a_long_image():
    config = dataclasses.replace(PLAIN, train_crop="pad", padding=0, hflip=0.0)
    image = noise_image(0, (40, 32))
    transform = build_transform(config, train=True)
    squares = [np.asarray(image)[:, left : left + 32].tobytes() for left in range(9)]
    drawn = {squares.index(as_bytes(seeded(transform, image, seed)).tobytes()) for seed in range(60)}
    assert drawn == set(range(9))


def test_random_resized_crops_obey_scale_and_ratio():
    # In a gradient, the range of values shows how much of the image a crop spans.
    gradient = np.linspace(0, 255, 256).astype(np.uint8)
    image = Image.fromarray(
        np.stack([np.tile(gradient, (256, 1)), np.tile(gradient[:, None], (1, 256))] * 2, -1)[..., :3]
    )
    config = dataclasses.replace(
        PLAIN, train_crop="random_resized", scale=(0.25, 0.25), ratio=(1.0, 1.0), hflip=0.0, interpolation="bilinear"
    )
    transform = build_transform(config, train=True)
    corners = []
    for seed in range(20):
        result = seeded(transform, image, seed)
        assert (result[0].max() - result[0].min()).item() == pytest.approx(0.5, abs=0.03)
        assert (result[1].max() - result[1].min()).item() == pytest.approx(0.5, abs=0.03)
        corners.append(result[0, 0, 0].item())
    assert len(set(corners)) > 10


def test_flips_follow_their_probability():
    config = dataclasses.replace(PLAIN, train_crop="none", hflip=1.0)
    image = noise_image(0, (32, 32))
    assert np.array_equal(as_bytes(build_transform(config, train=True)(image)), np.asarray(image)[:, ::-1])


def test_color_jitter_only_affects_training():
    config = dataclasses.replace(PLAIN, train_crop="none", hflip=0.0, color_jitter=0.5)
    image = noise_image(0, (32, 32))
    assert not np.array_equal(as_bytes(build_transform(config, train=True)(image)), np.asarray(image))
    assert np.array_equal(as_bytes(build_transform(config, train=False)(image)), np.asarray(image))


def test_random_erasing_sets_a_rectangle_to_the_mean():
    config = dataclasses.replace(GRAY, train_crop="none", hflip=0.0, random_erasing=1.0)
    image = Image.new("L", (28, 28), 255)
    result = build_transform(config, train=True)(image)
    erased = (result[0] == 0).nonzero()
    height, width = (erased.max(0).values - erased.min(0).values + 1).tolist()
    assert 0 < len(erased) == height * width < 28 * 28
    assert not (build_transform(config, train=False)(image) == 0).any()


def randaugment_of(config):
    steps = build_transform(config, train=True)
    assert isinstance(steps, transforms.Compose)
    return next(step for step in steps.transforms if type(step).__name__ == "RandAugment")


def test_randaugment_uses_magnitude_and_num_ops():
    config = AugmentationConfig(image_size=600, randaugment_magnitude=31, randaugment_num_ops=3)
    randaugment = randaugment_of(config)
    assert randaugment.num_layers == 3
    assert [operation.name for operation in randaugment.ops] == list(RANDAUGMENT_OPERATIONS)
    for operation in randaugment.ops:
        assert (operation.magnitude, operation.magnitude_max, operation.prob) == (31, 31, 1.0)
        assert operation.hparams["translate_const"] == 100
    small = randaugment_of(dataclasses.replace(GRAY, randaugment_magnitude=6, randaugment_probability=0.5))
    for operation in small.ops:
        assert (operation.magnitude, operation.magnitude_max, operation.prob) == (6, 10, 0.5)
        assert operation.hparams["translate_const"] == 12


@pytest.mark.parametrize("config", [GRAY, PLAIN], ids=["gray", "color"])
def test_every_randaugment_operation_works_on_gray_and_color(config):
    image = noise_image(0, (28, 28), "L" if config.in_chans == 1 else "RGB")
    for operation in randaugment_of(dataclasses.replace(config, randaugment_magnitude=14)).ops:
        result = operation(image)
        assert (result.mode, result.size) == (image.mode, image.size)


def test_strong_magnitudes_extrapolate():
    def brightness(magnitude):
        operations = randaugment_of(dataclasses.replace(PLAIN, randaugment_magnitude=magnitude)).ops
        return next(operation for operation in operations if operation.name == "Brightness")(
            Image.new("RGB", (8, 8), "#111")
        )

    assert np.asarray(brightness(31)).max() > np.asarray(brightness(10)).max()


def test_transforms_can_be_pickled():
    config = dataclasses.replace(GRAY, randaugment_magnitude=6, color_jitter=0.1, random_erasing=0.5)
    image = noise_image(0, (28, 28), "L")
    for train in (False, True):
        transform = build_transform(config, train)
        copy = pickle.loads(pickle.dumps(transform))
        assert torch.equal(seeded(transform, image, 0), seeded(copy, image, 0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 0),
        ("in_chans", 2),
        ("mean", (0.5,)),
        ("std", (0.5,)),
        ("std", (0.5, 0.0, 0.5)),
        ("mean", (float("nan"), 0.5, 0.5)),
        ("image_size", True),
        ("image_size", 10**9),
        ("interpolation", "cubic"),
        ("crop_pct", 0.0),
        ("crop_pct", 1e-9),
        ("crop_pct", 1.5),
        ("train_crop", "center"),
        ("padding", -1),
        ("scale", (0.0, 1.0)),
        ("scale", (0.5, 1.5)),
        ("scale", (0.9, 0.1)),
        ("ratio", (2.0, 1.0)),
        ("hflip", 1.5),
        ("color_jitter", -0.1),
        ("randaugment_magnitude", -1),
        ("randaugment_num_ops", 0),
        ("randaugment_probability", 2.0),
        ("random_erasing", -0.5),
    ],
)
def test_invalid_value_is_named_with_its_rule(field, value, untyped):
    with pytest.raises(UserError, match=rf"AugmentationConfig: {field}(\.\d)? is .* but must be "):
        AugmentationConfig(**{field: value})


def test_null_values_must_be_filled_in_first():
    for name in ("image_size", "train_crop"):
        with pytest.raises(UserError, match=f"augmentation: {name} is null"):
            build_transform(AugmentationConfig(**{name: None}), train=True)
