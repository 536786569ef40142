import io

import numpy as np
import pytest
import torch
from PIL import Image

from halonet import HaloAttention, create_model
from halonet.errors import UserError
from halonet.visual.attention import record_attention
from halonet.visual.attention_figures import (
    BLOCK,
    WINDOW,
    draw_distances,
    draw_heads,
    draw_pixel,
    draw_rollout,
    input_picture,
    save_figure,
)

PICTURE = Image.fromarray(np.full((28, 28), 200, np.uint8))


@pytest.fixture(scope="module")
def layers():
    torch.manual_seed(0)
    network = create_model("micro32", num_classes=3, in_chans=1).eval()
    return record_attention(network, torch.randn(1, 1, 28, 28))


def rectangles(axes, color):
    """Left, top, right and bottom of the rectangles of a color."""
    from matplotlib.colors import to_rgba

    found = [patch for patch in axes.patches if patch.get_edgecolor() == to_rgba(color)]
    return [
        (each.get_x(), each.get_y(), each.get_x() + each.get_width(), each.get_y() + each.get_height())
        for each in found
    ]


def test_block_window_and_border_stand_where_the_layer_has_them(layers):
    look = layers[0].look((2, 20))  # 14 x 14 pixels of 2 x 2, blocks of 4 with a halo of 1
    axes = draw_pixel(look, PICTURE).axes[1]
    assert rectangles(axes, BLOCK) == [(16, 0, 24, 8)]
    assert rectangles(axes, WINDOW) == [(14, -2, 26, 10)]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left < 0
    assert right > 28
    assert top < -2
    assert bottom > 28


@pytest.mark.parametrize("head", [None, 1])
def test_the_drawn_map_is_the_one_of_the_head(layers, head):
    look = layers[0].look((2, 20))
    pixel, heat, *_ = draw_pixel(look, PICTURE, head=head).axes
    assert len(pixel.images) == 1
    expected = look.probabilities.mean(0) if head is None else look.probabilities[head]
    np.testing.assert_array_equal(heat.images[-1].get_array(), expected.numpy())
    assert heat.images[-1].get_extent() == [0, 28, 28, 0]


def test_all_heads_share_one_scale(layers):
    look = layers[0].look((2, 20))
    panels = draw_heads(look, PICTURE).axes[: 1 + layers[0].num_heads]
    for panel, expected in zip(panels, [look.probabilities.mean(0), *look.probabilities], strict=True):
        np.testing.assert_array_equal(panel.images[-1].get_array(), expected.numpy())
        assert panel.images[-1].get_clim() == (0, look.probabilities.max().item())


def test_the_plot_of_distances_has_a_point_a_head(layers):
    axes = draw_distances(layers).axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    for index, (layer, line) in enumerate(zip(layers, points, strict=True)):
        assert set(line.get_xdata()) == {index}
        np.testing.assert_allclose(line.get_ydata(), layer.mean_distances().numpy())


def test_rollout_is_drawn_over_the_picture(layers):
    heat = draw_rollout(layers, (27, 3), PICTURE).axes[0].images[-1].get_array()
    assert heat.shape == layers[0].map_size
    assert heat.sum() == pytest.approx(1)


def test_what_goes_beyond_the_border_is_told():
    layer = HaloAttention(channels=4, num_heads=1, block_size=4, halo_size=2, border="zeros")
    (recorded,) = record_attention(torch.nn.Sequential(layer).eval(), torch.randn(1, 4, 8, 8))
    look = recorded.look((0, 0))
    figure = draw_pixel(look, PICTURE)
    share = 100 * look.outside.item()
    assert figure.get_supxlabel() == f"{share:.1f} % of the weight goes to zeros beyond the border"


def test_what_goes_beyond_the_border_is_that_of_the_drawn_head():
    torch.manual_seed(0)
    layer = HaloAttention(channels=4, num_heads=2, block_size=4, halo_size=2, border="zeros")
    (recorded,) = record_attention(torch.nn.Sequential(layer).eval(), torch.randn(1, 4, 8, 8))
    look = recorded.look((0, 0))
    first, second = (f"{100 * share:.1f} %" for share in look.outside.tolist())
    assert first != second
    assert draw_pixel(look, PICTURE, head=1).get_supxlabel().startswith(second)
    assert draw_heads(look, PICTURE).get_supxlabel().startswith(f"{100 * look.outside.mean():.1f} %")


def test_notebooks_show_a_figure_by_itself(layers):
    png = draw_distances(layers)._repr_png_()
    assert Image.open(io.BytesIO(png)).format == "PNG"


def test_a_title_may_be_any_text(layers, tmp_path):
    figure = draw_pixel(layers[0].look((0, 0)), PICTURE, title="$\\frac{$ 猫 \x1b[31m \udcff")
    assert save_figure(figure, tmp_path / "new" / "a.png").stat().st_size > 1000


def test_an_unknown_head_is_refused(layers):
    with pytest.raises(UserError, match="head is 99, but must be from 0 to"):
        draw_pixel(layers[0].look((0, 0)), PICTURE, head=99)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_input_becomes_a_picture_again(mode):
    from torchvision.transforms.functional import normalize, to_tensor

    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3) if mode == "RGB" else (6, 5), dtype=np.uint8)
    mean, std = ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]) if mode == "RGB" else ([0.4], [0.2])
    image = normalize(to_tensor(Image.fromarray(pixels)), mean, std)[None]
    np.testing.assert_array_equal(np.asarray(input_picture(image, mean, std)), pixels)
