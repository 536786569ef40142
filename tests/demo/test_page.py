"""The page in a real browser: an installed Chromium, driven by Playwright, with connections to this machine alone."""

import gc
import io
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import gradio
import numpy as np
import pytest
from PIL import Image

from halonet.demo.attention import View, area_of, canvas_size, describe_view
from halonet.demo.model import open_model
from halonet.demo.page import EXAMPLES, launch
from halonet.errors import UserError
from tests.demo.places import place_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
is_excused = CHROMIUM is None and not os.environ.get("CI")
needs_browser = pytest.mark.skipif(is_excused, reason="no Chromium is installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own


@pytest.fixture(scope="module")
def sought() -> Iterator[list[str]]:
    """Other machines that this process asks for, all of which are refused: Gradio hides its failures."""
    hosts = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def check(host):
        if host not in ("127.0.0.1", "localhost", "::1", None):
            hosts.append(host)
            raise OSError(f"no connection to {host}")

    def checked_connect(self, address):
        if self.family != socket.AF_UNIX:
            check(address[0])
        return connect(self, address)

    def checked_look_up(host, *arguments, **options):
        check(host.decode() if isinstance(host, bytes) else host)
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", checked_connect)
        patch.setattr(socket, "getaddrinfo", checked_look_up)
        yield hosts


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "install the package chromium"
    with sync_playwright() as playwright:
        rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
        yield opened
        opened.close()


@pytest.fixture
def new_tab(browser):
    """Opens a page of the size that the README shows."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(15_000)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def server(sought, cifar10) -> Iterator[gradio.Blocks]:
    page = launch(cifar10, None)
    yield page
    page.close(verbose=False)
    del page
    gc.collect()  # sockets that Gradio leaves open are an error only after the tests


@pytest.fixture
def asked() -> list[str]:
    """What the browser asks for."""
    return []


@pytest.fixture
def tab(new_tab, server, asked):
    """The page of the CIFAR-10 network, once it has answered for its first example."""
    new_tab.on("request", lambda request: asked.append(request.url))
    new_tab.goto(server.local_url)
    new_tab.wait_for_selector("#attention img")
    return new_tab


def text_of(tab, place):
    return " ".join(tab.locator(place).inner_text().split())


def wait_for_text(tab, place, words):
    tab.wait_for_function(
        "([place, words]) => document.querySelector(place)?.innerText.includes(words)", arg=[place, words]
    )


def wait_until_empty(tab, place):
    tab.wait_for_function("place => !document.querySelector(place).innerText.trim()", arg=place)


def upload(tab, name, content):
    tab.locator("#upload input[type=file]").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def encoded(picture, form="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


@needs_browser
def test_the_page_answers_at_once_for_a_cat(tab, cifar10):
    answer = cifar10.answer(str(EXAMPLES / "cat.jpg"))
    assert "10 labels: airplane, automobile" in text_of(tab, "#head")
    assert f"it chooses {answer.summary}" in text_of(tab, "#notice")
    assert re.match(r"cat \d+%", text_of(tab, "#labels"))
    assert "If the picture shows none of them, that is wrong" in text_of(tab, "#notice")


@needs_browser
def test_an_uploaded_picture_is_labeled_and_a_strange_one_doubted(tab, cifar10, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    content = encoded(Image.fromarray(noise))
    (tmp_path / "noise.png").write_bytes(content)
    answer = cifar10.answer(str(tmp_path / "noise.png"))
    upload(tab, "noise.png", content)
    wait_for_text(tab, "#notice", answer.summary)
    assert "Unlike what it knows. The picture is gray" in text_of(tab, "#notice")
    color = "element => getComputedStyle(element).color"  # Gradio's bold text is white in dark mode, like the box
    box = tab.locator("#notice .doubt").first
    assert box.locator("b").evaluate(color) == box.evaluate(color)


@needs_browser
def test_a_picture_is_answered_once_however_it_is_chosen(tab, cifar10, monkeypatch):
    answered, answer = [], cifar10.answer
    monkeypatch.setattr(cifar10, "answer", lambda path: answered.append(Path(path).name) or answer(path))
    upload(tab, "coffee.jpg", (EXAMPLES / "coffee.jpg").read_bytes())
    wait_for_text(tab, "#notice", "it chooses automobile")
    tab.locator("#examples img").nth(1).click()
    wait_for_text(tab, "#notice", "it chooses bird")
    tab.get_by_label("Remove Image").click()
    wait_until_empty(tab, "#notice")
    assert tab.locator("#attention img").count() == 0
    assert answered == ["coffee.jpg", "bird.jpg"]


@needs_browser
def test_a_click_shows_where_that_pixel_looks(tab, cifar10):
    layer = cifar10.answer(str(EXAMPLES / "cat.jpg")).layers[0]
    picture = tab.locator("#attention img")
    box = picture.bounding_box()
    before = picture.get_attribute("src")
    assert "row 16, column 16, the mean of its 4 heads" in text_of(tab, "#told")
    (x, y), (width, height) = place_of(layer, (24, 8)), canvas_size(area_of(layer))
    picture.click(position={"x": x * box["width"] / width, "y": y * box["height"] / height})
    wait_for_text(tab, "#told", "row 24, column 8,")
    assert picture.get_attribute("src") != before


@needs_browser
def test_the_sliders_choose_layer_and_head(tab):
    tab.locator("#layer input[type=number]").fill("3")
    tab.locator("#layer input[type=number]").press("Enter")
    wait_for_text(tab, "#told", "Layer 3 of 0 to 5")
    tab.locator("#one-head input[type=number]").fill("6")
    tab.locator("#one-head input[type=number]").press("Enter")
    wait_for_text(tab, "#told", "head 6 looks most")
    assert not tab.locator("#mean input").is_checked()
    tab.locator("#layer input[type=number]").fill("0")  # which has four heads
    tab.locator("#layer input[type=number]").press("Enter")
    wait_for_text(tab, "#told", "head 3 looks most")


@needs_browser
def test_a_number_that_is_no_layer_shows_the_nearest(tab):
    number = tab.locator("#layer input[type=number]")
    for typed, shown in [("99", 5), ("-3", 0), ("2", 2), ("", 0)]:
        number.fill(typed)
        number.press("Enter")
        wait_for_text(tab, "#told", f"Layer {shown} of 0 to 5")
    assert tab.locator(".toast-body").count() == 0


@needs_browser
def test_two_visitors_see_their_own_pictures(tab, browser, server, cifar10):
    other = browser.new_context().new_page()
    other.set_default_timeout(15_000)
    other.goto(server.local_url)
    other.wait_for_selector("#attention img")
    upload(other, "coffee.jpg", (EXAMPLES / "coffee.jpg").read_bytes())
    wait_for_text(other, "#notice", cifar10.answer(str(EXAMPLES / "coffee.jpg")).summary)
    for page, name in [(tab, "cat"), (other, "coffee")]:
        answer = cifar10.answer(str(EXAMPLES / f"{name}.jpg"))
        page.locator("#layer input[type=number]").fill("4")
        wait_for_text(page, "#told", "Layer 4 of")
        assert text_of(page, "#told") == describe_view(answer.layers, View((16, 16), 4, None)).replace("**", "")
        assert f"it chooses {answer.summary}" in text_of(page, "#notice")
    other.context.close()


@needs_browser
def test_bad_uploads_are_told_and_the_server_lives_on(tab, monkeypatch):
    for name, content, words in [
        ("broken.png", b"no picture at all", "broken.png is not an image that can be read"),
        (
            "drawing.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
            "drawing.svg is not an image",
        ),
        ("half.png", encoded(Image.new("RGB", (300, 300), "red"))[:200], "half.png is damaged or truncated"),
        ("huge.png", encoded(Image.new("L", (10_000, 10_000))), "huge.png is refused"),
    ]:
        upload(tab, name, content)
        wait_for_text(tab, "#notice .error", words)
        assert tab.locator("#attention img").count() == 0  # nothing of the picture before
    upload(tab, "large.png", bytes(21 * 2**20))
    tab.wait_for_selector("text=/exceed the maximum allowed size/")
    tab.reload()
    tab.wait_for_selector("#attention img")
    upload(tab, "cat.jpg", (EXAMPLES / "cat.jpg").read_bytes())
    wait_for_text(tab, "#notice", "it chooses cat")


@needs_browser
@pytest.mark.usefixtures("tab")
def test_the_page_asks_nothing_of_other_machines(asked, sought, server):
    assert sought == []
    assert [url for url in asked if not url.startswith((server.local_url, "data:", "blob:"))] == []
    assert len(asked) > 10


@needs_browser
@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_a_detector_shows_its_instances(kind, new_tab, sought, detectors, monkeypatch):
    monkeypatch.setattr("halonet.demo.model.MIN_SCORE", 0.01)
    page = launch(open_model(detectors[kind]), None)
    tab = new_tab
    try:
        tab.goto(page.local_url)
        tab.wait_for_selector("#instances img")
        tab.wait_for_selector("#attention img")
        assert "It finds:" in text_of(tab, "#notice")
        assert not tab.locator("#labels").is_visible()
    finally:
        page.close(verbose=False)


def test_the_page_is_served_on_this_machine_alone(server, sought):
    assert sought == []
    assert server.local_url.startswith("http://127.0.0.1:")
    assert server.server_name == "127.0.0.1"
    assert server.share_url is None
    assert server.analytics_enabled is False


def test_a_proxy_is_not_asked_for_this_machine(cifar10, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setenv("NO_PROXY", "example.org")
    launch(cifar10, None).close(verbose=False)
    gc.collect()  # as above
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.org,127.0.0.1"


def test_a_port_in_use_is_told(server, cifar10):
    port = server.server_port
    with pytest.raises(UserError, match=f"^port {port} is in use or not allowed: choose another with --port N$"):
        launch(cifar10, port)
