import numpy as np
import pytest
import torch

from halonet import HaloAttention
from halonet.demo.attention import View, area_of, canvas_size, describe_view, draw_view, pixel_at
from halonet.demo.page import EXAMPLES
from halonet.visual.attention import record_attention
from tests.demo.places import place_of


@pytest.fixture(scope="module")
def answer(cifar10):
    return cifar10.answer(str(EXAMPLES / "cat.jpg"))


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_a_click_on_a_pixel_means_that_pixel(layer, answer):
    for pixel in [(0, 0), (31, 31), (7, 20), (16, 3)]:
        assert pixel_at(answer.layers[layer], *place_of(answer.layers[layer], pixel)) == pixel


def test_a_click_beyond_the_border_means_the_nearest_pixel(answer):
    width, height = canvas_size(area_of(answer.layers[0]))
    assert pixel_at(answer.layers[0], 0, 0) == (0, 0)
    assert pixel_at(answer.layers[0], width - 1, height // 2) == (16, 31)


@pytest.mark.parametrize("pixel", [(0, 0), (31, 31), (10, 20)])
def test_the_picture_marks_the_clicked_pixel_and_keeps_its_size(pixel, answer):
    layer = answer.layers[0]
    drawn = np.asarray(draw_view(answer.layers, answer.seen, View(pixel, 0, None))).astype(int)
    assert drawn.shape[:2] == canvas_size(area_of(layer))[::-1]
    query = layer.query_of(pixel)
    cell = layer.image_size[0] // layer.map_size[0] * (layer.map_size[0] // layer.query_grid[0])
    x, y = place_of(layer, (query.row * cell, query.column * cell))
    nearby = drawn[y : y + 14, x : x + 14]
    assert (nearby.min(2) > 240).any()  # the white mark


def test_the_brightest_cell_is_the_most_looked_at(answer):
    layer = answer.layers[1]
    heat = layer.look((20, 9)).of_head(2)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    drawn = np.asarray(draw_view(answer.layers, answer.seen, View((20, 9), 1, 2))).astype(int)
    x, y = place_of(layer, (4 * row + 1, 4 * column + 1))
    red, green, blue = drawn[y, x]
    assert red > 200
    assert green > 200
    assert blue < 150


def test_the_words_name_the_layer_the_head_and_the_most_looked_at(answer):
    heat = answer.layers[1].look((20, 9)).of_head(2)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    text = describe_view(answer.layers, View((20, 9), 1, 2))
    assert "**Layer 1** of 0 to 5 works on 8 x 8 cells" in text
    assert f"row 20, column 9, head 2 looks most, with **{100 * heat.max():.1f} %**" in text
    assert f"row {4 * row + 2}, column {4 * column + 2}." in text
    assert "the mean of its 4 heads" in describe_view(answer.layers, View((20, 9), 1, None))


def test_the_words_say_how_much_of_that_head_goes_beyond_the_border():
    torch.manual_seed(0)
    layer = HaloAttention(channels=4, num_heads=2, block_size=4, halo_size=2, border="zeros")
    layers = record_attention(torch.nn.Sequential(layer).eval(), torch.randn(1, 4, 8, 8))
    shares = layers[0].look((0, 0)).outside
    assert shares[0] != shares[1]
    for head, share in [(0, shares[0]), (1, shares[1]), (None, shares.mean())]:
        assert f" {100 * share:.1f} % go beyond the border." in describe_view(layers, View((0, 0), 0, head))
