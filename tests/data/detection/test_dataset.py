import pickle
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from halonet.data.detection.coco import load_detection_source
from halonet.data.detection.dataset import (
    DetectionAugmentation,
    KeyedDetections,
    build_detection_transform,
    collate,
)
from halonet.errors import UserError
from tests.data.samples import global_states, noise_image

# Together these steps use every random number of the transform.
AUGMENTATION = DetectionAugmentation(train_resize="jitter", jitter_size=64, vflip=0.5, photometric=True)
KEYS = [(epoch, index) for epoch in range(2) for index in range(5)]


class Painted:
    """Black images with a red, a green and a blue rectangle, so that a pixel's color identifies its instance."""

    class_names = ["red", "green", "blue"]  # noqa: RUF012
    category_ids = [1, 2, 3]  # noqa: RUF012
    image_ids = [11, 12]  # noqa: RUF012
    ground_truth = {}  # noqa: RUF012
    boxes = ((4, 6, 30, 20), (40, 10, 90, 50), (10, 34, 36, 56))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        pixels = np.zeros((60, 100, 3), np.uint8)
        for channel, (left, top, right, bottom) in enumerate(self.boxes):
            pixels[top:bottom, left:right, channel] = 255
        target = {
            "boxes": torch.tensor(self.boxes, dtype=torch.float32),
            "labels": torch.tensor([1, 2, 3]),
            "masks": torch.from_numpy(pixels // 255).permute(2, 0, 1).contiguous(),
            "image_id": self.image_ids[index],
        }
        return Image.fromarray(pixels), target


def make_dataset(config=AUGMENTATION, train=True, seed=0, repeats=3):
    return KeyedDetections(Painted(), build_detection_transform(config, train), seed, train, repeats)


def same(first, second):
    return torch.equal(first[0], second[0]) and all(
        torch.equal(value, second[1][key]) if isinstance(value, torch.Tensor) else value == second[1][key]
        for key, value in first[1].items()
    )


def check_against_the_pixels(image, target, tolerance):
    """Boxes fit their masks, and their label's color within a tolerance in pixels, since scaling blurs edges."""
    height, width = image.shape[1:]
    assert target["masks"].shape == (len(target["labels"]), height, width)
    for mask, box, label in zip(target["masks"], target["boxes"].tolist(), target["labels"].tolist(), strict=True):
        for covered, margin in ((image[label - 1] > 0.5, tolerance), (mask, 0)):
            rows, columns = covered.nonzero(as_tuple=True)
            assert len(rows) >= 0.8 * (columns.max() + 1 - columns.min()) * (rows.max() + 1 - rows.min())
            extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.array(box) - np.array(extent)).max() <= margin
        left, top, right, bottom = box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@pytest.mark.parametrize("flips", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_flip_moves_boxes_and_masks(flips):
    config = DetectionAugmentation(hflip=flips[0], vflip=flips[1], train_min_sizes=(60,))
    image, target = make_dataset(config)[0, 0]
    assert image.shape == (3, 60, 100)
    check_against_the_pixels(image, target, tolerance=0)
    left, top, right, bottom = Painted.boxes[0]
    across, down = ((100 - right, 100 - left) if flips[0] else (left, right)), (top, bottom)
    down = (60 - bottom, 60 - top) if flips[1] else down
    assert target["boxes"][0].tolist() == [across[0], down[0], across[1], down[1]]
    assert target["labels"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("jitter_scale", [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)])
def test_crop_moves_boxes_and_masks(jitter_scale):
    config = DetectionAugmentation(train_resize="jitter", jitter_size=100, jitter_scale=jitter_scale, vflip=0.5)
    dataset, counts = make_dataset(config), set()
    for epoch in range(40):
        image, target = dataset[epoch, 0]
        check_against_the_pixels(image, target, tolerance=2)
        counts.add(len(target["labels"]))
    assert max(counts) == 3
    assert min(counts) < 3 or jitter_scale[1] <= 2


def test_jitter_crops_to_a_square_without_padding():
    config = DetectionAugmentation(train_resize="jitter", jitter_size=64, jitter_scale=(0.5, 2.0))
    sizes = {tuple(make_dataset(config)[epoch, 0][0].shape) for epoch in range(60)}
    assert all(channels == 3 and height <= 64 and width <= 64 for channels, height, width in sizes)
    assert any(width == 64 and height < 64 for _, height, width in sizes)
    assert any(width == height == 64 for _, height, width in sizes)
    assert min(width for _, _, width in sizes) < 40


def test_crops_reach_the_whole_image():
    rows, columns = np.mgrid[:60, :100]
    image = Image.fromarray(np.stack([4 * rows, 2 * columns, 0 * rows], axis=-1).astype(np.uint8))
    config = DetectionAugmentation(train_resize="jitter", jitter_size=40, jitter_scale=(2.5, 2.5), hflip=0.0)
    transform, target = build_detection_transform(config, True), Painted()[0][1]
    torch.manual_seed(0)
    corners = torch.stack([transform(image, target)[0][:2, 0, 0] * 255 for _ in range(200)])
    # With 60 rows and 100 columns, 21 and 61 of them can be the first.
    for places, last in (((corners[:, 0] / 4).round(), 20), ((corners[:, 1] / 2).round(), 60)):
        assert places.min() <= 2
        assert last - 2 <= places.max() <= last
        assert len(places.unique()) > last / 2


def test_shortest_side_is_limited_by_the_longest():
    config = DetectionAugmentation(train_min_sizes=(30, 45, 90), min_size=90, max_size=100)
    sizes = {tuple(make_dataset(config)[epoch, 0][0].shape[1:]) for epoch in range(40)}
    assert sizes == {(30, 50), (45, 75), (60, 100)}


def test_cropped_away_instances_are_dropped():
    source = Painted()
    image, target = source[0]
    target["masks"][1] = 0
    target["boxes"][2] = torch.tensor([5.0, 5.0, 5.5, 6.0])
    for resize in ("shortest", "jitter"):
        config = DetectionAugmentation(
            train_resize=resize, train_min_sizes=(60,), jitter_size=100, jitter_scale=(1.0, 1.0)
        )
        labels = build_detection_transform(config, True)(image, target)[1]["labels"].tolist()
        # A crop recomputes boxes from masks, also the one that was too small.
        assert labels == ([1] if resize == "shortest" else [1, 3])
    _, emptied = build_detection_transform(config, True)(image, target | {"masks": target["masks"] * 0})
    assert [tuple(emptied[key].shape) for key in ("boxes", "labels", "masks")] == [(0, 4), (0,), (0, 60, 100)]
    again = build_detection_transform(config, True)(image, emptied)[1]
    assert again["boxes"].shape == (0, 4)


@pytest.mark.parametrize(("in_chans", "mode"), [(1, "L"), (1, "RGB"), (3, "L"), (3, "RGB")])
def test_evaluation_only_converts(in_chans, mode):
    image, target = noise_image(0, (100, 60), mode), Painted()[0][1]
    config = DetectionAugmentation(in_chans=in_chans, mean=(0.5,) * in_chans, std=(0.5,) * in_chans)
    pixels, kept = build_detection_transform(config, False)(image, target)
    assert type(pixels) is torch.Tensor
    assert pixels.dtype == torch.float32
    assert pixels.shape == (in_chans, 60, 100)
    expected = np.array(image.convert("L" if in_chans == 1 else "RGB")).reshape(60, 100, in_chans) / 255
    assert np.allclose(pixels.permute(1, 2, 0), expected)
    assert kept is target
    assert build_detection_transform(config, True)(image, target)[0].shape[0] == in_chans


def test_training_item_has_plain_tensors():
    image, target = make_dataset()[0, 0]
    assert {type(value) for value in (image, *target.values())} == {torch.Tensor, int}
    assert (image.dtype, target["boxes"].dtype) == (torch.float32, torch.float32)
    assert (target["labels"].dtype, target["masks"].dtype) == (torch.int64, torch.uint8)
    assert (image.min() >= 0, image.max() <= 1) == (True, True)
    assert target["image_id"] == 11


def test_photometric_distortion_changes_only_the_image():
    plain = DetectionAugmentation(train_min_sizes=(60,), hflip=0.0)
    distorted = DetectionAugmentation(train_min_sizes=(60,), hflip=0.0, photometric=True)
    pairs = [(make_dataset(plain)[epoch, 0], make_dataset(distorted)[epoch, 0]) for epoch in range(5)]
    assert any(not torch.equal(first[0], second[0]) for first, second in pairs)
    for (_, first), (_, second) in pairs:
        assert torch.equal(first["boxes"], second["boxes"])
        assert torch.equal(first["masks"], second["masks"])


def test_item_depends_only_on_its_key():
    dataset = make_dataset()
    forward = {key: dataset[key] for key in KEYS}
    random.seed(7), torch.manual_seed(7)
    before = global_states()
    batch = dict(zip(KEYS, pickle.loads(pickle.dumps(dataset)).__getitems__(KEYS), strict=True))
    backward = {key: dataset[key] for key in reversed(KEYS)}
    assert before[1:] == global_states()[1:]  # the run-time type checks draw from Python's own generator
    for key in KEYS:
        assert same(forward[key], backward[key])
        assert same(forward[key], batch[key])


def test_augmentation_differs_by_repeat_epoch_and_seed():
    dataset = make_dataset()
    assert len(dataset) == 6
    assert dataset.class_names == ["red", "green", "blue"]
    assert [dataset[0, index][1]["image_id"] for index in range(6)] == [11, 12] * 3
    others = (dataset[0, 2], dataset[0, 4], dataset[1, 0], make_dataset(seed=1)[0, 0])
    for other in others:
        assert not same(dataset[0, 0], other)
    with pytest.raises(IndexError, match="index 6 is outside of the 6 items"):
        dataset[0, 6]


def test_keys_of_training_and_evaluation():
    with pytest.raises(TypeError, match=r"named by \(epoch, index\), got 3"):
        make_dataset()[3]
    evaluation = make_dataset(train=False, repeats=1)
    assert same(evaluation[1], evaluation[4, 1])
    assert len(list(evaluation)) == 2
    with pytest.raises(UserError, match="repeats is 0, but must be from 1 to"):
        make_dataset(repeats=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_collates_lists(workers):
    dataset = make_dataset()
    loader = DataLoader(dataset, batch_size=3, sampler=KEYS, num_workers=workers, collate_fn=collate)
    images, targets = next(iter(loader))
    assert [type(part) for part in (images, targets)] == [list, list]
    for key, image, target in zip(KEYS[:3], images, targets, strict=True):
        assert same(dataset[key], (image, target))


def test_embedded_nuclei_are_transformed():
    source = load_detection_source("nuclei", "train")
    config = DetectionAugmentation(in_chans=1, mean=(0.2,), std=(0.2,), train_resize="jitter", jitter_size=256)
    image, target = KeyedDetections(source, build_detection_transform(config, True), 0, True)[0, 0]
    assert image.shape[0] == 1
    assert 10 < len(target["labels"]) <= 58
    assert all(mask.any() for mask in target["masks"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_chans": 4}, "in_chans is 4, but must be 1 (gray) or 3 (color)"),
        ({"mean": (0.5,)}, "mean is (0.5,), but must be 3 number(s), one a channel"),
        ({"std": (0.5, 0.5, 0.0)}, "std.2 is 0.0, but must be from 0.001 to 10"),
        ({"min_size": 0}, "min_size is 0, but must be from 1 to 16,384"),
        ({"min_size": 1400}, "min_size is 1400, but must be at most max_size, which is 1333"),
        ({"train_resize": "both"}, "train_resize is 'both', but must be shortest or jitter"),
        ({"train_min_sizes": ()}, "train_min_sizes is (), but must be one or more sizes of at most max_size"),
        ({"train_min_sizes": (640, 2000)}, "train_min_sizes is (640, 2000), but must be one or more sizes of at most"),
        ({"jitter_size": 0}, "jitter_size is 0, but must be from 1 to 16,384"),
        ({"jitter_scale": (1.5, 1.0)}, "jitter_scale is (1.5, 1.0), but must be two numbers, the smaller one first"),
        ({"jitter_scale": (1.0,)}, "jitter_scale is (1.0,), but must be a longer list"),
        ({"hflip": 1.5}, "hflip is 1.5, but must be from 0 to 1"),
        ({"vflip": float("nan")}, "vflip is nan, but must be a finite number"),
        (
            {"photometric": True, "in_chans": 1, "mean": (0.5,), "std": (0.5,)},
            "photometric is True, but must be false where in_chans is 1",
        ),
    ],
)
def test_invalid_value_is_named(changes, message, untyped):
    with pytest.raises(UserError, match=re.escape(f"DetectionAugmentation: {message}")):
        DetectionAugmentation(**changes)
