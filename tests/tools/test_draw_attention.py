"""The tool that draws the pictures of attention in the documentation."""

import gc

import numpy as np
import pytest
from PIL import Image

from halonet.demo import page
from halonet.demo.model import CIFAR10, Model, open_model
from tests.demo.test_page import needs_browser
from tools import draw_attention


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(CIFAR10)


def thumbnail(path):
    return np.asarray(Image.open(path).convert("RGB").resize((64, 32), Image.Resampling.BOX)).astype(float)


def test_the_picture_in_the_documentation_is_what_the_tool_draws(model, tmp_path):
    draw_attention.draw_heads(model, tmp_path / "attention.png")
    drawn, shown = thumbnail(tmp_path / "attention.png"), thumbnail(draw_attention.IMAGES / "attention.png")
    assert np.abs(drawn - shown).mean() < 4


def test_compression_keeps_rare_bright_colors(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (300, 300, 1), dtype=np.uint8)
    pixels = np.broadcast_to(gray, (300, 300, 3)) // np.array([1, 2, 3], np.uint8)
    pixels[10:13, 20:23] = 22, 224, 189  # the color of a block's border
    Image.fromarray(pixels).save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    draw_attention.compress(tmp_path / "a.png")
    compressed = Image.open(tmp_path / "a.png")
    assert compressed.mode == "P"
    assert (tmp_path / "a.png").stat().st_size < size / 2
    rare = np.asarray(compressed.convert("RGB"))[11, 21].astype(int)
    assert np.abs(rare - (22, 224, 189)).max() < 30


@needs_browser
@pytest.mark.filterwarnings("ignore")  # Gradio's own
def test_the_page_is_shown_after_a_click_on_the_eye(model, tmp_path, monkeypatch):
    views, draw_view = [], page.draw_view
    monkeypatch.setattr(
        page, "draw_view", lambda layers, seen, view: views.append(view) or draw_view(layers, seen, view)
    )
    draw_attention.shoot_page(model, tmp_path / "demo.png")
    gc.collect()  # sockets that Gradio leaves open are an error only after the test
    assert views[-1].pixel == draw_attention.EYE
    assert Image.open(tmp_path / "demo.png").size == (1280, 900)
