from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from halonet.visual.instances import CROWD, PALETTE, draw_instances

WIDTH, HEIGHT = 320, 200


def make_instances(boxes: Sequence[Sequence[float]], size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    """Ellipses in boxes, with scores descending from 0.95."""
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    masks = [
        ((columns - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((rows - (y0 + y1) / 2) / (y1 - y0)) ** 2 <= 0.25
        for x0, y0, x1, y1 in boxes
    ]
    return {
        "boxes": np.array(boxes, float).reshape(-1, 4),
        "labels": ["cat"] * len(boxes),
        "scores": 0.95 - 0.05 * np.arange(len(boxes)),
        "masks": np.array(masks, bool).reshape(-1, size[1], size[0]),
    }


def gray(level: int = 90, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, (level,) * 3 if mode == "RGB" else level)


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    return (np.asarray(before.convert("RGB")) != np.asarray(after)).any(-1)


def distance(pixel: np.ndarray, color: str) -> float:
    return float(np.abs(pixel.astype(float) - ImageColor.getrgb(color)).sum())


def test_only_pixels_of_instances_change():
    instances = make_instances([[40, 60, 120, 160], [200, 50, 290, 110]])
    picture = gray()
    where = changed(picture, draw_instances(picture, **instances))
    near = np.zeros_like(where)
    for x0, y0, x1, y1 in instances["boxes"].astype(int):
        # The box with its line, and its tag above.
        near[y0 - 20 : y1 + 2, x0 - 2 : x1 + 2] = True
    assert where[instances["masks"].any(0)].all()
    assert not where[~near].any()


def test_inputs_are_not_modified():
    instances = make_instances([[40, 60, 120, 160]])
    picture = gray()
    before = instances["masks"].copy()
    drawn = draw_instances(picture, **instances)
    assert picture.getextrema() == ((90, 90),) * 3
    assert (instances["masks"] == before).all()
    assert (drawn.mode, drawn.size) == ("RGB", picture.size)


def test_mask_is_translucent_and_outline_opaque():
    picture = Image.fromarray(np.tile(np.array([[60], [120]], np.uint8), (HEIGHT // 2, WIDTH)))
    instances = make_instances([[60, 40, 220, 180]])
    drawn = np.asarray(draw_instances(picture, **instances), int)
    # The picture's stripes, with a contrast of 60, show through in the middle.
    contrast = np.abs(drawn[110, 140] - drawn[111, 140])
    assert (contrast > 20).all()
    assert (contrast < 45).all()
    edge = [distance(drawn[110, column], "#ffffff") for column in range(56, 66)]
    assert min(edge) < distance(drawn[111, 140], "#ffffff") - 50


def test_scores_below_the_minimum_are_not_drawn():
    instances = make_instances([[40, 60, 120, 160], [200, 50, 290, 110]])
    instances["scores"] = np.array([0.7, 0.69])
    picture = gray()
    where = changed(picture, draw_instances(picture, **instances, min_score=0.7))
    assert where[:, :160].any()
    assert not where[:, 160:].any()
    assert not changed(picture, draw_instances(picture, **instances, min_score=0.71)).any()


@pytest.mark.parametrize("scores", [[0.9, 0.6], [0.6, 0.9]])
def test_higher_scores_are_drawn_on_top(scores: list[float]):
    instances = make_instances([[40, 40, 180, 180], [120, 40, 260, 180]])
    instances["scores"] = np.array(scores)
    drawn = np.asarray(draw_instances(gray(), **instances))
    distances = [distance(drawn[110, 150], color) for color in PALETTE[:2]]
    assert np.argmin(distances) == np.argmax(scores)


def test_colors_do_not_depend_on_min_score():
    instances = make_instances([[40, 60, 120, 160], [200, 50, 290, 110]])
    all_drawn, few = (np.asarray(draw_instances(gray(), **instances, min_score=score)) for score in (0.5, 0.92))
    assert (all_drawn[110, 80] == few[110, 80]).all()


def test_no_instances_change_nothing():
    picture = gray()
    assert not changed(picture, draw_instances(picture, **make_instances([]))).any()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "RGB"])
def test_result_is_in_color_for_every_mode(mode: str):
    picture = gray(mode="L").convert(mode)
    drawn = np.asarray(draw_instances(picture, **make_instances([[40, 60, 120, 160]])))
    assert distance(drawn[110, 80], PALETTE[0]) < distance(np.array([90, 90, 90]), PALETTE[0])


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (28, 28), (40, 2)])
def test_tiny_pictures_are_drawn(size: tuple[int, int]):
    instances = make_instances([[0, 0, *size]], size)
    assert changed(gray(size=size), draw_instances(gray(size=size), **instances)).any()


@pytest.mark.parametrize("box", [[0, 0, 30, 20], [300, 0, 320, 20], [290, 180, 320, 200], [0, 0, WIDTH, HEIGHT]])
def test_tags_stay_inside_the_picture(box: list[float]):
    drawn = np.asarray(draw_instances(gray(), **make_instances([box])))
    # A tag is the only area of a pure color; a complete one is as wide as its text.
    tag = (drawn == ImageColor.getrgb(PALETTE[0])).all(-1)
    rows = tag.sum(1)
    assert rows[rows > 20].size >= 3
    assert rows.max() < 70


def test_tags_do_not_cover_one_another():
    instances = make_instances([[100, 80, 180, 150]] * 3)
    drawn = np.asarray(draw_instances(gray(), **instances))
    areas = [(drawn == ImageColor.getrgb(color)).all(-1).sum() for color in PALETTE[:3]]
    assert min(areas) > 0.9 * max(areas)


@pytest.mark.parametrize(("count", "tags"), [(CROWD, True), (CROWD + 1, False)])
def test_crowd_of_small_instances_has_no_tags(count: int, tags: bool):
    boxes = [[10 + 30 * (index % 10), 10 + 45 * (index // 10), 30 + 30 * (index % 10), 30 + 45 * (index // 10)]
             for index in range(count)]  # fmt: skip
    instances = make_instances(boxes)
    instances["scores"] = np.full(count, 0.9)
    drawn = np.asarray(draw_instances(gray(), **instances))
    pure = sum(int((drawn == ImageColor.getrgb(color)).all(-1).sum()) for color in PALETTE)
    assert (pure > 1000) == tags


def test_outside_boxes_and_empty_masks_are_accepted():
    instances = make_instances([[40, 60, 120, 160]] * 4)
    instances["boxes"] = np.array([[-20, -10, 400, 300], [50, 50, 50, 50], [500, 500, 600, 600], [90, 90, 80, 80]])
    instances["masks"][:] = False
    picture = gray()
    assert changed(picture, draw_instances(picture, **instances)).any()


def test_one_pixel_instance_is_filled():
    instances = make_instances([[50, 50, 51, 51]])
    instances["boxes"] += 100  # so that the pixel is not changed by its box
    drawn = np.asarray(draw_instances(gray(), **instances))
    assert distance(drawn[50, 50], PALETTE[0]) < 0.65 * distance(np.full(3, 90), PALETTE[0])


def test_masks_may_be_bytes():
    instances = make_instances([[40, 60, 120, 160]])
    expected = draw_instances(gray(), **instances)
    for value in (1, 255):
        drawn = draw_instances(gray(), **instances | {"masks": instances["masks"].astype(np.uint8) * np.uint8(value)})
        assert not changed(expected, drawn).any()


@pytest.mark.parametrize(
    ("name", "shown"), [("two\nlines", r"two\nlines"), ("\udcff", r"\udcff"), ("\x1b[31m", r"\x1b[31m"), ("$", "$")]
)
def test_any_name_can_be_a_tag(name: str, shown: str):
    instances = make_instances([[40, 60, 120, 160]])
    drawn, expected = (draw_instances(gray(), **instances | {"labels": [each]}) for each in (name, shown))
    assert not changed(expected, drawn).any()
    assert changed(draw_instances(gray(), **instances | {"labels": [""]}), drawn).any()


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"a mask of \(200, 320\) pixels does not fit a picture of \(60, 50\) pixels"):
        draw_instances(gray(size=(50, 60)), **make_instances([[4, 6, 12, 16]]))


def test_boxes_and_tags_are_drawn_without_masks():
    instances = make_instances([[40, 60, 120, 160]]) | {"masks": None}
    picture = gray()
    where = changed(picture, draw_instances(picture, **instances))
    assert where[60:160, 38:44].any(1).mean() > 0.9
    assert not where[85:150, 50:110].any()
