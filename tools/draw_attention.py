"""Draw docs/images/attention.png, and take docs/images/demo.png in an installed Chromium."""

import shutil
import sys
from pathlib import Path

from PIL import Image

import halonet.visual.attention_figures as figures
from halonet.demo.attention import area_of
from halonet.demo.model import CIFAR10, Model, open_model
from halonet.demo.page import EXAMPLES, launch

IMAGES = Path(__file__).parents[1] / "docs" / "images"
EYE = (14, 9)  # row and column of the network's input


def draw_heads(model: Model, path: Path) -> None:
    answer = model.answer(str(EXAMPLES / "cat.jpg"))
    figure = figures.draw_heads(answer.layers[0].look(EYE), answer.seen)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    compress(path)


def shoot_page(model: Model, path: Path) -> None:
    from playwright.sync_api import sync_playwright

    page = launch(model, None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(page.local_url)
        picture = tab.locator("#attention img")
        picture.wait_for()
        area = area_of(model.answer(str(EXAMPLES / "cat.jpg")).layers[0])
        box = picture.bounding_box()
        x = (EYE[1] + 0.5 - area.left) / (area.right - area.left) * box["width"]
        y = (EYE[0] + 0.5 - area.top) / (area.bottom - area.top) * box["height"]
        picture.click(position={"x": x, "y": y})
        tab.wait_for_function("row => document.querySelector('#told').innerText.includes(row)", arg=f"row {EYE[0]}")
        tab.mouse.move(5, 5)
        tab.wait_for_timeout(500)
        tab.screenshot(path=path)
        chromium.close()
    page.close(verbose=False)
    compress(path)


def compress(path: Path) -> None:
    """Reduce a picture to 256 dithered colors; k-means keeps rare bright ones, which a median cut loses."""
    picture = Image.open(path).convert("RGB")
    palette = picture.quantize(256, kmeans=8)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def main() -> int:
    model = open_model(CIFAR10)
    draw_heads(model, IMAGES / "attention.png")
    shoot_page(model, IMAGES / "demo.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
