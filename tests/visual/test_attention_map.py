import numpy as np
import pytest
import torch
from PIL import Image

from halonet import create_model
from halonet.errors import UserError
from halonet.visual.attention_map import attention_maps, draw_attention


def test_every_stage_has_maps_of_the_image_size():
    model = create_model("tiny28", num_classes=3, in_chans=1).eval()
    maps = attention_maps(model, torch.randn(1, 1, 28, 28), [(0.5, 0.5), (0.1, 0.9)])
    assert {name: tuple(each.shape) for name, each in maps.items()} == {"stage 1": (2, 28, 28), "stage 2": (2, 28, 28)}
    for each in maps.values():
        torch.testing.assert_close(each.amax((1, 2)), torch.ones(2))


def test_weights_lie_in_the_window_of_the_block():
    model = create_model("tiny28", num_classes=3, in_chans=1).eval()
    seen = attention_maps(model, torch.randn(1, 1, 28, 28), [(0.1, 0.1)])["stage 1"][0] > 0
    # The map has 14 x 14 positions of 2 x 2 pixels; with block 7 and halo 1, the first block sees positions 0 to 7.
    assert seen[:16, :16].all()
    assert not seen[16:].any()
    assert not seen[:, 16:].any()


def test_hooks_are_removed():
    model = create_model("tiny28", num_classes=3, in_chans=1).eval()
    attention_maps(model, torch.randn(1, 1, 28, 28), [(0.5, 0.5)])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_figure_is_written(tmp_path):
    model = create_model("tiny28", num_classes=3, in_chans=1).eval()
    picture = Image.fromarray(np.full((28, 28), 200, np.uint8))
    path = draw_attention(model, torch.randn(1, 1, 28, 28), picture, tmp_path / "new" / "map.png", title="a bag")
    drawn = np.asarray(Image.open(path).convert("RGB"))
    assert drawn.shape[0] > 300
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize("title", ["$", r"a $\frac{$ b", "猫", "\udcff", "\x1b[31m"])
def test_any_name_can_be_the_title(tmp_path, title):
    model = create_model("tiny28", num_classes=3, in_chans=1).eval()
    picture = Image.fromarray(np.full((28, 28), 200, np.uint8))
    draw_attention(model, torch.ones(1, 1, 28, 28), picture, tmp_path / "map.png", points=[(0.5, 0.5)], title=title)
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.width > 300


def test_model_without_attention_is_refused():
    model = create_model("resnet50_twin", depths=(1, 1, 1, 1), num_classes=3).eval()
    with pytest.raises(UserError, match="no attention layer"):
        attention_maps(model, torch.randn(1, 3, 32, 32), [(0.5, 0.5)])
