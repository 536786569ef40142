import numpy as np
import torch
from PIL import Image
from torch import nn

from halonet.benchmark.claims.shifts import PIXELS, ShiftedImages, classify, measure_shifts, share


class Images:
    class_names = ("left", "right")

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), index % 2


class BrightColumn(nn.Module):
    """Guesses the column, of ten, that is brightest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum((1, 2))[:, :10]


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def columns(positions: list[int]) -> Images:
    """Black images with one bright column each."""
    pixels = np.zeros((len(positions), 4, 12, 3), np.uint8)
    for index, column in enumerate(positions):
        pixels[index, :, column] = 200
    return Images(pixels)


def test_an_image_moves_right_and_black_comes_in():
    images = Images(np.random.default_rng(0).integers(1, 256, (2, 4, 12, 3), np.uint8))
    moved, label = ShiftedImages(images, 3)[1]
    assert label == 1
    assert (np.array(moved)[:, :3] == 0).all()
    np.testing.assert_array_equal(np.array(moved)[:, 3:], images.pixels[1][:, :-3])


def test_every_nth_image_takes_part():
    shifted = ShiftedImages(columns([0, 1, 2, 3, 4, 5, 6]), 0, every=3)
    assert len(shifted) == 3
    assert [int(np.array(shifted[i][0]).any((0, 2)).argmax()) for i in range(3)] == [0, 3, 6]


def test_guesses_follow_the_images():
    assert classify(BrightColumn(), columns([4, 0, 9]), to_tensor) == [4, 0, 9]


def test_accuracy_and_changes_are_counted_by_distance():
    positions = [2, 0, 0, 0, 0, 3]  # of which the first and the last take part
    source = columns(positions)
    # The labels are where the columns stand after a movement by one.
    found = measure_shifts(BrightColumn(), source, to_tensor, positions, [position + 1 for position in positions])
    assert found["pixels"] == list(PIXELS) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found["images"] == 2
    assert (found["direction"], found["fill"]) == ("right", "black")
    assert found["unshifted_top1"] == 0
    assert found["top1"] == [100, 0, 0, 0, 0, 0, 0, 0]
    assert found["changed"] == [100] * 8


def test_a_share_is_a_percentage():
    assert share([1, 2, 3, 4], [1, 2, 0, 4]) == 75
